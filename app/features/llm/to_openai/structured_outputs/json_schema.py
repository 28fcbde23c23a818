"""JSON schemas for OpenAI: in its strict subset if every strict-valid response is valid under the original."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from app.core.errors.request_errors import RequestError
from app.features.llm.schema import JSONObject
from app.features.llm.to_openai.structured_outputs.strict_schema import ROOT_KEYWORDS, NotStrict, require, to_strict

MAX_NESTING = 64
"""vLLM's limit on nested objects and arrays in the text of a schema."""


@dataclass(frozen=True, slots=True)
class PreparedSchema:
    """A schema for OpenAI, and how it relates to the client's."""

    schema: JSONObject
    strict: bool
    """Whether OpenAI enforces it. If not, it is sent as a hint."""
    wrapped: bool
    """Whether the client's schema is that of the property `value`, so that the response must be unwrapped."""


def prepare_schema(
    schema: JSONObject | bool, *, strict: bool | None = None, param: str = "response_format"
) -> PreparedSchema:
    """Return the schema to send: strict if possible, or unchanged if the client set `strict` itself.

    Every instance of the strict schema is an instance of the client's, but not the other way round: all properties are
    present, and no others. A root that is not plainly an object is wrapped in one, as OpenAI requires.

    Raises:
        RequestError: it is nested too deeply, or a schema in it is neither an object nor a boolean; names `param`.
    """
    if _is_deeper(schema, MAX_NESTING):
        raise RequestError(f"The JSON schema is nested deeper than {MAX_NESTING} levels.", param=param)
    if not _is_schema(schema):
        raise RequestError("Grammar error: schema must be an object or boolean", param=param)
    if strict is None:
        try:
            return _prepare_strict(schema)
        except NotStrict:
            strict = False
    sent = _with_object_root(schema)
    return PreparedSchema(sent, strict, sent is not schema)


def valid_name(name: str | None) -> str:
    """Return `name` with the characters and length that OpenAI accepts for a schema's name."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name or "")[:64] or "answer"


def choice_schema(choices: Sequence[str]) -> JSONObject:
    """Return the schema of a string that is one of `choices`."""
    return {"type": "string", "enum": list(dict.fromkeys(choices))}


def regex_schema(pattern: str) -> JSONObject:
    """Return the schema of a string that matches `pattern` as a whole; JSON schema itself accepts a partial match."""
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def _prepare_strict(schema: JSONObject | bool) -> PreparedSchema:
    if not isinstance(schema, dict):
        raise NotStrict
    converted = to_strict(schema)
    sent = _with_object_root(converted)
    require(_is_within_limits(sent))
    return PreparedSchema(sent, True, sent is not converted)


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list) and (not levels or any(_is_deeper(part, levels - 1) for part in inner))


def _is_schema(value: Any) -> bool:
    """Whether a value and all schemas in it are objects or booleans. OpenAI answers others with a 500."""
    if not isinstance(value, dict):
        return isinstance(value, bool)
    maps = (value[keyword].values() for keyword in _CHECKED_MAPS & value.keys() if isinstance(value[keyword], dict))
    lists = (value[keyword] for keyword in _LIST_KEYWORDS & value.keys() if isinstance(value[keyword], list))
    # Earlier drafts have a list of schemas as `items`.
    single = (value[keyword] for keyword in _SCHEMA_KEYWORDS & value.keys() if not isinstance(value[keyword], list))
    return all(map(_is_schema, chain(*maps, *lists, single)))


_NOT_AT_ROOT = frozenset({"$ref", "anyOf", "oneOf", "allOf", "not", "enum"})
_MAP_KEYWORDS = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
# Definitions that nothing refers to may be anything.
_CHECKED_MAPS = frozenset({"properties", "patternProperties"})
_LIST_KEYWORDS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMA_KEYWORDS = frozenset(
    {"items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else"}
)
_VALUE_KEYWORDS = frozenset({"enum", "const", "default", "examples"})
_REFERENCE_INTO_ROOT = re.compile(r"\A#(?=$|/(?!(?:\$defs|definitions)/))")


def _with_object_root(schema: JSONObject | bool) -> JSONObject:
    """Return the schema if its root is plainly an object, else an object schema with it as the property `value`."""
    root = schema if isinstance(schema, dict) else {}
    if root.get("type") == "object" and not root.keys() & _NOT_AT_ROOT:
        return root
    definitions = root["$defs"] if isinstance(root.get("$defs"), dict) else {}
    name = "value"
    while name in definitions:
        name += "_"
    copied = _move_references(root, f"#/$defs/{name}")
    shared = {keyword: copied.pop(keyword) for keyword in ROOT_KEYWORDS if keyword in copied}
    value = copied if isinstance(schema, dict) else schema
    if shared | copied != root:
        # OpenAI accepts references to definitions only, so a root that is referred to becomes one.
        shared["$defs"] = {**(shared["$defs"] if definitions else {}), name: value}
        value = {"$ref": f"#/$defs/{name}"}
    wrapper = {"type": "object", "properties": {"value": value}, "required": ["value"], "additionalProperties": False}
    return wrapper | shared


def _move_references(schema: Any, root: str, *, is_map: bool = False) -> Any:
    """Return a copy in which references to or into the root point to `root`."""
    if isinstance(schema, list):
        return [_move_references(part, root) for part in schema]
    if not isinstance(schema, dict):
        return schema
    copied = {}
    for keyword, value in schema.items():
        if keyword == "$ref" and isinstance(value, str):
            copied[keyword] = _REFERENCE_INTO_ROOT.sub(root, value, count=1)
        elif keyword in _VALUE_KEYWORDS and not is_map:
            copied[keyword] = value
        else:
            copied[keyword] = _move_references(value, root, is_map=keyword in _MAP_KEYWORDS and not is_map)
    return copied


def _is_within_limits(schema: JSONObject) -> bool:
    """Whether a strict schema is within OpenAI's size limits."""
    parts = list(_subschemas(schema))
    schemas = [part for part, _ in parts]
    values = [part.get("enum", ()) for part in schemas]
    names = [name for part in schemas for keyword in ("properties", "$defs") for name in part.get(keyword, ())]
    texts = [*names, *(value for enum in values for value in enum), *(part.get("const", "") for part in schemas)]
    return (
        max(depth for _, depth in parts) <= 10
        and sum(len(part.get("properties", ())) for part in schemas) <= 5_000
        and sum(map(len, values)) <= 1_000
        and sum(len(str(value)) for value in texts) <= 120_000
        and all(len(enum) <= 250 or sum(len(str(value)) for value in enum) <= 15_000 for enum in values)
    )


def _subschemas(schema: JSONObject, depth: int = 0) -> Iterator[tuple[JSONObject, int]]:
    """Yield every schema inside a strict one with its depth, counted in objects and arrays."""
    depth += bool(schema.keys() & {"properties", "items"})
    yield schema, depth
    items = [schema["items"]] if "items" in schema else []
    for part in [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *items]:
        yield from _subschemas(part, depth)
    for part in schema.get("$defs", {}).values():
        yield from _subschemas(part)
