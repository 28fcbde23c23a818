"""Any JSON schema, made into one that OpenAI enforces, where no answer it then takes breaks the client's."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.core.errors.errors import RequestError
from app.features.llm.schema import JSONObject
from app.features.llm.to_openai.structured_outputs.strict_schema import OF_ROOT, NotStrict, require, tightened

MAX_NESTING = 64
"""vLLM's own limit on the objects and arrays around one another in a schema's text."""


@dataclass(frozen=True, slots=True)
class PreparedSchema:
    """A schema for OpenAI, and what became of the client's on the way."""

    schema: JSONObject
    strict: bool
    """OpenAI will enforce it. False: it could not be made strict, and is sent as a hint."""
    wrapped: bool
    """The client's schema is that of the property `value`, in the schema as in the answer."""


def prepared(
    schema: JSONObject | bool, *, strict: bool | None = None, param: str = "response_format"
) -> PreparedSchema:
    """The schema to send, strict wherever it can be; where the client said so itself, its schema as it is.

    Every instance of a schema made strict is one of the client's, though not the other way round: all properties are
    there, and no others. A root that is not plainly an object is wrapped into one, as OpenAI demands.

    Raises:
        RequestError: it is nested too deeply; names `param`.
    """
    if _is_deeper(schema, MAX_NESTING):
        raise RequestError(f"The JSON schema is nested deeper than {MAX_NESTING} levels.", param=param)
    if strict is None:
        try:
            return _strict(schema)
        except NotStrict:
            strict = False
    sent = _with_object_root(schema)
    return PreparedSchema(sent, strict, sent is not schema)


def legal_name(name: str | None) -> str:
    """A name that OpenAI takes for a schema, as near to `name` as can be."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name or "")[:64] or "answer"


def choice_schema(choices: Sequence[str]) -> JSONObject:
    """The schema of one of these strings."""
    return {"type": "string", "enum": list(dict.fromkeys(choices))}


def regex_schema(pattern: str) -> JSONObject:
    """The schema of a string that all of `pattern` matches; JSON schema would let it match a part."""
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def _strict(schema: JSONObject | bool) -> PreparedSchema:
    if not isinstance(schema, dict):
        raise NotStrict
    tight = tightened(schema)
    sent = _with_object_root(tight)
    require(_is_within_limits(sent))
    return PreparedSchema(sent, True, sent is not tight)


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list) and (not levels or any(_is_deeper(part, levels - 1) for part in inner))


_NOT_AT_ROOT = frozenset({"$ref", "anyOf", "oneOf", "allOf", "not", "enum"})
_MAPS = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
_VALUES = frozenset({"enum", "const", "default", "examples"})
_INTO_ROOT = re.compile(r"\A#(?=$|/(?!(?:\$defs|definitions)/))")


def _with_object_root(schema: JSONObject | bool) -> JSONObject:
    """The schema itself where its root is plainly an object, else that of an object with it as `value`."""
    given = schema if isinstance(schema, dict) else {}
    if given.get("type") == "object" and not given.keys() & _NOT_AT_ROOT:
        return given
    definitions = given["$defs"] if isinstance(given.get("$defs"), dict) else {}
    name = "value"
    while name in definitions:
        name += "_"
    moved = _moved(given, f"#/$defs/{name}")
    shared = {keyword: moved.pop(keyword) for keyword in OF_ROOT if keyword in moved}
    value = moved if isinstance(schema, dict) else schema
    if shared | moved != given:
        # A reference into the root needs it among the definitions: OpenAI takes no reference to anything else.
        shared["$defs"] = {**(shared["$defs"] if definitions else {}), name: value}
        value = {"$ref": f"#/$defs/{name}"}
    object_ = {"type": "object", "properties": {"value": value}, "required": ["value"], "additionalProperties": False}
    return object_ | shared


def _moved(schema: Any, root: str, *, is_map: bool = False) -> Any:
    """A copy in which references to the root, or into it, lead to `root`."""
    if isinstance(schema, list):
        return [_moved(part, root) for part in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {}
    for keyword, value in schema.items():
        if keyword == "$ref" and isinstance(value, str):
            moved[keyword] = _INTO_ROOT.sub(root, value, count=1)
        elif keyword in _VALUES and not is_map:
            moved[keyword] = value
        else:
            moved[keyword] = _moved(value, root, is_map=keyword in _MAPS and not is_map)
    return moved


def _is_within_limits(schema: JSONObject) -> bool:
    """Whether a strict schema is as small as OpenAI has them."""
    parts = list(_parts(schema))
    schemas = [part for part, _ in parts]
    values = [part.get("enum", ()) for part in schemas]
    named = [name for part in schemas for keyword in ("properties", "$defs") for name in part.get(keyword, ())]
    counted = [*named, *(value for some in values for value in some), *(part.get("const", "") for part in schemas)]
    return (
        max(depth for _, depth in parts) <= 10
        and sum(len(part.get("properties", ())) for part in schemas) <= 5_000
        and sum(map(len, values)) <= 1_000
        and sum(len(str(value)) for value in counted) <= 120_000
        and all(len(some) <= 250 or sum(len(str(value)) for value in some) <= 15_000 for some in values)
    )


def _parts(schema: JSONObject, depth: int = 0) -> Iterator[tuple[JSONObject, int]]:
    """The schemas inside a strict one, each with the number of objects and arrays that it is, or is in."""
    depth += bool(schema.keys() & {"properties", "items"})
    yield schema, depth
    items = [schema["items"]] if "items" in schema else []
    for part in [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *items]:
        yield from _parts(part, depth)
    for part in schema.get("$defs", {}).values():
        yield from _parts(part)
