"""The JSON schemas that OpenAI accepts: any valid one, or with ``strict`` a subset."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.simulator.json_text import JSONObject

Context = tuple[str, ...]

TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
NOT_PERMITTED_LIST = (
    "allOf oneOf not if then else dependentRequired dependentSchemas minLength maxLength patternProperties uniqueItems "
    "contains minContains maxContains propertyNames minProperties maxProperties prefixItems unevaluatedProperties "
    "unevaluatedItems default"
)
NOT_PERMITTED = frozenset(NOT_PERMITTED_LIST.split())
AT_TOP_LEVEL = ("oneOf", "anyOf", "allOf", "enum", "not")
# Look-around and back-references, which strict decoding does not support.
UNSUPPORTED_PATTERN = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9]")

MAPS = ("properties", "$defs", "definitions", "patternProperties")
LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
SINGLES = ("items", "additionalProperties", "not")
# The keywords whose subschemas describe a deeper level of the instance.
DEEPER = frozenset({"properties", "items"})

MAP, LIST, TEXT, NUMBER, COUNT = (dict,), (list,), (str,), (int, float), (int,)
KINDS: dict[tuple[type, ...], str] = {MAP: "object", LIST: "array", TEXT: "string", NUMBER: "number", COUNT: "integer"}
# The required type of each keyword's value, whether or not OpenAI enforces the keyword.
SHAPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("properties", "$defs", "definitions"), MAP),
    **dict.fromkeys(("required", "enum", "anyOf", "allOf", "oneOf", "prefixItems"), LIST),
    **dict.fromkeys(("description", "pattern", "format", "$ref"), TEXT),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), NUMBER),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties"), COUNT),
}
NEVER_EMPTY = ("enum", "anyOf", "allOf", "oneOf")

MAX_DEPTH = 10
MOST_PROPERTIES = 5_000
MOST_ENUM_VALUES = 1_000
MOST_NAME_CHARACTERS = 120_000


class SchemaError(ValueError):
    """A schema that OpenAI rejects; the text is OpenAI's message."""


@dataclass(frozen=True)
class SchemaNode:
    """A subschema; ``depth`` counts the enclosing objects and arrays."""

    schema: JSONObject
    context: Context = ()
    depth: int = 0

    def error(self, problem: str) -> SchemaError:
        """Return the error for a problem in this subschema."""
        return SchemaError(f"In context={self.context!r}, {problem}")


def check_schema(schema: JSONObject, *, strict: bool, of_function: bool = False) -> None:
    """Check that OpenAI accepts ``schema``; ``of_function`` requires properties and items even if not strict.

    Raises:
        SchemaError: OpenAI rejects it.
    """
    _check_root(schema)
    nodes = list(_nodes(SchemaNode(schema)))
    for node in nodes:
        _check_valid(node)
    if of_function:
        _check_parameters(nodes)
    if strict:
        _check_strict(nodes)


def _check_root(schema: JSONObject) -> None:
    if schema.get("type") != "object":
        got = schema.get("type")
        raise SchemaError(f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{got}\"'.")


def _nodes(node: SchemaNode) -> Iterator[SchemaNode]:
    yield node
    for keyword, name, schema in _subschemas(node.schema):
        if isinstance(schema, dict):
            deeper = node.depth + (keyword in DEEPER)
            yield from _nodes(SchemaNode(schema, (*node.context, keyword, *name), deeper))


def _subschemas(schema: JSONObject) -> Iterator[tuple[str, Context, Any]]:
    for keyword in MAPS:
        if isinstance(schema.get(keyword), dict):
            yield from ((keyword, (name,), inner) for name, inner in schema[keyword].items())
    for keyword in LISTS:
        if isinstance(schema.get(keyword), list):
            yield from ((keyword, (str(index),), inner) for index, inner in enumerate(schema[keyword]))
    yield from ((keyword, (), schema.get(keyword)) for keyword in SINGLES)


def _check_valid(node: SchemaNode) -> None:
    for name in _types(node.schema):
        if not isinstance(name, str) or name not in TYPES:
            raise SchemaError(f"{name!r} is not valid under any of the given schemas.")
    for keyword, value in node.schema.items():
        kinds = SHAPES.get(keyword, (object,))
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds in (NUMBER, COUNT)):
            raise SchemaError(f"{value!r} is not of type '{KINDS[kinds]}'.")
        if keyword in NEVER_EMPTY and not value:
            raise SchemaError(f"{value!r} should be non-empty.")
    for name in node.schema.get("required", []):
        if not isinstance(name, str):
            raise SchemaError(f"{name!r} is not of type 'string'.")
    if node.schema.get("multipleOf", 1) <= 0:
        raise SchemaError(f"{node.schema['multipleOf']!r} is less than or equal to the minimum of 0.")


def _types(schema: JSONObject) -> Sequence[Any]:
    found = schema.get("type", [])
    return found if isinstance(found, list) else [found]


def _check_parameters(nodes: Sequence[SchemaNode]) -> None:
    if "properties" not in nodes[0].schema:
        raise nodes[0].error("object schema missing properties.")
    for node in nodes:
        if "array" in _types(node.schema) and "items" not in node.schema:
            raise node.error("array schema missing items.")


def _check_strict(nodes: Sequence[SchemaNode]) -> None:
    for keyword in AT_TOP_LEVEL:
        if keyword in nodes[0].schema:
            listed = "/".join(f"'{name}'" for name in AT_TOP_LEVEL)
            raise SchemaError(f"schema must have type 'object' and not have {listed} at the top level.")
    for node in nodes:
        for check in STRICT_CHECKS:
            check(node, nodes[0].schema)
    for maximum, noun, measure in TOTALS:
        total = sum(measure(node) for node in nodes)
        if total > maximum:
            raise SchemaError(f"Expected at most {maximum} {noun} in total, but got {total}.")


def _permitted(node: SchemaNode, _: JSONObject) -> None:
    for keyword in node.schema:
        if keyword in NOT_PERMITTED:
            raise node.error(f"'{keyword}' is not permitted.")


def _typed(node: SchemaNode, _: JSONObject) -> None:
    if not node.schema.keys() & {"type", "anyOf", "$ref", "enum", "const"}:
        raise node.error("schema must have a 'type' key.")
    if "array" in _types(node.schema) and "items" not in node.schema:
        raise node.error("array schema missing items.")


def _shallow(node: SchemaNode, _: JSONObject) -> None:
    if node.depth > MAX_DEPTH:
        raise node.error(f"nesting exceeds the maximum of {MAX_DEPTH} levels.")


def _closed(node: SchemaNode, _: JSONObject) -> None:
    schema = node.schema
    if "object" not in _types(schema) and "properties" not in schema:
        return
    if schema.get("additionalProperties") is not False:
        raise node.error("'additionalProperties' is required to be supplied and to be false.")
    properties, required = schema.get("properties", {}), schema.get("required", [])
    for name in properties:
        if name not in required:
            raise node.error(
                "'required' is required to be supplied and to be an array including every key in properties. "
                f"Missing '{name}'."
            )
    for name in required:
        if name not in properties:
            raise node.error(f"Extra required key '{name}' supplied.")


def _resolvable(node: SchemaNode, root: JSONObject) -> None:
    if "$ref" not in node.schema:
        return
    beside = sorted(node.schema.keys() - {"$ref"})
    if beside:
        raise node.error(f"$ref cannot have keywords {{{', '.join(map(repr, beside))}}}.")
    if not isinstance(resolved(node.schema["$ref"], root), dict):
        raise node.error(f"reference '{node.schema['$ref']}' can only point to definitions in the schema itself.")


def _known_format(node: SchemaNode, _: JSONObject) -> None:
    if "format" in node.schema and node.schema["format"] not in FORMATS:
        raise node.error(f"'{node.schema['format']}' is not a supported format.")
    if UNSUPPORTED_PATTERN.search(node.schema.get("pattern", "")):
        raise node.error(f"'{node.schema['pattern']}' is not a supported pattern.")


def resolved(reference: str, root: JSONObject) -> Any:
    """Return the schema at a local ``$ref``, or None."""
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, dict) else None
    return found if reference.startswith("#") else None


def _enum_values(node: SchemaNode) -> int:
    return len(node.schema.get("enum", []))


def _properties(node: SchemaNode) -> int:
    return len(node.schema.get("properties", {}))


def _name_characters(node: SchemaNode) -> int:
    named = [*node.schema.get("properties", {}), *node.schema.get("$defs", {}), *node.schema.get("enum", [])]
    return sum(len(str(name)) for name in [*named, node.schema.get("const", "")])


STRICT_CHECKS: Sequence[Callable[[SchemaNode, JSONObject], None]] = (
    _permitted,
    _resolvable,
    _typed,
    _shallow,
    _closed,
    _known_format,
)
TOTALS: Sequence[tuple[int, str, Callable[[SchemaNode], int]]] = (
    (MOST_PROPERTIES, "object properties", _properties),
    (MOST_ENUM_VALUES, "enum values", _enum_values),
    (MOST_NAME_CHARACTERS, "characters of names, enum and const values", _name_characters),
)
