"""Values that fit a JSON schema."""

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from app.simulator import json_text
from app.simulator.answers.patterns import matching_text
from app.simulator.answers.prose import WORDS
from app.simulator.dice import Dice
from app.simulator.json_text import JSONObject
from app.simulator.rules.schemas import resolved

# From here on down only what a schema insists on: this is where a recursive one ends.
FULL_DEPTH = 4
# A schema that insists on its own recursion has no instance; this is where trying ends.
DEEPEST = 40
HIGHEST_BY_DEFAULT = 100
# A schema can ask for more than fits into memory; past these a value no longer fits it.
MOST_ITEMS = 1_000
MOST_CHARACTERS = 10_000
TRIES_FOR_ANOTHER = 20


def _date(dice: Dice) -> str:
    return f"20{dice.below(80) + 10}-{dice.below(12) + 1:02}-{dice.below(28) + 1:02}"


def _time(dice: Dice) -> str:
    return f"{dice.below(24):02}:{dice.below(60):02}:{dice.below(60):02}Z"


def _uuid(dice: Dice) -> str:
    digits = "".join(dice.choose("0123456789abcdef") for _ in range(30))
    return f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-8{digits[15:18]}-{digits[18:30]}"


FORMATS: Mapping[str, Callable[[Dice], str]] = {
    "date": _date,
    "time": _time,
    "date-time": lambda dice: f"{_date(dice)}T{_time(dice)}",
    "duration": lambda dice: f"P{dice.below(30) + 1}DT{dice.below(24)}H",
    "email": lambda dice: f"{dice.choose(WORDS)}@example.com",
    "hostname": lambda dice: f"{dice.choose(WORDS)}.example.com",
    "ipv4": lambda dice: f"192.0.2.{dice.below(256)}",
    "ipv6": lambda dice: f"2001:db8::{dice.below(65536):x}",
    "uuid": _uuid,
    "uri": lambda dice: f"https://example.com/{dice.choose(WORDS)}",
}


def instance_text(schema: JSONObject, dice: Dice) -> str:
    """Return JSON text of a value that fits ``schema``, in which recursion comes to an end."""
    return json_text.compact(_Maker(schema or {"type": "object"}, dice).make(schema or {"type": "object"})).decode()


class _Maker:
    """Makes values for parts of the schema ``root``; ``depth`` counts the schemas around a part."""

    def __init__(self, root: JSONObject, dice: Dice) -> None:
        self._root = root
        self._dice = dice
        # Keywords that replace the schema by a value or by another schema, in the order they are looked for.
        self._reductions: Mapping[str, Callable[[JSONObject, int], Any]] = {
            "$ref": self._referred,
            "const": lambda schema, _: schema["const"],
            "enum": lambda schema, _: self._dice.choose(schema["enum"]),
            "anyOf": self._any_of,
            "oneOf": self._one_of,
            "allOf": lambda schema, depth: self.make(self._merged(schema), depth + 1),
        }
        self._makers: Mapping[str, Callable[[JSONObject, int], Any]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "number": self._number,
            "integer": self._integer,
            "boolean": lambda _, __: self._dice.below(2) == 1,
            "null": lambda _, __: None,
        }

    def make(self, schema: Any, depth: int = 0) -> Any:
        if not isinstance(schema, dict) or depth > DEEPEST:
            return None
        for keyword, reduced in self._reductions.items():
            if keyword in schema:
                return reduced(schema, depth)
        return self._makers[_type(schema, depth)](schema, depth)

    def _referred(self, schema: JSONObject, depth: int) -> Any:
        target = resolved(schema["$ref"], self._root) or {}
        return self.make({**target, **_without("$ref", schema)}, depth + 1)

    def _any_of(self, schema: JSONObject, depth: int) -> Any:
        return self.make({**_without("anyOf", schema), **self._branch(schema["anyOf"], depth)}, depth + 1)

    def _one_of(self, schema: JSONObject, depth: int) -> Any:
        return self.make({**_without("oneOf", schema), **self._branch(schema["oneOf"], depth)}, depth + 1)

    def _branch(self, branches: list[Any], depth: int) -> JSONObject:
        usable = [branch for branch in branches if isinstance(branch, dict)]
        if depth >= FULL_DEPTH:
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
        wanted = [name for name in properties if depth < FULL_DEPTH or name in required]
        made = {name: self.make(properties[name], depth + 1) for name in wanted}
        extra, least = schema.get("additionalProperties", True), min(schema.get("minProperties", 0), MOST_ITEMS)
        for name in [*required, *(f"key{number}" for number in range(least))]:
            if name not in made and (name in required or len(made) < least):
                made[name] = self.make(extra if isinstance(extra, dict) else {"type": "string"}, depth + 1)
        return made

    def _array(self, schema: JSONObject, depth: int) -> list[Any]:
        first = schema.get("prefixItems", [])
        least = min(schema.get("minItems", 0), MOST_ITEMS)
        length = max(least, len(first), depth < FULL_DEPTH)
        made: list[Any] = []
        for position in range(min(length, schema.get("maxItems", length))):
            item = first[position] if position < len(first) else schema.get("items", {"type": "string"})
            made.append(self._another(item, made if schema.get("uniqueItems") else [], depth))
        return made

    def _another(self, item: Any, made: list[Any], depth: int) -> Any:
        for _ in range(TRIES_FOR_ANOTHER):
            value = self.make(item, depth + 1)
            if value not in made:
                break
        return value

    def _string(self, schema: JSONObject, _: int) -> str:
        if "pattern" in schema:
            return matching_text(schema["pattern"], self._dice)
        if schema.get("format") in FORMATS:
            return FORMATS[schema["format"]](self._dice)
        text = self._dice.choose(WORDS)
        while len(text) < min(schema.get("minLength", 0), MOST_CHARACTERS):
            text += " " + self._dice.choose(WORDS)
        # A cut keeps at least the least length, because no schema has a maximum below its minimum.
        return text[: schema.get("maxLength", len(text))]

    def _integer(self, schema: JSONObject, _: int) -> int:
        low, high = _limits(schema)
        step = int(schema.get("multipleOf", 1)) or 1
        first = math.ceil(low / step) + (schema.get("exclusiveMinimum") == math.ceil(low / step) * step)
        last = math.floor(high / step) - (schema.get("exclusiveMaximum") == math.floor(high / step) * step)
        return (first + self._dice.below(max(last - first, 0) + 1)) * step

    def _number(self, schema: JSONObject, depth: int) -> float:
        if "multipleOf" in schema:
            # In steps of the divisor, counted in decimals: 3 * 0.1 is not 0.3 in binary.
            step = Decimal(str(schema["multipleOf"]))
            scaled = {key: value / float(step) for key, value in schema.items() if "imum" in key}
            return float(self._integer(scaled, depth) * step)
        low, high = _limits(schema)
        # Never a limit itself, as it may be an exclusive one.
        return low + (high - low) * (1 + self._dice.below(98)) / 100


def _without(keyword: str, schema: JSONObject) -> JSONObject:
    return {key: value for key, value in schema.items() if key != keyword}


def _type(schema: JSONObject, depth: int) -> str:
    declared = schema.get("type")
    if isinstance(declared, list):
        if "null" in declared and depth >= FULL_DEPTH:
            return "null"
        return next((name for name in declared if name != "null"), "null")
    return declared or next((kind for keyword, kind in IMPLIED if keyword in schema), "string")


# What a schema without a type is about, by the keywords it has.
IMPLIED = (
    ("properties", "object"),
    ("required", "object"),
    ("items", "array"),
    ("prefixItems", "array"),
    ("minimum", "number"),
    ("maximum", "number"),
    ("multipleOf", "number"),
)


def _cost(branch: JSONObject) -> int:
    """Return how far a branch leads away from the end of a recursion."""
    return ("$ref" in branch) * 2 + (branch.get("type") in ("object", "array"))


def _limits(schema: JSONObject) -> tuple[float, float]:
    low = max((schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema), default=None)
    high = min((schema[key] for key in ("maximum", "exclusiveMaximum") if key in schema), default=None)
    if low is None:
        low = min(0, high - HIGHEST_BY_DEFAULT) if high is not None else 0
    return low, low + HIGHEST_BY_DEFAULT if high is None else high
