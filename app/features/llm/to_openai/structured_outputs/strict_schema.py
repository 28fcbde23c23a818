"""JSON schemas made strict: OpenAI enforces a part of JSON schema, with all properties present and no others."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from app.features.llm.schema import JSONObject


class NotStrict(Exception):
    """OpenAI cannot enforce this schema, or it cannot be told that it would enforce no less."""


def require(condition: object) -> None:
    """Go on only where it holds.

    Raises:
        NotStrict: it does not.
    """
    if not condition:
        raise NotStrict


def tightened(schema: JSONObject) -> JSONObject:
    """The strict form of a schema, every instance of which is one of the schema's.

    Raises:
        NotStrict: there is none.
    """
    return _Tightening(schema).result()


# `discriminator` is OpenAPI's: no keyword of JSON schema, and so without a say in what is valid.
_ANNOTATIONS = frozenset(
    {"title", "default", "examples", "$schema", "$comment", "deprecated", "readOnly", "writeOnly", "discriminator"}
)
_LONGEST_CHAIN = 64
"""References that are followed from one to the next."""
OF_ROOT = ("$schema", "$id", "$defs", "definitions")
"""Keywords that a schema has at its root only."""
_TYPE_OF_VALUE = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_TYPES = ("object", "array", *_TYPE_OF_VALUE.values())
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
_REFERENCE = re.compile(r"#(?:/(?:\$defs|definitions)/([^/~%]+))?")
# Look-around and back-references, which OpenAI refuses.
UNSUPPORTED_PATTERN = re.compile(r"\(\?(?:<?[=!]|P=)|\\[1-9k]")

# What OpenAI enforces, by the one type of instance that it speaks of, and what the value of each has to be.
_ENFORCED: dict[str, dict[str, type]] = {
    "object": {"properties": dict, "required": list, "additionalProperties": bool},
    "array": {"items": dict, "minItems": int, "maxItems": int},
    "string": {"pattern": str, "format": str},
    "number": dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), float),
}
_SPEAKS_OF = {keyword: type_ for type_, keywords in _ENFORCED.items() for keyword in keywords}
_SHAPES = {"type": object, "const": object, "enum": list, "description": str} | {
    keyword: _ENFORCED[type_][keyword] for keyword, type_ in _SPEAKS_OF.items()
}


def _has_shape(keyword: str, value: object) -> bool:
    shape = _SHAPES.get(keyword)
    return shape is object or type(value) is shape or (shape is float and type(value) is int)


def _types(schema: JSONObject) -> list[str]:
    """The types a schema states or, without that, those of its values or the one that its keywords speak of."""
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    elif values := _values(schema):
        types = list(dict.fromkeys(map(_type_of, values)))
    else:
        types = list({_SPEAKS_OF[keyword] for keyword in schema if keyword in _SPEAKS_OF})
        require(len(types) == 1)
    require(types and all(name in _TYPES for name in types))
    return types


def _values(schema: JSONObject) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _type_of(value: object) -> str:
    require(type(value) in _TYPE_OF_VALUE)
    return _TYPE_OF_VALUE[type(value)]


def _without_integer(types: Iterable[str]) -> frozenset[str]:
    return frozenset("number" if name == "integer" else name for name in types)


@dataclass(frozen=True, slots=True)
class _Outline:
    """What every instance of a branch has in common. None for values: any."""

    types: frozenset[str]
    values: frozenset[Any] | None
    properties: dict[str, frozenset[Any] | None]


def _set_of_values(schema: JSONObject) -> frozenset[Any] | None:
    # Python has 1 and true equal, JSON schema has not; taking them for equal can only make a schema loose.
    values = _values(schema)
    return frozenset(values) if values else None


def _in_task(one: _Outline, other: _Outline) -> bool:
    """Whether no instance of one branch, with all of its properties, is one of the other."""
    if _differ(one.values, other.values):
        return True
    common = one.types & other.types
    shared = one.properties.keys() & other.properties.keys()
    return common <= {"object"} and (
        not common or any(_differ(one.properties[name], other.properties[name]) for name in shared)
    )


def _differ(some: frozenset[Any] | None, others: frozenset[Any] | None) -> bool:
    return some is not None and others is not None and some.isdisjoint(others)


class _Tightening:
    """The strict form of one schema, with those of the definitions that it leads to."""

    def __init__(self, schema: JSONObject) -> None:
        groups = [schema.get(keyword, {}) for keyword in ("$defs", "definitions")]
        require(all(isinstance(group, dict) for group in groups) and not groups[0].keys() & groups[1].keys())
        self._given = {f"#/$defs/{name}": part for group in groups for name, part in group.items()}
        self._given["#"] = {keyword: value for keyword, value in schema.items() if keyword not in OF_ROOT}
        self._tight: dict[str, JSONObject] = {"#": {}}
        self._waiting = ["#"]
        self._exclusive: list[list[Any]] = []

    def result(self) -> JSONObject:
        """All of it.

        Raises:
            NotStrict: there is none.
        """
        while self._waiting:
            reference = self._waiting.pop()
            self._tight[reference] = self._tightened(self._given[reference])
        # Only now has all that a branch may refer to been looked at.
        require(all(map(self._exclude_each_other, self._exclusive)) and _all_are_finite(self._tight))
        root = self._tight.pop("#")
        definitions = {reference.removeprefix("#/$defs/"): tight for reference, tight in self._tight.items()}
        return root | {"$defs": definitions} if definitions else root

    def _tightened(self, schema: Any) -> JSONObject:
        require(isinstance(schema, dict))
        stated = {keyword: value for keyword, value in schema.items() if keyword not in _ANNOTATIONS}
        for keyword, rule in _COMBINATIONS.items():
            if keyword in stated:
                value = stated.pop(keyword)
                require(stated.keys() <= {"description"} and _has_shape("description", stated.get("description", "")))
                return rule(self, value, stated)
        return self._of_type(stated)

    def _reference(self, value: Any, _: JSONObject) -> JSONObject:
        reference = _plain(value)
        require(reference in self._given)
        if reference not in self._tight:
            self._tight[reference] = {}
            self._waiting.append(reference)
        return {"$ref": reference}

    def _any_of(self, value: Any, request_body_schema: JSONObject) -> JSONObject:
        require(isinstance(value, list) and value)
        return request_body_schema | {"anyOf": [self._tightened(branch) for branch in value]}

    def _one_of(self, value: Any, request_body_schema: JSONObject) -> JSONObject:
        self._exclusive.append(value)
        return self._any_of(value, request_body_schema)

    def _all_of(self, value: Any, request_body_schema: JSONObject) -> JSONObject:
        require(isinstance(value, list) and len(value) == 1)
        tight = self._tightened(value[0])
        return tight if "$ref" in tight else tight | request_body_schema

    def _of_type(self, stated: JSONObject) -> JSONObject:
        require(all(_has_shape(keyword, value) for keyword, value in stated.items()))
        types = _types(stated)
        spoken_of = {None, *_without_integer(types)}
        tight = {keyword: value for keyword, value in stated.items() if _SPEAKS_OF.get(keyword) in spoken_of}
        if tight.get("format") not in _FORMATS:
            tight.pop("format", None)
        require(not UNSUPPORTED_PATTERN.search(tight.get("pattern", "")))
        tight.setdefault("type", types[0] if len(types) == 1 else types)
        tight |= self._closed(tight) if "object" in types else {}
        tight |= {"items": self._tightened(tight.get("items"))} if "array" in types else {}
        return tight | _possible_values(tight, types)

    def _closed(self, schema: JSONObject) -> JSONObject:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        require(properties or schema.get("additionalProperties") is False)
        require(all(isinstance(name, str) and name in properties for name in required))
        tight = {name: self._tightened(inner) for name, inner in properties.items()}
        return {"properties": tight, "required": list(tight), "additionalProperties": False}

    def _exclude_each_other(self, branches: list[Any]) -> bool:
        # Each is compared with every other, which for very many is not worth the time.
        return len(branches) <= 100 and all(_in_task(*pair) for pair in combinations(map(self._outline, branches), 2))

    def _outline(self, branch: JSONObject) -> _Outline:
        schema = self._resolved(branch)
        types = _types(schema) if _values(schema) or "type" in schema else _TYPES
        parts = schema.get("properties", {}) if "object" in types else {}
        values = {name: _set_of_values(self._resolved(part)) for name, part in parts.items()}
        return _Outline(_without_integer(types), _set_of_values(schema), values)

    def _resolved(self, schema: JSONObject) -> JSONObject:
        for _ in range(_LONGEST_CHAIN):
            if "$ref" not in schema:
                break
            schema = self._given[_plain(schema["$ref"])]
        return schema


_COMBINATIONS: dict[str, Callable[[_Tightening, Any, JSONObject], JSONObject]] = {
    "$ref": _Tightening._reference,
    "anyOf": _Tightening._any_of,
    "oneOf": _Tightening._one_of,
    "allOf": _Tightening._all_of,
}


def _plain(reference: Any) -> str:
    """The same reference, to `#` or to a definition under `$defs`."""
    match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if match is None:
        raise NotStrict
    return f"#/$defs/{match[1]}" if match[1] else "#"


def _possible_values(schema: JSONObject, types: Sequence[str]) -> JSONObject:
    values = _values(schema)
    if values is None:
        return {}
    # OpenAI refuses a value that is not of the type.
    fitting = {"integer", *types} if "number" in types else set(types)
    possible = [value for value in values if _type_of(value) in fitting]
    require(possible)
    return {} if "const" in schema else {"enum": possible}


def _all_are_finite(schemas: dict[str, JSONObject]) -> bool:
    """Whether no schema is its own alternative, nor has only instances without end, as a list of at least one list."""
    return _hold(schemas, _is_settled) and _hold(schemas, _ends)


def _hold(schemas: dict[str, JSONObject], holds: Callable[[JSONObject, set[str]], bool]) -> bool:
    """Whether it holds for all schemas, each judged by those that are known."""
    known: set[str] = set()
    # Most need one round. What would need very many is not worth the time.
    for _ in range(20):
        for reference, schema in reversed(schemas.items()):
            if reference not in known and holds(schema, known):
                known.add(reference)
    return len(known) == len(schemas)


def _is_settled(schema: JSONObject, settled: set[str]) -> bool:
    if "$ref" in schema:
        return schema["$ref"] in settled
    return all(_is_settled(branch, settled) for branch in schema.get("anyOf", ()))


def _ends(schema: JSONObject, ending: set[str]) -> bool:
    if "$ref" in schema:
        return schema["$ref"] in ending
    if "anyOf" in schema:
        return any(_ends(branch, ending) for branch in schema["anyOf"])
    if not {"object", "array"} >= set(_types(schema)):
        return True
    parts = [*schema.get("properties", {}).values(), *([schema["items"]] if schema.get("minItems") else [])]
    return all(_ends(part, ending) for part in parts)
