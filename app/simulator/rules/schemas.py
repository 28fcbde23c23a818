"""Which JSON schemas OpenAI takes: any valid one without ``strict``, and a subset with it."""

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
# Look-around and back-references, which the decoder of strict answers cannot follow.
UNSUPPORTED_PATTERN = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9]")

MAPS = ("properties", "$defs", "definitions", "patternProperties")
LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
SINGLES = ("items", "additionalProperties", "not")
# The steps that go one level deeper into the instance, and do not only describe the same place again.
DEEPER = frozenset({"properties", "items"})

MAP, LIST, TEXT, NUMBER, COUNT = (dict,), (list,), (str,), (int, float), (int,)
KINDS: dict[tuple[type, ...], str] = {MAP: "object", LIST: "array", TEXT: "string", NUMBER: "number", COUNT: "integer"}
# What the value of a keyword has to be, whether OpenAI enforces the keyword or not.
SHAPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("properties", "$defs", "definitions"), MAP),
    **dict.fromkeys(("required", "enum", "anyOf", "allOf", "oneOf", "prefixItems"), LIST),
    **dict.fromkeys(("description", "pattern", "format", "$ref"), TEXT),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), NUMBER),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties"), COUNT),
}
NEVER_EMPTY = ("enum", "anyOf", "allOf", "oneOf")

DEEPEST = 10
MOST_PROPERTIES = 5_000
MOST_ENUM_VALUES = 1_000
MOST_NAME_CHARACTERS = 120_000


class SchemaError(ValueError):
    """A schema OpenAI does not take, in its own words."""


@dataclass(frozen=True)
class Place:
    """A schema inside the one that was sent; ``depth`` counts the objects and arrays around it."""

    schema: JSONObject
    context: Context = ()
    depth: int = 0

    def error(self, problem: str) -> SchemaError:
        """Return the error for a problem at this place."""
        return SchemaError(f"In context={self.context!r}, {problem}")


def check_schema(schema: JSONObject, *, strict: bool, of_function: bool = False) -> None:
    """Return if OpenAI takes ``schema``; parameters of a function need their properties and items even if not strict.

    Raises:
        SchemaError: it does not, and why.
    """
    _check_root(schema)
    places = list(_places(Place(schema)))
    for place in places:
        _check_valid(place)
    if of_function:
        _check_parameters(places)
    if strict:
        _check_strict(places)


def _check_root(schema: JSONObject) -> None:
    if schema.get("type") != "object":
        got = schema.get("type")
        raise SchemaError(f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{got}\"'.")


def _places(place: Place) -> Iterator[Place]:
    yield place
    for keyword, name, schema in _subschemas(place.schema):
        if isinstance(schema, dict):
            deeper = place.depth + (keyword in DEEPER)
            yield from _places(Place(schema, (*place.context, keyword, *name), deeper))


def _subschemas(schema: JSONObject) -> Iterator[tuple[str, Context, Any]]:
    for keyword in MAPS:
        if isinstance(schema.get(keyword), dict):
            yield from ((keyword, (name,), inner) for name, inner in schema[keyword].items())
    for keyword in LISTS:
        if isinstance(schema.get(keyword), list):
            yield from ((keyword, (str(index),), inner) for index, inner in enumerate(schema[keyword]))
    yield from ((keyword, (), schema.get(keyword)) for keyword in SINGLES)


def _check_valid(place: Place) -> None:
    for name in _types(place.schema):
        if not isinstance(name, str) or name not in TYPES:
            raise SchemaError(f"{name!r} is not valid under any of the given schemas.")
    for keyword, value in place.schema.items():
        kinds = SHAPES.get(keyword, (object,))
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds in (NUMBER, COUNT)):
            raise SchemaError(f"{value!r} is not of type '{KINDS[kinds]}'.")
        if keyword in NEVER_EMPTY and not value:
            raise SchemaError(f"{value!r} should be non-empty.")
    for name in place.schema.get("required", []):
        if not isinstance(name, str):
            raise SchemaError(f"{name!r} is not of type 'string'.")
    if place.schema.get("multipleOf", 1) <= 0:
        raise SchemaError(f"{place.schema['multipleOf']!r} is less than or equal to the minimum of 0.")


def _types(schema: JSONObject) -> Sequence[Any]:
    found = schema.get("type", [])
    return found if isinstance(found, list) else [found]


def _check_parameters(places: Sequence[Place]) -> None:
    if "properties" not in places[0].schema:
        raise places[0].error("object schema missing properties.")
    for place in places:
        if "array" in _types(place.schema) and "items" not in place.schema:
            raise place.error("array schema missing items.")


def _check_strict(places: Sequence[Place]) -> None:
    for keyword in AT_TOP_LEVEL:
        if keyword in places[0].schema:
            listed = "/".join(f"'{name}'" for name in AT_TOP_LEVEL)
            raise SchemaError(f"schema must have type 'object' and not have {listed} at the top level.")
    for place in places:
        for check in STRICT_CHECKS:
            check(place, places[0].schema)
    for most, noun, measure in TOTALS:
        total = sum(measure(place) for place in places)
        if total > most:
            raise SchemaError(f"Expected at most {most} {noun} in total, but got {total}.")


def _permitted(place: Place, _: JSONObject) -> None:
    for keyword in place.schema:
        if keyword in NOT_PERMITTED:
            raise place.error(f"'{keyword}' is not permitted.")


def _typed(place: Place, _: JSONObject) -> None:
    if not place.schema.keys() & {"type", "anyOf", "$ref", "enum", "const"}:
        raise place.error("schema must have a 'type' key.")
    if "array" in _types(place.schema) and "items" not in place.schema:
        raise place.error("array schema missing items.")


def _shallow(place: Place, _: JSONObject) -> None:
    if place.depth > DEEPEST:
        raise place.error(f"nesting exceeds the maximum of {DEEPEST} levels.")


def _closed(place: Place, _: JSONObject) -> None:
    schema = place.schema
    if "object" not in _types(schema) and "properties" not in schema:
        return
    if schema.get("additionalProperties") is not False:
        raise place.error("'additionalProperties' is required to be supplied and to be false.")
    properties, required = schema.get("properties", {}), schema.get("required", [])
    for name in properties:
        if name not in required:
            raise place.error(
                "'required' is required to be supplied and to be an array including every key in properties. "
                f"Missing '{name}'."
            )
    for name in required:
        if name not in properties:
            raise place.error(f"Extra required key '{name}' supplied.")


def _resolvable(place: Place, root: JSONObject) -> None:
    if "$ref" not in place.schema:
        return
    beside = sorted(place.schema.keys() - {"$ref"})
    if beside:
        raise place.error(f"$ref cannot have keywords {{{', '.join(map(repr, beside))}}}.")
    if not isinstance(resolved(place.schema["$ref"], root), dict):
        raise place.error(f"reference '{place.schema['$ref']}' can only point to definitions in the schema itself.")


def _known_format(place: Place, _: JSONObject) -> None:
    if "format" in place.schema and place.schema["format"] not in FORMATS:
        raise place.error(f"'{place.schema['format']}' is not a supported format.")
    if UNSUPPORTED_PATTERN.search(place.schema.get("pattern", "")):
        raise place.error(f"'{place.schema['pattern']}' is not a supported pattern.")


def resolved(reference: str, root: JSONObject) -> Any:
    """Return the schema that a local ``$ref`` points to, or None if there is none."""
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, dict) else None
    return found if reference.startswith("#") else None


def _enum_values(place: Place) -> int:
    return len(place.schema.get("enum", []))


def _properties(place: Place) -> int:
    return len(place.schema.get("properties", {}))


def _name_characters(place: Place) -> int:
    named = [*place.schema.get("properties", {}), *place.schema.get("$defs", {}), *place.schema.get("enum", [])]
    return sum(len(str(name)) for name in [*named, place.schema.get("const", "")])


STRICT_CHECKS: Sequence[Callable[[Place, JSONObject], None]] = (
    _permitted,
    _resolvable,
    _typed,
    _shallow,
    _closed,
    _known_format,
)
TOTALS: Sequence[tuple[int, str, Callable[[Place], int]]] = (
    (MOST_PROPERTIES, "object properties", _properties),
    (MOST_ENUM_VALUES, "enum values", _enum_values),
    (MOST_NAME_CHARACTERS, "characters of names, enum and const values", _name_characters),
)
