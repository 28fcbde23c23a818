"""JSON schemas converted to OpenAI's strict subset, which accept no more than the client's own."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from app.core.errors.request_errors import RequestError
from app.features.llm.to_openai.structured_outputs.json_schema import (
    MAX_NESTING,
    PreparedSchema,
    choice_schema,
    prepare_schema,
    regex_schema,
    valid_name,
)

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
NULL: Schema = {"type": "null"}


def closed(**properties: Any) -> Schema:
    """Return a strict object schema with these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def loose(**properties: Any) -> Schema:
    """Return an object schema with these properties as a client would write it."""
    return {"type": "object", "properties": properties}


CONVERTED = [
    pytest.param(closed(a=TEXT), closed(a=TEXT), id="strict already"),
    pytest.param(loose(a=TEXT, b=TEXT), closed(a=TEXT, b=TEXT), id="required"),
    pytest.param(loose(a=TEXT) | {"required": ["a"]}, closed(a=TEXT), id="additional properties absent"),
    pytest.param(loose(a=TEXT) | {"additionalProperties": True}, closed(a=TEXT), id="additional properties"),
    pytest.param({"type": "object", "additionalProperties": False}, closed(), id="object without properties"),
    pytest.param(loose(a=loose(b=TEXT)), closed(a=closed(b=TEXT)), id="nested"),
    pytest.param(
        loose(a={"type": "array", "items": loose(b=TEXT), "minItems": 1, "maxItems": 3}),
        closed(a={"type": "array", "items": closed(b=TEXT), "minItems": 1, "maxItems": 3}),
        id="array",
    ),
    pytest.param(
        loose(a={"type": ["object", "null"], "properties": {"b": TEXT}}),
        closed(a=closed(b=TEXT) | {"type": ["object", "null"]}),
        id="object or null",
    ),
    pytest.param(
        loose(a=TEXT | {"title": "A", "default": "", "examples": [""], "deprecated": True, "description": "an a"})
        | {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/a", "$comment": "c"},
        closed(a=TEXT | {"description": "an a"}),
        id="annotations",
    ),
    pytest.param(
        loose(title=TEXT, default=TEXT, enum=TEXT),
        closed(title=TEXT, default=TEXT, enum=TEXT),
        id="properties named as keywords",
    ),
    pytest.param(
        loose(a=TEXT | {"format": "binary"}, b=TEXT | {"format": "date"}),
        closed(a=TEXT, b=TEXT | {"format": "date"}),
        id="formats",
    ),
    pytest.param(
        loose(a={"type": "integer", "format": "int32", "minimum": 1}),
        closed(a={"type": "integer", "minimum": 1}),
        id="format of a number",
    ),
    pytest.param(loose(a={"const": 1}), closed(a={"const": 1, "type": "integer"}), id="const without a type"),
    pytest.param(
        loose(a={"enum": ["x", 1, True, None, 1.5]}),
        closed(
            a={"enum": ["x", 1, True, None, 1.5], "type": ["string", "integer", "boolean", "null", "number"]},
        ),
        id="enum without a type",
    ),
    pytest.param(
        loose(a=TEXT | {"enum": ["x", None, 1]}), closed(a=TEXT | {"enum": ["x"]}), id="values of other types"
    ),
    pytest.param(
        loose(a={"type": "number", "enum": [1, 1.5, True]}),
        closed(a={"type": "number", "enum": [1, 1.5]}),
        id="integers are numbers, booleans are not",
    ),
    pytest.param({"properties": {"a": {"pattern": "^x"}}}, closed(a=TEXT | {"pattern": "^x"}), id="implied types"),
    pytest.param(loose(a=TEXT | {"minimum": 3}), closed(a=TEXT), id="a keyword for another type"),
    pytest.param(
        loose(a={"anyOf": [loose(b=TEXT), NULL], "description": "an a", "default": None}),
        closed(a={"anyOf": [closed(b=TEXT), NULL], "description": "an a"}),
        id="anyOf",
    ),
    pytest.param(
        loose(a={"oneOf": [TEXT, {"type": "number"}, {"type": "array", "items": TEXT}]}),
        closed(a={"anyOf": [TEXT, {"type": "number"}, {"type": "array", "items": TEXT}]}),
        id="oneOf of different types",
    ),
    pytest.param(
        loose(a={"oneOf": [TEXT | {"properties": {"b": TEXT}}, NULL]}),
        closed(a={"anyOf": [TEXT, NULL]}),
        id="oneOf with a keyword for another type",
    ),
    pytest.param(
        loose(a={"oneOf": [{"const": "x", "title": "X"}, {"const": "y"}]}),
        closed(a={"anyOf": [TEXT | {"const": "x"}, TEXT | {"const": "y"}]}),
        id="oneOf of different values",
    ),
    pytest.param(
        loose(a={"oneOf": [loose(kind={"const": "x"}), loose(kind={"enum": ["y", "z"]}, b=TEXT), NULL]}),
        closed(
            a={
                "anyOf": [
                    closed(kind=TEXT | {"const": "x"}),
                    closed(kind=TEXT | {"enum": ["y", "z"]}, b=TEXT),
                    NULL,
                ]
            }
        ),
        id="oneOf distinguished by a property",
    ),
    pytest.param(
        loose(a={"oneOf": [{"$ref": "#/$defs/X"}, {"$ref": "#/$defs/Y"}], "discriminator": {"propertyName": "kind"}})
        | {"$defs": {"X": loose(kind={"const": "x"}), "Y": loose(kind={"$ref": "#/$defs/Z"}), "Z": {"const": "z"}}},
        closed(a={"anyOf": [{"$ref": "#/$defs/X"}, {"$ref": "#/$defs/Y"}]})
        | {
            "$defs": {
                "X": closed(kind=TEXT | {"const": "x"}),
                "Y": closed(kind={"$ref": "#/$defs/Z"}),
                "Z": TEXT | {"const": "z"},
            }
        },
        id="oneOf of references",
    ),
    pytest.param(
        loose(a={"allOf": [{"$ref": "#/$defs/X"}], "description": "an a"}, b={"allOf": [TEXT], "description": "a b"})
        | {"$defs": {"X": TEXT}},
        closed(a={"$ref": "#/$defs/X"}, b=TEXT | {"description": "a b"}) | {"$defs": {"X": TEXT}},
        id="allOf of one",
    ),
    pytest.param(
        loose(a={"$ref": "#/definitions/X", "title": "A", "description": "an a"})
        | {"definitions": {"X": loose(b=TEXT)}},
        closed(a={"$ref": "#/$defs/X"}) | {"$defs": {"X": closed(b=TEXT)}},
        id="definitions",
    ),
    pytest.param(loose(a=TEXT) | {"$defs": {"X": {"not": {}}}}, closed(a=TEXT), id="unused definition"),
    pytest.param(
        loose(a=TEXT, children={"type": "array", "items": {"$ref": "#"}}),
        closed(a=TEXT, children={"type": "array", "items": {"$ref": "#"}}),
        id="recursion",
    ),
]


@pytest.mark.parametrize(("schema", "expected"), CONVERTED)
def test_a_schema_is_converted_to_its_strict_form(schema: Schema, expected: Schema) -> None:
    assert prepare_schema(schema) == PreparedSchema(expected, strict=True, wrapped=False)


TREE = {"anyOf": [{"type": "array", "items": {"$ref": "#"}}, NULL]}

WRAPPED = [
    pytest.param({"type": "array", "items": TEXT}, {"type": "array", "items": TEXT}, {}, id="array"),
    pytest.param({"enum": ["x"]}, TEXT | {"enum": ["x"]}, {}, id="enum"),
    pytest.param(loose(a=TEXT) | {"type": ["object"]}, closed(a=TEXT) | {"type": ["object"]}, {}, id="list of types"),
    pytest.param({"anyOf": [loose(a=TEXT), NULL]}, {"anyOf": [closed(a=TEXT), NULL]}, {}, id="anyOf"),
    pytest.param(
        {"$ref": "#/definitions/X", "definitions": {"X": loose(a=TEXT)}},
        {"$ref": "#/$defs/X"},
        {"$defs": {"X": closed(a=TEXT)}},
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
def test_a_root_that_is_not_an_object_is_wrapped(schema: Schema, value: Schema, definitions: Schema) -> None:
    assert prepare_schema(schema) == PreparedSchema(closed(value=value) | definitions, strict=True, wrapped=True)


NOT_STRICT = [
    *(
        pytest.param(loose(a=TEXT | {keyword: value}), id=keyword)
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
        pytest.param(loose(a=TEXT) | {keyword: value}, id=keyword)
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
        pytest.param(loose(a={"type": "array", "items": TEXT} | {keyword: value}), id=keyword)
        for keyword, value in {"uniqueItems": True, "contains": TEXT, "prefixItems": [TEXT]}.items()
    ),
    pytest.param({"type": "object"}, id="free-form object"),
    pytest.param(loose(), id="free-form object with no properties"),
    pytest.param(loose(a={"type": "array"}), id="array of anything"),
    pytest.param(loose(a={}), id="anything"),
    pytest.param(loose(a={"description": "anything"}), id="anything, described"),
    pytest.param(loose(a=True), id="boolean"),
    pytest.param(loose(a={"type": "array", "items": True}), id="array of booleans"),
    pytest.param(loose(a={"anyOf": [TEXT, True]}), id="boolean in anyOf"),
    pytest.param(loose(a={"anyOf": [TEXT], "type": "string"}), id="anyOf with siblings"),
    pytest.param(loose(a={"allOf": [TEXT, {"enum": ["x"]}]}), id="allOf of two"),
    pytest.param(loose(a={"allOf": [loose(b=TEXT)], "required": ["c"]}), id="allOf with siblings"),
    pytest.param(loose(a={"oneOf": [{"type": "integer"}, {"type": "number"}]}), id="oneOf: integer and number"),
    pytest.param(loose(a={"oneOf": [{"const": 1}, {"const": 1.0}]}), id="oneOf: the same number"),
    pytest.param(loose(a={"oneOf": [loose(b=TEXT), loose(c=TEXT)]}), id="oneOf: two objects"),
    pytest.param(loose(a={"oneOf": [TEXT, {"properties": {"b": TEXT}}]}), id="oneOf: implied type"),
    pytest.param(loose(a={"oneOf": [{"anyOf": [TEXT]}, NULL]}), id="oneOf: anyOf"),
    pytest.param(
        loose(a={"oneOf": [loose(b={"const": value}) | {"type": ["object", "null"]} for value in "xy"]}),
        id="oneOf: objects that differ, or null",
    ),
    pytest.param(loose(a={"oneOf": [TEXT, TEXT | {"enum": ["x"]}]}), id="oneOf: one in the other"),
    pytest.param(loose(a={"$ref": "#/$defs/X", "minLength": 1}) | {"$defs": {"X": TEXT}}, id="reference, siblings"),
    pytest.param(loose(a={"$ref": "#/$defs/X"}), id="reference to nothing"),
    pytest.param(loose(a={"$ref": "#/$defs/X~1"}) | {"$defs": {"X~1": TEXT}}, id="reference with an escape"),
    pytest.param(loose(a={"$ref": "#/$defs/X/b"}) | {"$defs": {"X/b": TEXT}}, id="reference into a definition"),
    pytest.param(loose(a={"$ref": "#/properties/b"}, b=TEXT), id="reference to a property"),
    pytest.param(loose(a={"$ref": "https://example.com/a"}), id="reference to another document"),
    pytest.param(
        loose(a={"$ref": "#/$defs/X"}) | {"$defs": {"X": TEXT}, "definitions": {"X": NULL}},
        id="definitions of the same name",
    ),
    pytest.param(loose(a=TEXT | {"enum": []}), id="no values"),
    pytest.param(loose(a=TEXT | {"enum": [1]}), id="no values of the type"),
    pytest.param(loose(a=TEXT | {"const": 1}), id="a value not of the type"),
    pytest.param(loose(a={"enum": [{}, "x"]}), id="object as a value"),
    pytest.param(loose(next={"$ref": "#"}), id="infinite recursion"),
    pytest.param(loose(a={"type": "array", "items": {"$ref": "#"}, "minItems": 1}), id="infinite lists"),
    pytest.param(
        loose(a={"$ref": "#/$defs/X"}) | {"$defs": {"X": {"anyOf": [{"$ref": "#/$defs/X"}, NULL]}}},
        id="its own alternative",
    ),
]


@pytest.mark.parametrize("schema", NOT_STRICT)
def test_a_schema_without_a_strict_form_is_sent_unchanged(schema: Schema) -> None:
    assert prepare_schema(schema) == PreparedSchema(schema, strict=False, wrapped=False)


NOT_STRICT_AND_WRAPPED = [
    pytest.param(True, closed(value=True), id="true"),
    pytest.param({}, closed(value={}), id="anything"),
    pytest.param(TEXT | {"minLength": 1}, closed(value=TEXT | {"minLength": 1}), id="unsupported"),
    pytest.param(
        loose(a=TEXT) | {"anyOf": [{"required": ["a"]}]},
        closed(value=loose(a=TEXT) | {"anyOf": [{"required": ["a"]}]}),
        id="anyOf beside the type",
    ),
    pytest.param(
        {"type": "object", "oneOf": [{"$ref": "#/definitions/X"}], "definitions": {"X": {}}},
        closed(value={"type": "object", "oneOf": [{"$ref": "#/definitions/X"}]}) | {"definitions": {"X": {}}},
        id="definitions",
    ),
    pytest.param(
        {
            "items": {"$ref": "#/properties/a"},
            "not": {"properties": {"enum": {"$ref": "#"}, "$ref": {}}, "enum": [{"$ref": "#"}], "$ref": "other#"},
            "$id": "https://example.com/a",
        },
        closed(value={"$ref": "#/$defs/value"})
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


@pytest.mark.parametrize(("schema", "expected"), NOT_STRICT_AND_WRAPPED)
def test_a_schema_without_a_strict_form_is_wrapped_if_its_root_is_not_an_object(schema: Any, expected: Schema) -> None:
    prepared = prepare_schema(schema)
    assert (prepared.strict, prepared.wrapped) == (False, True)
    assert expected is None or prepared.schema == expected


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "schema", [loose(a=TEXT | {"title": "A"}), loose(a={"oneOf": [TEXT]}) | {"title": "root", "$id": "x"}]
)
def test_a_schema_with_an_explicit_strict_is_sent_unchanged(schema: Schema, strict: bool) -> None:
    assert prepare_schema(schema, strict=strict) == PreparedSchema(schema, strict=strict, wrapped=False)


@pytest.mark.parametrize("strict", [False, True])
def test_a_root_is_wrapped_despite_an_explicit_strict(strict: bool) -> None:
    schema = {"type": "array", "items": TEXT | {"title": "A"}}
    assert prepare_schema(schema, strict=strict) == PreparedSchema(closed(value=schema), strict=strict, wrapped=True)


def names(count: int, length: int = 1) -> list[str]:
    return [f"{index:0{length}}" for index in range(count)]


def nested(levels: int) -> Schema:
    return loose(a=nested(levels - 1)) if levels else TEXT


AT_OPENAIS_LIMITS = [
    pytest.param(lambda more: nested(10 + more), id="levels"),
    pytest.param(lambda more: {"type": "array", "items": nested(8 + more)}, id="levels with the wrapper"),
    pytest.param(lambda more: loose(**dict.fromkeys(names(5_000 + more), TEXT)), id="properties"),
    pytest.param(
        lambda more: loose(a={"enum": names(600)}, b={"anyOf": [{"enum": names(400 + more)}, NULL]}), id="values"
    ),
    pytest.param(
        lambda more: loose(a={"oneOf": [{"const": name} for name in names(100 + more)]}), id="branches to compare"
    ),
    pytest.param(lambda more: loose(a={"enum": names(300, 50) + ["x" * more] * (more > 0)}), id="long enum"),
    pytest.param(lambda more: loose(**{"a" * (120_000 + more): TEXT}), id="a long name"),
    pytest.param(lambda more: loose(a={"const": "x" * (119_999 + more)}), id="a long constant"),
    pytest.param(
        lambda more: loose(a={"$ref": f"#/$defs/{'x' * (119_999 + more)}"}) | {"$defs": {"x" * (119_999 + more): TEXT}},
        id="a long definition's name",
    ),
]


@pytest.mark.parametrize("schema", AT_OPENAIS_LIMITS)
def test_a_schema_is_strict_up_to_openais_limits(schema: Any) -> None:
    assert prepare_schema(schema(0)).strict
    assert not prepare_schema(schema(1)).strict


def test_a_schema_nested_beyond_vllms_limit_is_rejected() -> None:
    schema: Any = {}
    for _ in range(MAX_NESTING - 1):
        schema = {"not": schema}
    assert not prepare_schema(schema).strict
    for strict in (None, False, True):
        with pytest.raises(RequestError) as caught:
            prepare_schema({"not": schema}, strict=strict, param="structured_outputs")
        assert caught.value.response.param == "structured_outputs"


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
def test_a_schema_name_is_made_valid(name: str | None, expected: str) -> None:
    assert valid_name(name) == expected


def test_choices_become_an_enum_without_duplicates() -> None:
    assert choice_schema(["yes", "no", "yes"]) == {"type": "string", "enum": ["yes", "no"]}
    assert prepare_schema(choice_schema(["yes"])) == PreparedSchema(closed(value=choice_schema(["yes"])), True, True)


def test_a_regex_must_match_the_whole_string() -> None:
    schema = regex_schema("a|b")
    assert [Draft202012Validator(schema).is_valid(text) for text in ("a", "b", "ab", "xb")] == [
        True,
        True,
        False,
        False,
    ]
    assert prepare_schema(schema) == PreparedSchema(closed(value=schema), True, True)


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
    """Add keywords. Unsupported ones are rare, since a single one makes a whole schema not strict."""
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
    """Yield what OpenAI would reject in a strict schema."""
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
def test_every_strict_schema_is_accepted_by_openai(schema: Schema) -> None:
    prepared = prepare_schema(schema)
    assert not prepared.strict or list(problems(prepared.schema)) == []


@given(SCHEMAS)
def test_preparing_a_schema_is_idempotent_and_does_not_change_it(schema: Schema) -> None:
    before = copy.deepcopy(schema)
    prepared = prepare_schema(schema)
    assert schema == before
    assert prepare_schema(prepared.schema) == PreparedSchema(prepared.schema, prepared.strict, wrapped=False)


def instance(draw: st.DrawFn, schema: Schema, root: Schema, depth: int = 0) -> Any:
    """Draw a response that OpenAI might give; bounds and patterns are ignored, so it is not always valid."""
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
        minimum = schema.get("minItems", 0)
        size = draw(st.integers(minimum, max(minimum, min(schema.get("maxItems", 2), 2 if depth < 6 else 0))))
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
def test_every_response_to_a_strict_schema_is_valid_under_the_original(schema: Schema, data: st.DataObject) -> None:
    prepared = prepare_schema(schema)
    assume(prepared.strict)
    response = data.draw(st.composite(lambda draw: instance(draw, prepared.schema, prepared.schema))())
    assume(Draft202012Validator(prepared.schema).is_valid(response))

    assert Draft202012Validator(schema).is_valid(response["value"] if prepared.wrapped else response)


OTHERS = ("type", "properties", "required", "additionalProperties", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")
KEYWORDS = st.sampled_from([*ANNOTATIONS, *SUPPORTED, *UNSUPPORTED, *OTHERS, "$defs", "definitions"])
ANYTHING = st.recursive(
    SCALARS | st.sampled_from(["object", "array", "string", "#", "#/$defs/a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYWORDS | NAMES, inner, max_size=4),
)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"foo": "bar"}},
        {"properties": {"a": {"properties": {"b": 1}}}},
        {"patternProperties": {"a": None}},
        {"anyOf": [{"type": "string"}, "string"]},
        {"type": "array", "items": "string"},
        {"type": "array", "prefixItems": [1]},
        {"type": "object", "additionalProperties": "string"},
        {"not": None},
    ],
)
@pytest.mark.parametrize("strict", [None, True, False])
def test_a_schema_in_a_schema_is_an_object_or_a_boolean(schema: Schema, strict: bool | None) -> None:
    with pytest.raises(RequestError, match="Grammar error: schema must be an object or boolean"):
        prepare_schema(schema, strict=strict)


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"items": True, "anyOf": False}},
        {"items": [{"type": "string"}, True]},
        {"enum": [{"properties": 1}], "default": {"items": "a"}, "const": {"not": 1}},
        {"$defs": {"unused": 1}},
    ],
)
def test_booleans_values_and_unused_definitions_are_accepted(schema: Schema) -> None:
    assert prepare_schema(schema).schema["type"] == "object"


@given(st.dictionaries(KEYWORDS, ANYTHING, max_size=5))
def test_an_invalid_schema_is_sent_too_or_rejected_in_vllms_words(schema: Schema) -> None:
    rejected: list[str] = []
    try:
        prepared = prepare_schema(schema)
    except RequestError as exc:
        rejected.append(str(exc))
    if rejected:
        assert rejected == ["Grammar error: schema must be an object or boolean"]
        return
    assert prepared.schema["type"] == "object"
    assert not prepared.strict or list(problems(prepared.schema)) == []
    assert json.dumps(prepared.schema)
