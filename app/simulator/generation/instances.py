"""Generates values that match a JSON schema."""

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from app.simulator import json_text
from app.simulator.generation.patterns import matching_text
from app.simulator.generation.prose import WORDS
from app.simulator.json_text import JSONObject
from app.simulator.rules.schemas import resolved
from app.simulator.seeded_random import SeededRandom

# Deeper than this only required values are generated, which ends recursive schemas.
OPTIONAL_DEPTH = 4
# A schema whose recursion is required has no finite instance; below this depth values are null.
MAX_DEPTH = 40
DEFAULT_MAXIMUM = 100
# A schema can require more than fits into memory; beyond these limits a value no longer matches it.
MAX_ITEMS = 1_000
MAX_CHARACTERS = 10_000
UNIQUE_ITEM_ATTEMPTS = 20


def _date(rng: SeededRandom) -> str:
    return f"20{rng.below(80) + 10}-{rng.below(12) + 1:02}-{rng.below(28) + 1:02}"


def _time(rng: SeededRandom) -> str:
    return f"{rng.below(24):02}:{rng.below(60):02}:{rng.below(60):02}Z"


def _uuid(rng: SeededRandom) -> str:
    digits = "".join(rng.choose("0123456789abcdef") for _ in range(30))
    return f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-8{digits[15:18]}-{digits[18:30]}"


FORMATS: Mapping[str, Callable[[SeededRandom], str]] = {
    "date": _date,
    "time": _time,
    "date-time": lambda rng: f"{_date(rng)}T{_time(rng)}",
    "duration": lambda rng: f"P{rng.below(30) + 1}DT{rng.below(24)}H",
    "email": lambda rng: f"{rng.choose(WORDS)}@example.com",
    "hostname": lambda rng: f"{rng.choose(WORDS)}.example.com",
    "ipv4": lambda rng: f"192.0.2.{rng.below(256)}",
    "ipv6": lambda rng: f"2001:db8::{rng.below(65536):x}",
    "uuid": _uuid,
    "uri": lambda rng: f"https://example.com/{rng.choose(WORDS)}",
}


def instance_text(schema: JSONObject, rng: SeededRandom) -> str:
    """Return a value that matches ``schema`` as JSON text; a malformed schema is matched by an empty object."""
    schema = schema or {"type": "object"}
    try:
        value = _InstanceBuilder(schema, rng).make(schema)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        # Without `strict` OpenAI accepts schemas that are not valid JSON Schema.
        value = {}
    return json_text.compact(value).decode()


class _InstanceBuilder:
    """Generates values for subschemas of ``root``; ``depth`` counts the enclosing schemas."""

    def __init__(self, root: JSONObject, rng: SeededRandom) -> None:
        self._root = root
        self._rng = rng
        # Keywords that replace the schema with a value or another schema, in order of precedence.
        self._reductions: Mapping[str, Callable[[JSONObject, int], Any]] = {
            "$ref": self._referenced,
            "const": lambda schema, _: schema["const"],
            "enum": lambda schema, _: self._rng.choose(schema["enum"]),
            "anyOf": self._any_of,
            "oneOf": self._one_of,
            "allOf": lambda schema, depth: self.make(self._merged(schema), depth + 1),
        }
        self._builders: Mapping[str, Callable[[JSONObject, int], Any]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "number": self._number,
            "integer": self._integer,
            "boolean": lambda _, __: self._rng.below(2) == 1,
            "null": lambda _, __: None,
        }

    def make(self, schema: Any, depth: int = 0) -> Any:
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            return None
        for keyword, reduced in self._reductions.items():
            if keyword in schema:
                return reduced(schema, depth)
        return self._builders[_type(schema, depth)](schema, depth)

    def _referenced(self, schema: JSONObject, depth: int) -> Any:
        target = resolved(schema["$ref"], self._root)
        return self.make({**(target if isinstance(target, dict) else {}), **_without("$ref", schema)}, depth + 1)

    def _any_of(self, schema: JSONObject, depth: int) -> Any:
        return self.make({**_without("anyOf", schema), **self._branch(schema["anyOf"], depth)}, depth + 1)

    def _one_of(self, schema: JSONObject, depth: int) -> Any:
        return self.make({**_without("oneOf", schema), **self._branch(schema["oneOf"], depth)}, depth + 1)

    def _branch(self, branches: list[Any], depth: int) -> JSONObject:
        usable = [branch for branch in branches if isinstance(branch, dict)]
        if depth >= OPTIONAL_DEPTH:
            usable.sort(key=_cost)
        return usable[0] if usable else {}

    def _merged(self, schema: JSONObject) -> JSONObject:
        merged = _without("allOf", schema)
        for part in schema["allOf"]:
            inner = resolved(part["$ref"], self._root) if "$ref" in part else part
            properties = {**merged.get("properties", {}), **inner.get("properties", {})}
            required = [*merged.get("required", []), *inner.get("required", [])]
            merged = {**merged, **inner, "properties": properties, "required": required}
        return merged

    def _object(self, schema: JSONObject, depth: int) -> JSONObject:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        wanted = [name for name in properties if depth < OPTIONAL_DEPTH or name in required]
        made = {name: self.make(properties[name], depth + 1) for name in wanted}
        extra, minimum = schema.get("additionalProperties", True), min(schema.get("minProperties", 0), MAX_ITEMS)
        for name in [*required, *(f"key{number}" for number in range(minimum))]:
            if name not in made and (name in required or len(made) < minimum):
                made[name] = self.make(extra if isinstance(extra, dict) else {"type": "string"}, depth + 1)
        return made

    def _array(self, schema: JSONObject, depth: int) -> list[Any]:
        first = schema.get("prefixItems", [])
        minimum = min(schema.get("minItems", 0), MAX_ITEMS)
        length = max(minimum, len(first), depth < OPTIONAL_DEPTH)
        made: list[Any] = []
        for position in range(min(length, schema.get("maxItems", length))):
            item = first[position] if position < len(first) else schema.get("items", {"type": "string"})
            made.append(self._unique_item(item, made if schema.get("uniqueItems") else [], depth))
        return made

    def _unique_item(self, item: Any, made: list[Any], depth: int) -> Any:
        for _ in range(UNIQUE_ITEM_ATTEMPTS):
            value = self.make(item, depth + 1)
            if value not in made:
                break
        return value

    def _string(self, schema: JSONObject, _: int) -> str:
        if "pattern" in schema:
            return matching_text(schema["pattern"], self._rng)
        if schema.get("format") in FORMATS:
            return FORMATS[schema["format"]](self._rng)
        text = self._rng.choose(WORDS)
        while len(text) < min(schema.get("minLength", 0), MAX_CHARACTERS):
            text += " " + self._rng.choose(WORDS)
        # Truncation keeps the minimum length: no schema has a maximum below its minimum.
        return text[: schema.get("maxLength", len(text))]

    def _integer(self, schema: JSONObject, _: int) -> int:
        low, high = _limits(schema)
        step = int(schema.get("multipleOf", 1)) or 1
        first = math.ceil(low / step) + (schema.get("exclusiveMinimum") == math.ceil(low / step) * step)
        last = math.floor(high / step) - (schema.get("exclusiveMaximum") == math.floor(high / step) * step)
        return (first + self._rng.below(max(last - first, 0) + 1)) * step

    def _number(self, schema: JSONObject, depth: int) -> float:
        if "multipleOf" in schema:
            # Decimal, because 3 * 0.1 is not 0.3 in binary floating point.
            step = Decimal(str(schema["multipleOf"]))
            scaled = {key: value / float(step) for key, value in schema.items() if "imum" in key}
            return float(self._integer(scaled, depth) * step)
        low, high = _limits(schema)
        # Never a limit itself, which may be exclusive.
        return low + (high - low) * (1 + self._rng.below(98)) / 100


def _without(keyword: str, schema: JSONObject) -> JSONObject:
    return {key: value for key, value in schema.items() if key != keyword}


def _type(schema: JSONObject, depth: int) -> str:
    declared = schema.get("type")
    if isinstance(declared, list):
        if "null" in declared and depth >= OPTIONAL_DEPTH:
            return "null"
        return next((name for name in declared if name != "null"), "null")
    return declared or next((kind for keyword, kind in IMPLIED_TYPES if keyword in schema), "string")


# The type of a schema that names none, by its keywords.
IMPLIED_TYPES = (
    ("properties", "object"),
    ("required", "object"),
    ("items", "array"),
    ("prefixItems", "array"),
    ("minimum", "number"),
    ("maximum", "number"),
    ("multipleOf", "number"),
)


def _cost(branch: JSONObject) -> int:
    """Return a sort key that puts branches without further recursion first."""
    return ("$ref" in branch) * 2 + (branch.get("type") in ("object", "array"))


def _limits(schema: JSONObject) -> tuple[float, float]:
    low = max((schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema), default=None)
    high = min((schema[key] for key in ("maximum", "exclusiveMaximum") if key in schema), default=None)
    if low is None:
        low = min(0, high - DEFAULT_MAXIMUM) if high is not None else 0
    return low, low + DEFAULT_MAXIMUM if high is None else high
