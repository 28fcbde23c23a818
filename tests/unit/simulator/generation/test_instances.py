"""Generated values match their JSON schemas."""

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.simulator.generation.instances import instance_text
from app.simulator.generation.patterns import matching_text
from app.simulator.seeded_random import SeededRandom

# Without type stubs, and only needed here.
jsonschema = pytest.importorskip("jsonschema")

SEEDS = range(30)
MALFORMED = [{"allOf": [[]]}, {"enum": 5}, {"properties": [], "type": "object"}, {"type": "array", "minItems": "x"}]
NAMES = st.sampled_from(["name", "age", "items", "a b", "ü"])
FORMATS = ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]


def ordered(low: Any, high: Any, first: str, second: str) -> Any:
    return st.tuples(low, high).map(lambda pair: {first: min(pair), second: max(pair)})


TEXTS = st.one_of(
    st.just({"type": "string"}),
    st.sampled_from(FORMATS).map(lambda name: {"type": "string", "format": name}),
    ordered(st.integers(0, 20), st.integers(0, 20), "minLength", "maxLength").map(
        lambda size: {"type": "string", **size}
    ),
)
NUMBERS = st.one_of(
    st.sampled_from([{"type": "integer"}, {"type": "number"}, {"type": "integer", "minimum": 3}]),
    ordered(st.integers(-50, 50), st.integers(-50, 50), "minimum", "maximum").map(
        lambda size: {"type": "integer", **size}
    ),
    ordered(st.integers(-50, -1), st.integers(1, 50), "exclusiveMinimum", "exclusiveMaximum").flatmap(
        lambda size: st.sampled_from([{"type": "integer", **size}, {"type": "number", **size}])
    ),
    st.sampled_from([5, 0.5, 0.25, 7]).map(
        lambda step: {"type": "number", "multipleOf": step, "minimum": -9.5, "maximum": 30}
    ),
    st.integers(-9, 9).map(lambda maximum: {"type": "number", "maximum": maximum}),
)
LEAVES = st.one_of(
    TEXTS,
    NUMBERS,
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}, {}, True]),
    st.lists(st.one_of(st.text(max_size=3), st.integers(), st.none()), min_size=1, max_size=4).map(
        lambda values: {"enum": values}
    ),
    st.one_of(st.text(), st.integers()).map(lambda value: {"const": value}),
)


def objects(inner: Any) -> Any:
    properties = st.dictionaries(NAMES, inner, max_size=4)
    return properties.flatmap(
        lambda members: st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.just(members)},
            optional={
                "required": st.lists(st.sampled_from([*members]), unique=True) if members else st.just([]),
                "additionalProperties": st.one_of(st.booleans(), inner),
            },
        )
    )


def arrays(inner: Any) -> Any:
    sizes = ordered(st.integers(0, 3), st.integers(0, 3), "minItems", "maxItems")
    return st.tuples(inner, sizes).map(lambda pair: {"type": "array", "items": pair[0], **pair[1]})


def unions(inner: Any) -> Any:
    return st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches})


SCHEMAS = st.recursive(LEAVES, lambda inner: st.one_of(objects(inner), arrays(inner), unions(inner)), max_leaves=12)


def made(schema: dict[str, Any], seed: int = 0) -> Any:
    return json.loads(instance_text(schema, SeededRandom(seed)))


def fits(value: Any, schema: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator
    jsonschema.validate(value, schema, validator, format_checker=validator.FORMAT_CHECKER)


@settings(deadline=None, database=None)
@given(objects(SCHEMAS), st.integers())
def test_an_instance_matches_its_schema(schema: dict[str, Any], seed: int) -> None:
    fits(made(schema, seed), schema)


TREE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["value", "children"],
    "additionalProperties": False,
}
LIST = {
    "type": "object",
    "properties": {"head": {"$ref": "#/$defs/node"}},
    "required": ["head"],
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
            "required": ["next"],
        }
    },
}
NULLABLE = {
    "type": "object",
    "properties": {"x": {"type": ["object", "null"], "properties": {"y": {"$ref": "#"}}, "required": ["y"]}},
    "required": ["x"],
}
SPECIAL = [
    pytest.param(TREE, id="recursion through a list"),
    pytest.param(LIST, id="recursion with an end"),
    pytest.param(NULLABLE, id="nullable recursion"),
    pytest.param(
        {"type": "object", "allOf": [{"required": ["a"]}, {"properties": {"a": {"type": "integer"}}}]}, id="allOf"
    ),
    pytest.param(
        {
            "type": "object",
            "allOf": [{"$ref": "#/definitions/a"}],
            "definitions": {"a": {"properties": {"a": {"const": 1}}, "required": ["a"]}},
        },
        id="allOf of references",
    ),
    pytest.param({"type": "object", "properties": {"x": {"oneOf": [{"const": 1}, {"const": 2}]}}}, id="oneOf"),
    pytest.param({"type": "object", "minProperties": 3, "properties": {"a": {"const": 1}}}, id="minProperties"),
    pytest.param({"type": "object", "required": ["a"], "additionalProperties": {"type": "integer"}}, id="any key"),
    pytest.param(
        {"type": "object", "properties": {"x": {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3}}},
        id="items",
    ),
    pytest.param(
        {
            "type": "object",
            "properties": {
                "x": {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3, "uniqueItems": True},
            },
        },
        id="uniqueItems",
    ),
    pytest.param(
        {
            "type": "object",
            "properties": {"x": {"prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False}},
        },
        id="prefixItems",
    ),
    pytest.param({"type": "object", "properties": {"x": {"minimum": 5}, "y": {"items": {"const": 1}}}}, id="no types"),
    pytest.param(
        {"type": "object", "properties": {"x": {"type": "string", "pattern": r"^[A-Z]{2}-\d{4}$"}}}, id="pattern"
    ),
    pytest.param({"type": "object", "properties": {"x": {"type": "array"}}}, id="any items"),
    pytest.param({}, id="anything"),
]


@pytest.mark.parametrize("schema", SPECIAL)
def test_an_instance_matches_an_unusual_schema(schema: dict[str, Any]) -> None:
    for seed in SEEDS:
        fits(made(schema, seed), schema)


@pytest.mark.parametrize("schema", [TREE, LIST, NULLABLE], ids=["list", "union", "nullable"])
def test_recursion_ends_where_the_schema_allows(schema: dict[str, Any]) -> None:
    assert instance_text(schema, SeededRandom(0)).count("{") <= 6


def test_multiples_are_exact_decimals() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "number", "multipleOf": 0.01}}}
    assert all(Decimal(str(made(schema, seed)["x"])) % Decimal("0.01") == 0 for seed in SEEDS)


def test_an_enum_is_chosen_by_the_seed() -> None:
    schema = {"type": "object", "properties": {"x": {"enum": ["a", "b", "c"]}}}
    assert {made(schema, seed)["x"] for seed in SEEDS} == {"a", "b", "c"}


def test_a_union_takes_its_first_branch() -> None:
    schema = {"type": "object", "properties": {"x": {"anyOf": [{"const": 1}, {"const": 2}]}}}
    assert made(schema) == {"x": 1}


def test_nullable_values_are_not_null() -> None:
    assert made({"type": "object", "properties": {"x": {"type": ["null", "boolean"]}}})["x"] is not None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["x"]},
        {"type": "object", "properties": {"x": {"$ref": "#/$defs/none"}}},
        {"type": "object", "properties": {"x": {"anyOf": [False]}}},
        {"type": "object", "properties": {"x": {"type": "array", "minItems": 10**9, "items": {"const": 1}}}},
        {"type": "object", "properties": {"x": {"type": "string", "minLength": 10**9}}},
        {"type": "object", "minProperties": 10**9},
        {"type": "object", "properties": {"x": {"type": "string", "pattern": "a{1000000}"}}},
    ],
    ids=["endless", "broken", "impossible", "minItems", "minLength", "minProperties", "pattern"],
)
def test_an_unsatisfiable_schema_still_gets_an_object(schema: dict[str, Any]) -> None:
    text = instance_text(schema, SeededRandom(0))
    assert isinstance(json.loads(text), dict)
    assert len(text) < 100_000


@pytest.mark.parametrize(
    "pattern",
    [
        r"^abc$",
        r"[a-f0-9]{8}-[A-Z]+",
        r"^(red|green|blue)(, (red|green))*$",
        r"^\+?\d{1,3}(?:[ -]\d{2,4}){2}$",
        r"^[^abc]x?.y*$",
        r"^\w+@\w+\.(com|org)$",
        r"^\s\S\D\W$",
        r"^(?P<quote>['\"])\w+(?P=quote)$",
        r"^[\w.-]{3,}?$",
        r"^[^\d]+$",
        r"^[^a]$",
        r"^(?>ab)+c++$",
        r"^é東\u00e9\n\t$",
        r"^(a(b(c|d)){2}){0,1}$",
        r"\bword\b",
        "",
    ],
)
def test_generated_text_matches_its_pattern(pattern: str) -> None:
    texts = {matching_text(pattern, SeededRandom(pattern, seed)) for seed in SEEDS}
    assert all(re.search(pattern, text) for text in texts)
    assert "text" not in texts


@pytest.mark.parametrize("pattern", ["(", r"\p{L}+", "a(?=b)", "^a(?<!a)$", "a^b"])
def test_an_unsupported_pattern_gets_a_placeholder(pattern: str) -> None:
    assert matching_text(pattern, SeededRandom(0)) == "text"


@pytest.mark.parametrize("name", FORMATS)
def test_values_match_their_format(name: str) -> None:
    shapes = {
        "date": r"\d{4}-\d\d-\d\d",
        "time": r"\d\d:\d\d:\d\dZ",
        "date-time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
        "duration": r"P\d+DT\d+H",
        "email": r"[a-z]+@example\.com",
        "hostname": r"[a-z]+\.example\.com",
        "ipv4": r"192\.0\.2\.\d+",
        "ipv6": r"2001:db8::[0-9a-f]+",
        "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}",
        "uri": r"https://example\.com/[a-z]+",
    }
    schema = {"type": "object", "properties": {"x": {"type": "string", "format": name}}}
    for seed in SEEDS:
        assert re.fullmatch(shapes[name], made(schema, seed)["x"])


@pytest.mark.parametrize("schema", MALFORMED, ids=json.dumps)
def test_a_malformed_schema_has_an_instance(schema: dict[str, Any]) -> None:
    assert instance_text(schema, SeededRandom(0)) == "{}"


def test_a_reference_to_a_boolean_schema_is_followed() -> None:
    schema = {"$ref": "#/$defs/place", "$defs": {"place": True}, "type": "string"}

    assert isinstance(json.loads(instance_text(schema, SeededRandom(0))), str)
