"""JSON schemas that OpenAI enforces, and enforces no less than what the client asked for."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from app.core.errors.errors import RequestError
from app.features.llm.to_openai.structured_outputs.json_schema import (
    MAX_NESTING,
    PreparedSchema,
    choice_schema,
    legal_name,
    prepared,
    regex_schema,
)

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
NULL: Schema = {"type": "null"}


def an_object(**properties: Any) -> Schema:
    """A strict object with these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def loosely(**properties: Any) -> Schema:
    """The same, as a client would write it."""
    return {"type": "object", "properties": properties}


TO_STRICT = [
    pytest.param(an_object(a=TEXT), an_object(a=TEXT), id="strict already"),
    pytest.param(loosely(a=TEXT, b=TEXT), an_object(a=TEXT, b=TEXT), id="required"),
    pytest.param(loosely(a=TEXT) | {"required": ["a"]}, an_object(a=TEXT), id="additional properties absent"),
    pytest.param(loosely(a=TEXT) | {"additionalProperties": True}, an_object(a=TEXT), id="additional properties"),
    pytest.param({"type": "object", "additionalProperties": False}, an_object(), id="object without properties"),
    pytest.param(loosely(a=loosely(b=TEXT)), an_object(a=an_object(b=TEXT)), id="nested"),
    pytest.param(
        loosely(a={"type": "array", "items": loosely(b=TEXT), "minItems": 1, "maxItems": 3}),
        an_object(a={"type": "array", "items": an_object(b=TEXT), "minItems": 1, "maxItems": 3}),
        id="array",
    ),
    pytest.param(
        loosely(a={"type": ["object", "null"], "properties": {"b": TEXT}}),
        an_object(a=an_object(b=TEXT) | {"type": ["object", "null"]}),
        id="object or null",
    ),
    pytest.param(
        loosely(a=TEXT | {"title": "A", "default": "", "examples": [""], "deprecated": True, "description": "an a"})
        | {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/a", "$comment": "c"},
        an_object(a=TEXT | {"description": "an a"}),
        id="annotations",
    ),
    pytest.param(
        loosely(title=TEXT, default=TEXT, enum=TEXT),
        an_object(title=TEXT, default=TEXT, enum=TEXT),
        id="properties named as keywords",
    ),
    pytest.param(
        loosely(a=TEXT | {"format": "binary"}, b=TEXT | {"format": "date"}),
        an_object(a=TEXT, b=TEXT | {"format": "date"}),
        id="formats",
    ),
    pytest.param(
        loosely(a={"type": "integer", "format": "int32", "minimum": 1}),
        an_object(a={"type": "integer", "minimum": 1}),
        id="format of a number",
    ),
    pytest.param(loosely(a={"const": 1}), an_object(a={"const": 1, "type": "integer"}), id="const without a type"),
    pytest.param(
        loosely(a={"enum": ["x", 1, True, None, 1.5]}),
        an_object(
            a={"enum": ["x", 1, True, None, 1.5], "type": ["string", "integer", "boolean", "null", "number"]},
        ),
        id="enum without a type",
    ),
    pytest.param(
        loosely(a=TEXT | {"enum": ["x", None, 1]}), an_object(a=TEXT | {"enum": ["x"]}), id="values of other types"
    ),
    pytest.param(
        loosely(a={"type": "number", "enum": [1, 1.5, True]}),
        an_object(a={"type": "number", "enum": [1, 1.5]}),
        id="integers are numbers, booleans are not",
    ),
    pytest.param({"properties": {"a": {"pattern": "^x"}}}, an_object(a=TEXT | {"pattern": "^x"}), id="implied types"),
    pytest.param(loosely(a=TEXT | {"minimum": 3}), an_object(a=TEXT), id="a keyword for another type"),
    pytest.param(
        loosely(a={"anyOf": [loosely(b=TEXT), NULL], "description": "an a", "default": None}),
        an_object(a={"anyOf": [an_object(b=TEXT), NULL], "description": "an a"}),
        id="anyOf",
    ),
    pytest.param(
        loosely(a={"oneOf": [TEXT, {"type": "number"}, {"type": "array", "items": TEXT}]}),
        an_object(a={"anyOf": [TEXT, {"type": "number"}, {"type": "array", "items": TEXT}]}),
        id="oneOf of different types",
    ),
    pytest.param(
        loosely(a={"oneOf": [TEXT | {"properties": {"b": 1}}, NULL]}),
        an_object(a={"anyOf": [TEXT, NULL]}),
        id="oneOf with a keyword for another type",
    ),
    pytest.param(
        loosely(a={"oneOf": [{"const": "x", "title": "X"}, {"const": "y"}]}),
        an_object(a={"anyOf": [TEXT | {"const": "x"}, TEXT | {"const": "y"}]}),
        id="oneOf of different values",
    ),
    pytest.param(
        loosely(a={"oneOf": [loosely(kind={"const": "x"}), loosely(kind={"enum": ["y", "z"]}, b=TEXT), NULL]}),
        an_object(
            a={
                "anyOf": [
                    an_object(kind=TEXT | {"const": "x"}),
                    an_object(kind=TEXT | {"enum": ["y", "z"]}, b=TEXT),
                    NULL,
                ]
            }
        ),
        id="oneOf told apart by a property",
    ),
    pytest.param(
        loosely(a={"oneOf": [{"$ref": "#/$defs/X"}, {"$ref": "#/$defs/Y"}], "discriminator": {"propertyName": "kind"}})
        | {"$defs": {"X": loosely(kind={"const": "x"}), "Y": loosely(kind={"$ref": "#/$defs/Z"}), "Z": {"const": "z"}}},
        an_object(a={"anyOf": [{"$ref": "#/$defs/X"}, {"$ref": "#/$defs/Y"}]})
        | {
            "$defs": {
                "X": an_object(kind=TEXT | {"const": "x"}),
                "Y": an_object(kind={"$ref": "#/$defs/Z"}),
                "Z": TEXT | {"const": "z"},
            }
        },
        id="oneOf of references",
    ),
    pytest.param(
        loosely(a={"allOf": [{"$ref": "#/$defs/X"}], "description": "an a"}, b={"allOf": [TEXT], "description": "a b"})
        | {"$defs": {"X": TEXT}},
        an_object(a={"$ref": "#/$defs/X"}, b=TEXT | {"description": "a b"}) | {"$defs": {"X": TEXT}},
        id="allOf of one",
    ),
    pytest.param(
        loosely(a={"$ref": "#/definitions/X", "title": "A", "description": "an a"})
        | {"definitions": {"X": loosely(b=TEXT)}},
        an_object(a={"$ref": "#/$defs/X"}) | {"$defs": {"X": an_object(b=TEXT)}},
        id="definitions",
    ),
    pytest.param(
        loosely(a=TEXT) | {"$defs": {"X": {"not": {}}}}, an_object(a=TEXT), id="a definition nothing leads to"
    ),
    pytest.param(
        loosely(a=TEXT, children={"type": "array", "items": {"$ref": "#"}}),
        an_object(a=TEXT, children={"type": "array", "items": {"$ref": "#"}}),
        id="recursion",
    ),
]


@pytest.mark.parametrize(("schema", "expected"), TO_STRICT)
def test_a_schema_is_made_strict(schema: Schema, expected: Schema) -> None:
    assert prepared(schema) == PreparedSchema(expected, strict=True, wrapped=False)


TREE = {"anyOf": [{"type": "array", "items": {"$ref": "#"}}, NULL]}

WRAPPED = [
    pytest.param({"type": "array", "items": TEXT}, {"type": "array", "items": TEXT}, {}, id="array"),
    pytest.param({"enum": ["x"]}, TEXT | {"enum": ["x"]}, {}, id="enum"),
    pytest.param(
        loosely(a=TEXT) | {"type": ["object"]}, an_object(a=TEXT) | {"type": ["object"]}, {}, id="list of types"
    ),
    pytest.param({"anyOf": [loosely(a=TEXT), NULL]}, {"anyOf": [an_object(a=TEXT), NULL]}, {}, id="anyOf"),
    pytest.param(
        {"$ref": "#/definitions/X", "definitions": {"X": loosely(a=TEXT)}},
        {"$ref": "#/$defs/X"},
        {"$defs": {"X": an_object(a=TEXT)}},
        id="reference",
    ),
    pytest.param(
        TREE,
        {"$ref": "#/$defs/value"},
        {"$defs": {"value": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/value"}}, NULL]}}},
        id="reference to the root",
    ),
    pytest.param(
        {"type": "array", "items": {"$ref": "#/$defs/value"}, "$defs": {"value": {"anyOf": [{"$ref": "#"}, NULL]}}},
        {"$ref": "#/$defs/value_"},
        {
            "$defs": {
                "value": {"anyOf": [{"$ref": "#/$defs/value_"}, NULL]},
                "value_": {"type": "array", "items": {"$ref": "#/$defs/value"}},
            }
        },
        id="reference from a definition of that name",
    ),
]


@pytest.mark.parametrize(("schema", "value", "definitions"), WRAPPED)
def test_a_root_that_is_no_object_is_wrapped(schema: Schema, value: Schema, definitions: Schema) -> None:
    assert prepared(schema) == PreparedSchema(an_object(value=value) | definitions, strict=True, wrapped=True)


LOOSE = [
    *(
        pytest.param(loosely(a=TEXT | {keyword: value}), id=keyword)
        for keyword, value in {
            "minLength": 1,
            "maxLength": 1,
            "not": {},
            "if": {},
            "nullable": True,
            "$id": "https://example.com/a",
            "$defs": {},
            "x-order": 1,
            "pattern": "(?=x)",
        }.items()
    ),
    *(
        pytest.param(loosely(a=TEXT) | {keyword: value}, id=keyword)
        for keyword, value in {
            "additionalProperties": TEXT,
            "required": ["b"],
            "patternProperties": {},
            "propertyNames": {},
            "minProperties": 2,
            "maxProperties": 0,
            "dependentRequired": {},
            "if": {},
        }.items()
    ),
    *(
        pytest.param(loosely(a={"type": "array", "items": TEXT} | {keyword: value}), id=keyword)
        for keyword, value in {"uniqueItems": True, "contains": TEXT, "prefixItems": [TEXT]}.items()
    ),
    pytest.param({"type": "object"}, id="free-form object"),
    pytest.param(loosely(), id="free-form object with no properties"),
    pytest.param(loosely(a={"type": "array"}), id="array of anything"),
    pytest.param(loosely(a={}), id="anything"),
    pytest.param(loosely(a={"description": "anything"}), id="anything, described"),
    pytest.param(loosely(a=True), id="boolean"),
    pytest.param(loosely(a={"type": "array", "items": True}), id="array of booleans"),
    pytest.param(loosely(a={"anyOf": [TEXT, True]}), id="boolean in anyOf"),
    pytest.param(loosely(a={"anyOf": [TEXT], "type": "string"}), id="anyOf with siblings"),
    pytest.param(loosely(a={"allOf": [TEXT, {"enum": ["x"]}]}), id="allOf of two"),
    pytest.param(loosely(a={"allOf": [loosely(b=TEXT)], "required": ["c"]}), id="allOf with siblings"),
    pytest.param(loosely(a={"oneOf": [{"type": "integer"}, {"type": "number"}]}), id="oneOf: integer and number"),
    pytest.param(loosely(a={"oneOf": [{"const": 1}, {"const": 1.0}]}), id="oneOf: the same number"),
    pytest.param(loosely(a={"oneOf": [loosely(b=TEXT), loosely(c=TEXT)]}), id="oneOf: two objects"),
    pytest.param(loosely(a={"oneOf": [TEXT, {"properties": {"b": TEXT}}]}), id="oneOf: implied type"),
    pytest.param(loosely(a={"oneOf": [{"anyOf": [TEXT]}, NULL]}), id="oneOf: anyOf"),
    pytest.param(
        loosely(a={"oneOf": [loosely(b={"const": value}) | {"type": ["object", "null"]} for value in "xy"]}),
        id="oneOf: objects that differ, or null",
    ),
    pytest.param(loosely(a={"oneOf": [TEXT, TEXT | {"enum": ["x"]}]}), id="oneOf: one in the other"),
    pytest.param(loosely(a={"$ref": "#/$defs/X", "minLength": 1}) | {"$defs": {"X": TEXT}}, id="reference, siblings"),
    pytest.param(loosely(a={"$ref": "#/$defs/X"}), id="reference to nothing"),
    pytest.param(loosely(a={"$ref": "#/$defs/X~1"}) | {"$defs": {"X~1": TEXT}}, id="reference with an escape"),
    pytest.param(loosely(a={"$ref": "#/$defs/X/b"}) | {"$defs": {"X/b": TEXT}}, id="reference into a definition"),
    pytest.param(loosely(a={"$ref": "#/properties/b"}, b=TEXT), id="reference to a property"),
    pytest.param(loosely(a={"$ref": "https://example.com/a"}), id="reference elsewhere"),
    pytest.param(
        loosely(a={"$ref": "#/$defs/X"}) | {"$defs": {"X": TEXT}, "definitions": {"X": NULL}}, id="two of that name"
    ),
    pytest.param(loosely(a=TEXT | {"enum": []}), id="no values"),
    pytest.param(loosely(a=TEXT | {"enum": [1]}), id="no values of the type"),
    pytest.param(loosely(a=TEXT | {"const": 1}), id="a value not of the type"),
    pytest.param(loosely(a={"enum": [{}, "x"]}), id="object as a value"),
    pytest.param(loosely(next={"$ref": "#"}), id="recursion without end"),
    pytest.param(loosely(a={"type": "array", "items": {"$ref": "#"}, "minItems": 1}), id="lists without end"),
    pytest.param(
        loosely(a={"$ref": "#/$defs/X"}) | {"$defs": {"X": {"anyOf": [{"$ref": "#/$defs/X"}, NULL]}}},
        id="its own alternative",
    ),
]


@pytest.mark.parametrize("schema", LOOSE)
def test_what_cannot_be_enforced_is_sent_as_it_is(schema: Schema) -> None:
    assert prepared(schema) == PreparedSchema(schema, strict=False, wrapped=False)


LOOSE_AND_WRAPPED = [
    pytest.param(True, an_object(value=True), id="true"),
    pytest.param({}, an_object(value={}), id="anything"),
    pytest.param(TEXT | {"minLength": 1}, an_object(value=TEXT | {"minLength": 1}), id="unsupported"),
    pytest.param(
        loosely(a=TEXT) | {"anyOf": [{"required": ["a"]}]},
        an_object(value=loosely(a=TEXT) | {"anyOf": [{"required": ["a"]}]}),
        id="anyOf beside the type",
    ),
    pytest.param(
        {"type": "object", "oneOf": [{"$ref": "#/definitions/X"}], "definitions": {"X": {}}},
        an_object(value={"type": "object", "oneOf": [{"$ref": "#/definitions/X"}]}) | {"definitions": {"X": {}}},
        id="definitions",
    ),
    pytest.param(
        {
            "items": {"$ref": "#/properties/a"},
            "not": {"properties": {"enum": {"$ref": "#"}, "$ref": {}}, "enum": [{"$ref": "#"}], "$ref": "other#"},
            "$id": "https://example.com/a",
        },
        an_object(value={"$ref": "#/$defs/value"})
        | {
            "$id": "https://example.com/a",
            "$defs": {
                "value": {
                    "items": {"$ref": "#/$defs/value/properties/a"},
                    "not": {
                        "properties": {"enum": {"$ref": "#/$defs/value"}, "$ref": {}},
                        "enum": [{"$ref": "#"}],
                        "$ref": "other#",
                    },
                }
            },
        },
        id="references into the root",
    ),
    pytest.param({"$defs": 1, "$ref": "#"}, None, id="no schema at all"),
]


@pytest.mark.parametrize(("schema", "expected"), LOOSE_AND_WRAPPED)
def test_what_cannot_be_enforced_is_wrapped_only_where_its_root_demands_it(schema: Any, expected: Schema) -> None:
    ready = prepared(schema)
    assert (ready.strict, ready.wrapped) == (False, True)
    assert expected is None or ready.schema == expected


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "schema", [loosely(a=TEXT | {"title": "A"}), loosely(a={"oneOf": [TEXT]}) | {"title": "root", "$id": "x"}]
)
def test_with_its_own_strict_a_schema_stays_as_it_is(schema: Schema, strict: bool) -> None:
    assert prepared(schema, strict=strict) == PreparedSchema(schema, strict=strict, wrapped=False)


@pytest.mark.parametrize("strict", [False, True])
def test_with_its_own_strict_a_root_is_wrapped_all_the_same(strict: bool) -> None:
    schema = {"type": "array", "items": TEXT | {"title": "A"}}
    assert prepared(schema, strict=strict) == PreparedSchema(an_object(value=schema), strict=strict, wrapped=True)


def names(count: int, length: int = 1) -> list[str]:
    return [f"{index:0{length}}" for index in range(count)]


def nested(levels: int) -> Schema:
    return loosely(a=nested(levels - 1)) if levels else TEXT


AT_THE_LIMIT = [
    pytest.param(lambda more: nested(10 + more), id="levels"),
    pytest.param(lambda more: {"type": "array", "items": nested(8 + more)}, id="levels with the wrapper"),
    pytest.param(lambda more: loosely(**dict.fromkeys(names(5_000 + more), TEXT)), id="properties"),
    pytest.param(
        lambda more: loosely(a={"enum": names(600)}, b={"anyOf": [{"enum": names(400 + more)}, NULL]}), id="values"
    ),
    pytest.param(
        lambda more: loosely(a={"oneOf": [{"const": name} for name in names(100 + more)]}), id="branches to compare"
    ),
    pytest.param(lambda more: loosely(a={"enum": names(300, 50) + ["x" * more] * (more > 0)}), id="long enum"),
    pytest.param(lambda more: loosely(**{"a" * (120_000 + more): TEXT}), id="a long name"),
    pytest.param(lambda more: loosely(a={"const": "x" * (119_999 + more)}), id="a long constant"),
    pytest.param(
        lambda more: (
            loosely(a={"$ref": f"#/$defs/{'x' * (119_999 + more)}"}) | {"$defs": {"x" * (119_999 + more): TEXT}}
        ),
        id="a long definition's name",
    ),
]


@pytest.mark.parametrize("schema", AT_THE_LIMIT)
def test_a_schema_is_strict_up_to_openais_limits(schema: Any) -> None:
    assert prepared(schema(0)).strict
    assert not prepared(schema(1)).strict


def test_a_schema_nested_deeper_than_vllm_takes_is_refused() -> None:
    schema: Any = {}
    for _ in range(MAX_NESTING - 1):
        schema = {"not": schema}
    assert not prepared(schema).strict
    for strict in (None, False, True):
        with pytest.raises(RequestError) as refused:
            prepared({"not": schema}, strict=strict, param="structured_outputs")
        assert refused.value.response.param == "structured_outputs"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("answer_format-1", "answer_format-1"),
        ("My schema/v1.2", "My_schema_v1_2"),
        ("응답", "__"),
        ("", "answer"),
        (None, "answer"),
        ("x" * 65, "x" * 64),
    ],
)
def test_a_name_is_made_legal(name: str | None, expected: str) -> None:
    assert legal_name(name) == expected


def test_choices_are_an_enumeration_without_repeats() -> None:
    assert choice_schema(["yes", "no", "yes"]) == {"type": "string", "enum": ["yes", "no"]}
    assert prepared(choice_schema(["yes"])) == PreparedSchema(an_object(value=choice_schema(["yes"])), True, True)


def test_a_regular_expression_has_to_match_all_of_the_string() -> None:
    schema = regex_schema("a|b")
    assert [Draft202012Validator(schema).is_valid(text) for text in ("a", "b", "ab", "xb")] == [
        True,
        True,
        False,
        False,
    ]
    assert prepared(schema) == PreparedSchema(an_object(value=schema), True, True)


# --- any schema, any answer -------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "kind", "enum", "$ref"])
SCALARS = st.sampled_from(["a", "b", "", 0, 1, 1.0, 2.5, True, False, None])
REFERENCES = st.sampled_from(["#", "#/$defs/A", "#/$defs/B", "#/definitions/C", "#/$defs/missing"])
ANNOTATIONS: dict[str, st.SearchStrategy[Any]] = {
    "title": st.just("t"),
    "default": st.just({"$ref": "#"}),
    "description": st.just("d"),
}
SUPPORTED: dict[str, st.SearchStrategy[Any]] = {
    "format": st.sampled_from(["date", "binary"]),
    "pattern": st.sampled_from(["^a", "b"]),
    "minimum": st.integers(0, 2),
    "exclusiveMaximum": st.sampled_from([1, 2.5]),
    "multipleOf": st.sampled_from([1, 0.5]),
    "minItems": st.integers(0, 1),
    "maxItems": st.integers(0, 2),
}
UNSUPPORTED: dict[str, st.SearchStrategy[Any]] = {
    "minLength": st.integers(0, 2),
    "uniqueItems": st.booleans(),
    "minProperties": st.integers(0, 3),
    "not": st.just({"type": "string"}),
    "x-unknown": st.just(1),
    "items": st.booleans(),
}


def with_some(schemas: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    """Further keywords; few that are not supported, for one makes a whole schema loose."""
    annotations, supported, unsupported = (
        st.one_of(*(st.tuples(st.just(keyword), value) for keyword, value in group.items()))
        for group in (ANNOTATIONS, SUPPORTED, UNSUPPORTED)
    )
    kinds = st.sampled_from([annotations] * 30 + [supported] * 30 + [unsupported])
    extras = st.lists(kinds.flatmap(lambda kind: kind), max_size=2).map(dict)
    combined = {"$ref", "anyOf", "oneOf", "allOf"}
    return st.builds(
        lambda extra, schema: schema if schema.keys() & combined and extra.keys() - ANNOTATIONS else extra | schema,
        extras,
        schemas,
    )


TYPE = st.sampled_from(["string", "integer", "number", "boolean", "null"])
PLAIN = st.one_of(
    TYPE.map(lambda name: {"type": name}),
    st.lists(TYPE, min_size=1, max_size=2, unique=True).map(lambda types: {"type": types}),
    SCALARS.map(lambda value: {"const": value}),
    st.lists(SCALARS, min_size=1, max_size=3).map(lambda values: {"enum": values}),
    st.builds(lambda name, values: {"type": name, "enum": values}, TYPE, st.lists(SCALARS, min_size=1, max_size=4)),
    REFERENCES.map(lambda reference: {"$ref": reference}),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    tagged = st.builds(
        lambda tag, properties: {"type": "object", "properties": {"kind": tag} | properties},
        st.sampled_from([{"const": "a"}, {"const": "b"}, {"enum": ["b", "c"]}]),
        st.dictionaries(NAMES, inner, max_size=1),
    )
    objects = st.builds(
        lambda schema, type_, closed: schema | type_ | closed,
        st.fixed_dictionaries(
            {"properties": st.dictionaries(NAMES, inner, min_size=1, max_size=3)},
            optional={"required": st.lists(NAMES, max_size=1)},
        ),
        st.sampled_from([{"type": "object"}, {"type": "object"}, {"type": ["object", "null"]}, {}]),
        st.sampled_from([{}, {"additionalProperties": False}, {"additionalProperties": True}]),
    )
    branches = st.lists(inner | tagged | tagged, min_size=1, max_size=3)
    return st.one_of(
        objects,
        inner.map(lambda items: {"type": "array", "items": items}),
        inner.map(lambda items: {"items": items}),
        branches.map(lambda schemas: {"anyOf": schemas}),
        branches.map(lambda schemas: {"oneOf": schemas}),
        inner.map(lambda schema: {"allOf": [schema]}),
        tagged,
    )


SCHEMAS = st.builds(
    lambda root, shared, old: root | {"$defs": shared, "definitions": old},
    st.recursive(with_some(PLAIN), lambda inner: with_some(containers(inner)), max_leaves=8),
    st.fixed_dictionaries({name: with_some(PLAIN | containers(with_some(PLAIN))) for name in "AB"}),
    st.fixed_dictionaries({"C": with_some(PLAIN | containers(with_some(PLAIN)))}),
)


def problems(schema: Schema) -> Iterator[str]:
    """What OpenAI would refuse in a strict schema."""
    if schema.get("type") != "object" or schema.keys() & {"anyOf", "$ref", "enum", "const"}:
        yield "root"
    yield from problems_at(schema, schema.get("$defs", {}), depth=1)
    for definition in schema.get("$defs", {}).values():
        yield from problems_at(definition, schema["$defs"], depth=1)


ALLOWED = {
    "type", "description", "enum", "const", "properties", "required", "additionalProperties", "items", "minItems",
    "maxItems", "pattern", "format", "minimum", "exclusiveMaximum", "multipleOf", "anyOf", "$ref",
}  # fmt: skip


def problems_at(schema: Schema, definitions: Schema, *, depth: int) -> Iterator[str]:
    types = schema["type"] if isinstance(schema.get("type"), list) else [schema.get("type")]
    if unknown := schema.keys() - ALLOWED - ({"$defs"} if schema.get("$defs") is definitions else set()):
        yield f"keywords {unknown}"
    if len(schema.keys() & {"type", "anyOf", "$ref"}) != 1:
        yield f"neither one type nor one combination: {schema.keys()}"
    if "$ref" in schema:
        named = schema["$ref"].removeprefix("#/$defs/")
        if len(schema) > 1 or (schema["$ref"] != "#" and named not in definitions):
            yield f"reference {schema}"
    if ("object" in types) != ("properties" in schema) or ("array" in types) != ("items" in schema):
        yield f"no contents: {schema}"
    if "object" in types and (
        schema["additionalProperties"] is not False or schema["required"] != list(schema["properties"])
    ):
        yield f"open object: {schema}"
    if schema.get("format", "date") != "date" or depth > 11:
        yield "format or depth"
    for inner in [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]:
        yield from problems_at(inner, definitions, depth=depth + 1)
    for branch in schema.get("anyOf", []):
        yield from problems_at(branch, definitions, depth=depth)


@given(SCHEMAS)
def test_any_strict_schema_is_one_that_openai_takes(schema: Schema) -> None:
    ready = prepared(schema)
    assert not ready.strict or list(problems(ready.schema)) == []


@given(SCHEMAS)
def test_any_schema_is_left_alone_and_prepared_once_for_all(schema: Schema) -> None:
    before = copy.deepcopy(schema)
    ready = prepared(schema)
    assert schema == before
    assert prepared(ready.schema) == PreparedSchema(ready.schema, ready.strict, wrapped=False)


def instance(draw: st.DrawFn, schema: Schema, root: Schema, depth: int = 0) -> Any:
    """What OpenAI might answer; not always valid, for bounds and patterns are not minded."""
    assume(depth < 12)
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return instance(draw, root if name == "#" else root["$defs"][name], root, depth + 1)
    if "anyOf" in schema:
        return instance(draw, draw(st.sampled_from(schema["anyOf"])), root, depth + 1)
    if values := [schema["const"]] if "const" in schema else schema.get("enum"):
        return draw(st.sampled_from(values))
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    name = draw(st.sampled_from(types))
    if name == "object":
        return {key: instance(draw, inner, root, depth + 1) for key, inner in schema["properties"].items()}
    if name == "array":
        least = schema.get("minItems", 0)
        size = draw(st.integers(least, max(least, min(schema.get("maxItems", 2), 2 if depth < 6 else 0))))
        return [instance(draw, schema["items"], root, depth + 1) for _ in range(size)]
    return draw(SCALARS_OF[name])


SCALARS_OF: dict[str, st.SearchStrategy[Any]] = {
    "string": st.sampled_from(["a", "b", "", "ab", "c"]),
    "integer": st.integers(-1, 3),
    "number": st.sampled_from([0, 1, 1.0, 1.5, 2.5]),
    "boolean": st.booleans(),
    "null": st.none(),
}


@given(SCHEMAS, st.data())
def test_any_answer_to_a_strict_schema_is_valid_under_the_clients(schema: Schema, data: st.DataObject) -> None:
    ready = prepared(schema)
    assume(ready.strict)
    answer = data.draw(st.composite(lambda draw: instance(draw, ready.schema, ready.schema))())
    assume(Draft202012Validator(ready.schema).is_valid(answer))

    assert Draft202012Validator(schema).is_valid(answer["value"] if ready.wrapped else answer)


OTHERS = ("type", "properties", "required", "additionalProperties", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")
KEYWORDS = st.sampled_from([*ANNOTATIONS, *SUPPORTED, *UNSUPPORTED, *OTHERS, "$defs", "definitions"])
ANYTHING = st.recursive(
    SCALARS | st.sampled_from(["object", "array", "string", "#", "#/$defs/a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYWORDS | NAMES, inner, max_size=4),
)


@given(st.dictionaries(KEYWORDS, ANYTHING, max_size=5))
def test_what_is_no_schema_is_sent_all_the_same(schema: Schema) -> None:
    ready = prepared(schema)
    assert ready.schema["type"] == "object"
    assert not ready.strict or list(problems(ready.schema)) == []
    assert json.dumps(ready.schema)
