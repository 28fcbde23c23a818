"""JSON schemas that OpenAI rejects, and its messages."""

from typing import Any

import httpx
import pytest

URL = "/chat/completions"
STRING = {"type": "string"}
CLOSED = "'additionalProperties' is required to be supplied and to be false."
REQUIRED = "'required' is required to be supplied and to be an array including every key in properties. Missing 'age'."
TOP_LEVEL = "schema must have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'not' at the top level."


def closed(properties: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **members,
    }


def nested(levels: int) -> dict[str, Any]:
    schema = closed({})
    for _ in range(levels):
        schema = closed({"x": schema})
    return schema


def not_object(kind: str) -> str:
    return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."


def inside(problem: str, *context: str) -> str:
    return f"In context={context!r}, {problem}"


STRICT = [
    pytest.param({"type": "object"}, inside(CLOSED), id="open"),
    pytest.param(closed({"x": {"type": "object"}}), inside(CLOSED, "properties", "x"), id="open inside"),
    pytest.param(closed({"age": STRING}, required=[]), inside(REQUIRED), id="optional"),
    pytest.param(closed({}, required=["x"]), inside("Extra required key 'x' supplied."), id="required too much"),
    pytest.param({"type": "array", "items": STRING}, not_object("array"), id="array"),
    pytest.param({"anyOf": [STRING]}, not_object("None"), id="no type"),
    pytest.param(closed({}, anyOf=[STRING]), TOP_LEVEL, id="anyOf at the top"),
    pytest.param(
        closed({"x": {"allOf": [STRING]}}), inside("'allOf' is not permitted.", "properties", "x"), id="allOf"
    ),
    pytest.param(
        closed({"x": {"anyOf": [STRING, {"type": "string", "minLength": 1}]}}),
        inside("'minLength' is not permitted.", "properties", "x", "anyOf", "1"),
        id="minLength",
    ),
    pytest.param(
        closed({"x": {"type": "array"}}), inside("array schema missing items.", "properties", "x"), id="no items"
    ),
    pytest.param(closed({"x": {}}), inside("schema must have a 'type' key.", "properties", "x"), id="anything"),
    pytest.param(
        closed({"x": {"type": "string", "format": "uri"}}),
        inside("'uri' is not a supported format.", "properties", "x"),
        id="format",
    ),
    pytest.param(
        closed({"x": {"type": "string", "pattern": "a(?=b)"}}),
        inside("'a(?=b)' is not a supported pattern.", "properties", "x"),
        id="pattern",
    ),
    pytest.param(
        closed({"x": {"$ref": "#/$defs/y"}}),
        inside("reference '#/$defs/y' can only point to definitions in the schema itself.", "properties", "x"),
        id="reference",
    ),
    pytest.param(
        closed({"x": {"$ref": "#/$defs/y", "title": "Y", "description": "y"}}, **{"$defs": {"y": STRING}}),
        inside("$ref cannot have keywords {'description', 'title'}.", "properties", "x"),
        id="beside a reference",
    ),
    pytest.param(
        nested(11),
        inside("nesting exceeds the maximum of 10 levels.", *["properties", "x"] * 11),
        id="nesting",
    ),
    pytest.param(
        closed({f"p{number}": STRING for number in range(5001)}),
        "Expected at most 5000 object properties in total, but got 5001.",
        id="properties",
    ),
    pytest.param(
        closed({"x": {"enum": [str(number) for number in range(1001)]}}),
        "Expected at most 1000 enum values in total, but got 1001.",
        id="enum",
    ),
    pytest.param(
        closed({"x": {"const": "a" * 120_000}}),
        "Expected at most 120000 characters of names, enum and const values in total, but got 120001.",
        id="characters",
    ),
]

LOOSE = [
    pytest.param(
        {"type": "object", "properties": {"x": {"type": "zzz"}}},
        "'zzz' is not valid under any of the given schemas.",
        id="type",
    ),
    pytest.param(
        {"type": "object", "properties": {"x": {"type": [{}]}}},
        "{} is not valid under any of the given schemas.",
        id="type object",
    ),
    pytest.param({"type": "object", "properties": {}, "required": "x"}, "'x' is not of type 'array'.", id="required"),
    pytest.param(
        {"type": "object", "properties": {}, "required": [[]]}, "[] is not of type 'string'.", id="a required list"
    ),
    pytest.param(
        {"type": "object", "properties": {"x": {"minimum": True}}}, "True is not of type 'number'.", id="minimum"
    ),
    pytest.param({"type": "object", "properties": {"x": {"enum": []}}}, "[] should be non-empty.", id="enum"),
    pytest.param(
        {"type": "object", "properties": {"x": {"multipleOf": 0}}},
        "0 is less than or equal to the minimum of 0.",
        id="multipleOf",
    ),
    pytest.param({"type": "string"}, not_object("string"), id="no object"),
    pytest.param({}, not_object("None"), id="empty"),
]

PARAMETERS = [
    pytest.param({"type": "object"}, inside("object schema missing properties."), id="no properties"),
    pytest.param(
        {"type": "object", "properties": {"x": {"type": "array"}}},
        inside("array schema missing items.", "properties", "x"),
        id="no items",
    ),
]


def with_format(schema: dict[str, Any], *, strict: bool) -> dict[str, Any]:
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": strict}}
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "response_format": wanted}


def with_tool(schema: dict[str, Any], *, strict: bool) -> dict[str, Any]:
    first = {"type": "custom", "custom": {"name": "c"}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": strict}}
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "tools": [first, tool]}


def is_rejected(response: httpx.Response, message: str, param: str, code: str | None) -> bool:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return response.status_code == 400 and response.json() == {"error": error}


@pytest.mark.parametrize(("schema", "problem"), STRICT)
async def test_strict_response_formats_accept_only_the_subset(
    client: httpx.AsyncClient, schema: dict[str, Any], problem: str
) -> None:
    response = await client.post(URL, json=with_format(schema, strict=True))
    message = f"Invalid schema for response_format 'person': {problem}"
    assert is_rejected(response, message, "response_format", None), response.text


@pytest.mark.parametrize(("schema", "problem"), STRICT[1:])
async def test_strict_functions_accept_only_the_subset(
    client: httpx.AsyncClient, schema: dict[str, Any], problem: str
) -> None:
    response = await client.post(URL, json=with_tool(schema, strict=True))
    message = f"Invalid schema for function 'f': {problem}"
    assert is_rejected(response, message, "tools[1].function.parameters", "invalid_function_parameters"), response.text


@pytest.mark.parametrize(("schema", "problem"), LOOSE)
async def test_an_invalid_schema_is_rejected(client: httpx.AsyncClient, schema: dict[str, Any], problem: str) -> None:
    response = await client.post(URL, json=with_format(schema, strict=False))
    message = f"Invalid schema for response_format 'person': {problem}"
    assert is_rejected(response, message, "response_format", None), response.text


@pytest.mark.parametrize(("schema", "problem"), [*LOOSE, *PARAMETERS])
async def test_function_parameters_must_be_complete(
    client: httpx.AsyncClient, schema: dict[str, Any], problem: str
) -> None:
    response = await client.post(URL, json=with_tool(schema, strict=False))
    message = f"Invalid schema for function 'f': {problem}"
    assert is_rejected(response, message, "tools[1].function.parameters", "invalid_function_parameters"), response.text


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        pytest.param(nested(10), True, id="ten levels"),
        pytest.param(closed({"x": {"type": ["array", "null"], "items": {"$ref": "#"}}}), True, id="recursion"),
        pytest.param(
            closed({"x": {"$ref": "#/$defs/a~1b"}}, **{"$defs": {"a/b": STRING}}), True, id="escaped reference"
        ),
        pytest.param(closed({"x": {"type": "string", "format": "date", "pattern": "^a$"}}), True, id="format"),
        pytest.param(closed({f"p{number}": STRING for number in range(5000)}), True, id="properties"),
        pytest.param({"type": "object", "properties": {"x": {"allOf": [STRING]}}}, False, id="loose"),
        pytest.param({"type": "object", "properties": {"x": True}, "patternProperties": {"a": {}}}, False, id="true"),
    ],
)
async def test_a_schema_that_openai_accepts_is_accepted(
    client: httpx.AsyncClient, schema: dict[str, Any], *, strict: bool
) -> None:
    for body in (with_format(schema, strict=strict), with_tool(schema, strict=strict)):
        assert (await client.post(URL, json=body)).status_code == 200
