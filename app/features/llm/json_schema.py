"""Any JSON schema, made into one that OpenAI enforces, where no answer it then takes breaks the client's."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from app.core.errors import Refusal
from app.features.llm.schema import JSONObject

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
        Refusal: it is nested too deeply; names `param`.
    """
    if _is_deeper(schema, MAX_NESTING):
        raise Refusal(f"The JSON schema is nested deeper than {MAX_NESTING} levels.", param=param)
    if strict is None:
        try:
            return _strict(schema)
        except _NotStrict:
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


class _NotStrict(Exception):
    """OpenAI cannot enforce this schema, or it cannot be told that it would enforce no less."""


def _require(condition: object) -> None:
    if not condition:
        raise _NotStrict


def _strict(schema: JSONObject | bool) -> PreparedSchema:
    if not isinstance(schema, dict):
        raise _NotStrict
    tight = _Tightening(schema).result()
    sent = _with_object_root(tight)
    _require(_is_within_limits(sent))
    return PreparedSchema(sent, True, sent is not tight)


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list) and (not levels or any(_is_deeper(part, levels - 1) for part in inner))


# `discriminator` is OpenAPI's: no keyword of JSON schema, and so without a say in what is valid.
_ANNOTATIONS = frozenset(
    {"title", "default", "examples", "$schema", "$comment", "deprecated", "readOnly", "writeOnly", "discriminator"}
)
_OF_ROOT = ("$schema", "$id", "$defs", "definitions")
_TYPE_OF_VALUE = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_TYPES = ("object", "array", *_TYPE_OF_VALUE.values())
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
_REFERENCE = re.compile(r"#(?:/(?:\$defs|definitions)/([^/~%]+))?")
# Look-around and back-references, which OpenAI refuses.
_UNSUPPORTED_PATTERN = re.compile(r"\(\?(?:<?[=!]|P=)|\\[1-9k]")

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
        _require(len(types) == 1)
    _require(types and all(name in _TYPES for name in types))
    return types


def _values(schema: JSONObject) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _type_of(value: object) -> str:
    _require(type(value) in _TYPE_OF_VALUE)
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


def _apart(one: _Outline, other: _Outline) -> bool:
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
        _require(all(isinstance(group, dict) for group in groups) and not groups[0].keys() & groups[1].keys())
        self._given = {f"#/$defs/{name}": part for group in groups for name, part in group.items()}
        self._given["#"] = {keyword: value for keyword, value in schema.items() if keyword not in _OF_ROOT}
        self._tight: dict[str, JSONObject] = {"#": {}}
        self._waiting = ["#"]
        self._exclusive: list[list[Any]] = []

    def result(self) -> JSONObject:
        """All of it.

        Raises:
            _NotStrict: there is none.
        """
        while self._waiting:
            reference = self._waiting.pop()
            self._tight[reference] = self._tightened(self._given[reference])
        # Only now has all that a branch may refer to been looked at.
        _require(all(map(self._exclude_each_other, self._exclusive)) and _all_are_finite(self._tight))
        root = self._tight.pop("#")
        definitions = {reference.removeprefix("#/$defs/"): tight for reference, tight in self._tight.items()}
        return root | {"$defs": definitions} if definitions else root

    def _tightened(self, schema: Any) -> JSONObject:
        _require(isinstance(schema, dict))
        stated = {keyword: value for keyword, value in schema.items() if keyword not in _ANNOTATIONS}
        for keyword, rule in _COMBINATIONS.items():
            if keyword in stated:
                value = stated.pop(keyword)
                _require(stated.keys() <= {"description"} and _has_shape("description", stated.get("description", "")))
                return rule(self, value, stated)
        return self._of_type(stated)

    def _reference(self, value: Any, _: JSONObject) -> JSONObject:
        reference = _plain(value)
        _require(reference in self._given)
        if reference not in self._tight:
            self._tight[reference] = {}
            self._waiting.append(reference)
        return {"$ref": reference}

    def _any_of(self, value: Any, described: JSONObject) -> JSONObject:
        _require(isinstance(value, list) and value)
        return described | {"anyOf": [self._tightened(branch) for branch in value]}

    def _one_of(self, value: Any, described: JSONObject) -> JSONObject:
        self._exclusive.append(value)
        return self._any_of(value, described)

    def _all_of(self, value: Any, described: JSONObject) -> JSONObject:
        _require(isinstance(value, list) and len(value) == 1)
        tight = self._tightened(value[0])
        return tight if "$ref" in tight else tight | described

    def _of_type(self, stated: JSONObject) -> JSONObject:
        _require(all(_has_shape(keyword, value) for keyword, value in stated.items()))
        types = _types(stated)
        spoken_of = {None, *_without_integer(types)}
        tight = {keyword: value for keyword, value in stated.items() if _SPEAKS_OF.get(keyword) in spoken_of}
        if tight.get("format") not in _FORMATS:
            tight.pop("format", None)
        _require(not _UNSUPPORTED_PATTERN.search(tight.get("pattern", "")))
        tight.setdefault("type", types[0] if len(types) == 1 else types)
        tight |= self._closed(tight) if "object" in types else {}
        tight |= {"items": self._tightened(tight.get("items"))} if "array" in types else {}
        return tight | _possible_values(tight, types)

    def _closed(self, schema: JSONObject) -> JSONObject:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        _require(properties or schema.get("additionalProperties") is False)
        _require(all(isinstance(name, str) and name in properties for name in required))
        tight = {name: self._tightened(inner) for name, inner in properties.items()}
        return {"properties": tight, "required": list(tight), "additionalProperties": False}

    def _exclude_each_other(self, branches: list[Any]) -> bool:
        # Each is compared with every other, which for very many is not worth the time.
        return len(branches) <= 100 and all(_apart(*pair) for pair in combinations(map(self._outline, branches), 2))

    def _outline(self, branch: JSONObject) -> _Outline:
        schema = self._resolved(branch)
        types = _types(schema) if _values(schema) or "type" in schema else _TYPES
        parts = schema.get("properties", {}) if "object" in types else {}
        values = {name: _set_of_values(self._resolved(part)) for name, part in parts.items()}
        return _Outline(_without_integer(types), _set_of_values(schema), values)

    def _resolved(self, schema: JSONObject) -> JSONObject:
        for _ in range(MAX_NESTING):
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
        raise _NotStrict
    return f"#/$defs/{match[1]}" if match[1] else "#"


def _possible_values(schema: JSONObject, types: Sequence[str]) -> JSONObject:
    values = _values(schema)
    if values is None:
        return {}
    # OpenAI refuses a value that is not of the type.
    fitting = {"integer", *types} if "number" in types else set(types)
    possible = [value for value in values if _type_of(value) in fitting]
    _require(possible)
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


# --- the root and the limits ------------------------------------------------------------------------------------------

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
    shared = {keyword: moved.pop(keyword) for keyword in _OF_ROOT if keyword in moved}
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
