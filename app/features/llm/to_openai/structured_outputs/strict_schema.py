"""JSON schemas converted to the strict subset that OpenAI enforces: all properties required, no others allowed."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from app.features.llm.schema import JSONObject


class NotStrict(Exception):
    """The schema has no strict form whose instances are provably all valid under it."""


def require(condition: object) -> None:
    """Require a condition of the strict subset.

    Raises:
        NotStrict: the condition is false.
    """
    if not condition:
        raise NotStrict


def to_strict(schema: JSONObject) -> JSONObject:
    """Return the strict form of a schema: every instance of it is an instance of the schema.

    Raises:
        NotStrict: the schema has no strict form.
    """
    return _StrictConverter(schema).convert()


# Keywords that do not affect validity; `discriminator` is OpenAPI's.
_ANNOTATIONS = frozenset(
    {"title", "default", "examples", "$schema", "$comment", "deprecated", "readOnly", "writeOnly", "discriminator"}
)
_MAX_REFERENCE_CHAIN = 64
"""The most references that are followed in a row."""
ROOT_KEYWORDS = ("$schema", "$id", "$defs", "definitions")
"""Keywords that stay at the root."""
_TYPE_OF_VALUE = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_TYPES = ("object", "array", *_TYPE_OF_VALUE.values())
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
_REFERENCE = re.compile(r"#(?:/(?:\$defs|definitions)/([^/~%]+))?")
# Look-around and back-references, which OpenAI rejects.
UNSUPPORTED_PATTERN = re.compile(r"\(\?(?:<?[=!]|P=)|\\[1-9k]")

# The keywords that OpenAI enforces, by the type of instance that they apply to, with the Python type of their values.
_ENFORCED: dict[str, dict[str, type]] = {
    "object": {"properties": dict, "required": list, "additionalProperties": bool},
    "array": {"items": dict, "minItems": int, "maxItems": int},
    "string": {"pattern": str, "format": str},
    "number": dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), float),
}
_TYPE_OF_KEYWORD = {keyword: type_ for type_, keywords in _ENFORCED.items() for keyword in keywords}
_SHAPES = {"type": object, "const": object, "enum": list, "description": str} | {
    keyword: _ENFORCED[type_][keyword] for keyword, type_ in _TYPE_OF_KEYWORD.items()
}


def _has_shape(keyword: str, value: object) -> bool:
    shape = _SHAPES.get(keyword)
    return shape is object or type(value) is shape or (shape is float and type(value) is int)


def _types(schema: JSONObject) -> list[str]:
    """Return the types of a schema: stated, else those of its values, else the one that its keywords apply to."""
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    elif values := _values(schema):
        types = list(dict.fromkeys(map(_type_of, values)))
    else:
        types = list({_TYPE_OF_KEYWORD[keyword] for keyword in schema if keyword in _TYPE_OF_KEYWORD})
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
    """What all instances of a branch share. `values`, or a property's values, are None if unrestricted."""

    types: frozenset[str]
    values: frozenset[Any] | None
    properties: dict[str, frozenset[Any] | None]


def _value_set(schema: JSONObject) -> frozenset[Any] | None:
    # 1 and true are equal in Python but not in JSON schema. At worst, a schema counts as not strict.
    values = _values(schema)
    return frozenset(values) if values else None


def _disjoint(one: _Outline, other: _Outline) -> bool:
    """Whether the branches have no instance in common, given that all properties are present."""
    if _disjoint_values(one.values, other.values):
        return True
    common = one.types & other.types
    shared = one.properties.keys() & other.properties.keys()
    return common <= {"object"} and (
        not common or any(_disjoint_values(one.properties[name], other.properties[name]) for name in shared)
    )


def _disjoint_values(some: frozenset[Any] | None, others: frozenset[Any] | None) -> bool:
    return some is not None and others is not None and some.isdisjoint(others)


class _StrictConverter:
    """Converts one schema and the definitions that it refers to."""

    def __init__(self, schema: JSONObject) -> None:
        groups = [schema.get(keyword, {}) for keyword in ("$defs", "definitions")]
        require(all(isinstance(group, dict) for group in groups) and not groups[0].keys() & groups[1].keys())
        self._schemas = {f"#/$defs/{name}": part for group in groups for name, part in group.items()}
        self._schemas["#"] = {keyword: value for keyword, value in schema.items() if keyword not in ROOT_KEYWORDS}
        self._converted: dict[str, JSONObject] = {"#": {}}
        self._pending = ["#"]
        self._one_of_branches: list[list[Any]] = []

    def convert(self) -> JSONObject:
        """Return the strict form of the whole schema.

        Raises:
            NotStrict: the schema has no strict form.
        """
        while self._pending:
            reference = self._pending.pop()
            self._converted[reference] = self._convert(self._schemas[reference])
        # Branches can refer to any definition, so all must be converted first.
        require(all(map(self._all_disjoint, self._one_of_branches)) and _all_have_finite_instances(self._converted))
        root = self._converted.pop("#")
        definitions = {
            reference.removeprefix("#/$defs/"): converted for reference, converted in self._converted.items()
        }
        return root | {"$defs": definitions} if definitions else root

    def _convert(self, schema: Any) -> JSONObject:
        require(isinstance(schema, dict))
        keywords = {keyword: value for keyword, value in schema.items() if keyword not in _ANNOTATIONS}
        for keyword, rule in _COMBINATORS.items():
            if keyword in keywords:
                value = keywords.pop(keyword)
                require(
                    keywords.keys() <= {"description"} and _has_shape("description", keywords.get("description", ""))
                )
                return rule(self, value, keywords)
        return self._convert_typed(keywords)

    def _convert_reference(self, value: Any, _: JSONObject) -> JSONObject:
        reference = _normalize_reference(value)
        require(reference in self._schemas)
        if reference not in self._converted:
            self._converted[reference] = {}
            self._pending.append(reference)
        return {"$ref": reference}

    def _convert_any_of(self, value: Any, description: JSONObject) -> JSONObject:
        require(isinstance(value, list) and value)
        return description | {"anyOf": [self._convert(branch) for branch in value]}

    def _convert_one_of(self, value: Any, description: JSONObject) -> JSONObject:
        self._one_of_branches.append(value)
        return self._convert_any_of(value, description)

    def _convert_all_of(self, value: Any, description: JSONObject) -> JSONObject:
        require(isinstance(value, list) and len(value) == 1)
        converted = self._convert(value[0])
        return converted if "$ref" in converted else converted | description

    def _convert_typed(self, keywords: JSONObject) -> JSONObject:
        require(all(_has_shape(keyword, value) for keyword, value in keywords.items()))
        types = _types(keywords)
        types_or_any = {None, *_without_integer(types)}
        converted = {
            keyword: value for keyword, value in keywords.items() if _TYPE_OF_KEYWORD.get(keyword) in types_or_any
        }
        if converted.get("format") not in _FORMATS:
            converted.pop("format", None)
        require(not UNSUPPORTED_PATTERN.search(converted.get("pattern", "")))
        converted.setdefault("type", types[0] if len(types) == 1 else types)
        converted |= self._close_object(converted) if "object" in types else {}
        converted |= {"items": self._convert(converted.get("items"))} if "array" in types else {}
        return converted | _values_of_types(converted, types)

    def _close_object(self, schema: JSONObject) -> JSONObject:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        require(properties or schema.get("additionalProperties") is False)
        require(all(isinstance(name, str) and name in properties for name in required))
        converted = {name: self._convert(inner) for name, inner in properties.items()}
        return {"properties": converted, "required": list(converted), "additionalProperties": False}

    def _all_disjoint(self, branches: list[Any]) -> bool:
        # All pairs are compared, so the number of branches is limited.
        return len(branches) <= 100 and all(_disjoint(*pair) for pair in combinations(map(self._outline, branches), 2))

    def _outline(self, branch: JSONObject) -> _Outline:
        schema = self._resolve(branch)
        types = _types(schema) if _values(schema) or "type" in schema else _TYPES
        parts = schema.get("properties", {}) if "object" in types else {}
        values = {name: _value_set(self._resolve(part)) for name, part in parts.items()}
        return _Outline(_without_integer(types), _value_set(schema), values)

    def _resolve(self, schema: JSONObject) -> JSONObject:
        for _ in range(_MAX_REFERENCE_CHAIN):
            if "$ref" not in schema:
                break
            schema = self._schemas[_normalize_reference(schema["$ref"])]
        return schema


_COMBINATORS: dict[str, Callable[[_StrictConverter, Any, JSONObject], JSONObject]] = {
    "$ref": _StrictConverter._convert_reference,
    "anyOf": _StrictConverter._convert_any_of,
    "oneOf": _StrictConverter._convert_one_of,
    "allOf": _StrictConverter._convert_all_of,
}


def _normalize_reference(reference: Any) -> str:
    """Return a reference as `#` or as a definition under `$defs`."""
    match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if match is None:
        raise NotStrict
    return f"#/$defs/{match[1]}" if match[1] else "#"


def _values_of_types(schema: JSONObject, types: Sequence[str]) -> JSONObject:
    values = _values(schema)
    if values is None:
        return {}
    # OpenAI rejects a value that is not of the type.
    allowed = {"integer", *types} if "number" in types else set(types)
    values_left = [value for value in values if _type_of(value) in allowed]
    require(values_left)
    return {} if "const" in schema else {"enum": values_left}


def _all_have_finite_instances(schemas: dict[str, JSONObject]) -> bool:
    """Whether every schema has a finite instance and none is an alternative of itself.

    A list of at least one such list, for example, has infinite instances only.
    """
    return _holds_for_all(schemas, _references_end) and _holds_for_all(schemas, _has_finite_instance)


def _holds_for_all(schemas: dict[str, JSONObject], holds: Callable[[JSONObject, set[str]], bool]) -> bool:
    """Whether `holds` is true for every schema, given the references for which it is known to be true."""
    known: set[str] = set()
    # Most schemas need one round; the limit bounds the time.
    for _ in range(20):
        for reference, schema in reversed(schemas.items()):
            if reference not in known and holds(schema, known):
                known.add(reference)
    return len(known) == len(schemas)


def _references_end(schema: JSONObject, known: set[str]) -> bool:
    if "$ref" in schema:
        return schema["$ref"] in known
    return all(_references_end(branch, known) for branch in schema.get("anyOf", ()))


def _has_finite_instance(schema: JSONObject, known: set[str]) -> bool:
    if "$ref" in schema:
        return schema["$ref"] in known
    if "anyOf" in schema:
        return any(_has_finite_instance(branch, known) for branch in schema["anyOf"])
    if not {"object", "array"} >= set(_types(schema)):
        return True
    parts = [*schema.get("properties", {}).values(), *([schema["items"]] if schema.get("minItems") else [])]
    return all(_has_finite_instance(part, known) for part in parts)
