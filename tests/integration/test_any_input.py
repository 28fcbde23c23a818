"""Any input gets a response in vLLM's form, and valid input gives a valid request to OpenAI."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from app.features.llm.schema import ChatCompletionRequest, CompletionRequest
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.golden.exchanges import JSONObject
from tests.golden.requests import (
    FIELDS,
    MODELS,
    accepted,
    bodies,
    completion_bodies,
    conversations,
    json_values,
    token_ids,
    tools,
    unknown_keys,
)
from tests.properties import examples, place, places
from tests.serving import served_over

of_module = pytest.mark.asyncio(loop_scope="module")

COMPLETIONS, BATCH, INVOCATIONS = "/v1/completions", "/v1/chat/completions/batch", "/invocations"
TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"
PATHS = [CHAT, BATCH, COMPLETIONS, INVOCATIONS, TOKENIZE, DETOKENIZE]
OPENAI_KEYS = CompletionCreateParamsStreaming.__required_keys__ | CompletionCreateParamsStreaming.__optional_keys__
UPSTREAMS_WORDS = ("Unrecognized request argument", "Unknown parameter", "Invalid type")


# --- one server and one simulator for all examples --------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def openai() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(openai: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        served_over(openai.base_url, served_models={name: name for name in MODELS}) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        yield client


async def answer_to(body: object, server: httpx.AsyncClient, path: str = CHAT) -> httpx.Response:
    return await server.post(path, content=json.dumps(body), headers={"content-type": "application/json"})


def events_of(response: httpx.Response) -> list[Any]:
    if not response.headers["content-type"].startswith("text/event-stream"):
        return []
    *events, end = [line.removeprefix("data: ") for line in response.text.split("\n") if line]
    assert end == "[DONE]"
    return [json.loads(event) for event in events]


# --- what vLLM accepts ------------------------------------------------------------------------------------------------


async def check_is_served_or_refused_by_us(
    body: JSONObject, server: httpx.AsyncClient, openai: Simulator, path: str = CHAT
) -> None:
    openai.traffic.exchanges.clear()
    response = await answer_to(body, server, path)

    assert response.status_code in (200, 400), response.text
    sent = [exchange.body.keys() for exchange in openai.traffic.exchanges]
    assert all(keys <= OPENAI_KEYS for keys in sent)
    assert not any(said in response.text for said in UPSTREAMS_WORDS)
    if response.status_code == 200:
        assert not any("error" in event for event in events_of(response))
        return
    error = response.json()["error"]
    assert not sent, error
    assert str(error["param"]).removeprefix("body.").split(".")[0] in body, error


def test_every_field_of_vllms_request_is_tried() -> None:
    assert list(FIELDS) == list(ChatCompletionRequest.model_fields)


@pytest.mark.parametrize("name", FIELDS)
@examples(10)
@given(data=st.data())
@of_module
async def test_each_field_is_served_or_rejected_by_name(
    name: str, server: httpx.AsyncClient, openai: Simulator, data: st.DataObject
) -> None:
    fields = {"messages": [{"role": "user", "content": "hi"}], name: data.draw(FIELDS[name])}

    await check_is_served_or_refused_by_us(accepted(fields), server, openai)


@examples(100)
@given(keys=unknown_keys)
@example(keys={"guided_json": "0"})
@example(keys={"guided_json": {"": float("inf")}})
@of_module
async def test_unknown_keys_are_accepted(server: httpx.AsyncClient, openai: Simulator, keys: JSONObject) -> None:
    await check_is_served_or_refused_by_us({"messages": [{"role": "user", "content": "hi"}], **keys}, server, openai)


@pytest.mark.parametrize("model", MODELS)
@examples(60)
@given(body=bodies)
@of_module
async def test_valid_requests_are_served_or_rejected_by_field(
    model: str, server: httpx.AsyncClient, openai: Simulator, body: JSONObject
) -> None:
    await check_is_served_or_refused_by_us(body | {"model": model}, server, openai)


@pytest.mark.parametrize("model", MODELS)
@examples(40)
@given(body=completion_bodies(CompletionRequest.model_fields))
@of_module
async def test_text_completions_are_served_or_rejected_by_field(
    model: str, server: httpx.AsyncClient, openai: Simulator, body: JSONObject
) -> None:
    await check_is_served_or_refused_by_us(body | {"model": model}, server, openai, COMPLETIONS)


# --- what nobody accepts ----------------------------------------------------------------------------------------------


def check_is_answered(response: httpx.Response) -> None:
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert {"error", "detail"} & response.json().keys()
    else:
        assert all(event.get("error", {}).get("code", 400) < 500 for event in events_of(response) or [response.json()])


ODD_IDS: list[Any] = [
    *(None, True, False, -1, 0, 199_999, 200_018, 200_019, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400),
    *(0.5, 1.0, 1e308, float("nan"), float("inf"), [], [[]], {}),
    *("", "0", "-1", "\u0661", " 1", "1_0", "1e3", "9" * 5000),
]
odd_ids = st.sampled_from(ODD_IDS)
MESSAGE_KEYS = ["function_call", "audio", "tool_calls", "refusal", "name", "tool_call_id", "content"]
PART_KEYS = ["type", "text", "refusal", "image_url", "input_audio", "file", "function", "detail"]
SCHEMA_KEYS = [
    *("type", "properties", "required", "items", "enum", "anyOf", "allOf", "$ref", "$defs", "additionalProperties"),
    *("const", "strict", "description", "title", "default", "format", "pattern", "parameters", "arguments", "name"),
    *("json_schema", "schema", "value", "json", "choice", "regex", "guided_json"),
]
"""Keys that have a meaning in schemas and elsewhere."""


def keys_of(value: JSONObject) -> list[str]:
    return MESSAGE_KEYS if "role" in value else PART_KEYS if "type" in value else SCHEMA_KEYS


@st.composite
def spoiled(draw: st.DrawFn, given: st.SearchStrategy[JSONObject]) -> JSONObject:
    """A body with one or two odd values, at existing or meaningful keys."""
    body: JSONObject = json.loads(json.dumps(draw(given)))
    for _ in range(draw(st.integers(1, 2))):
        objects = [body, *(value for inside, at in places(body) if isinstance(value := inside[at], dict))]
        container, key = place(draw, body) if body else (body, "model")
        if draw(st.booleans()):
            # The deepest first, for the first is drawn most.
            container = draw(st.sampled_from(objects[::-1]))
            key = draw(st.sampled_from(keys_of(container)))
        container[key] = json.loads(json.dumps(draw(odd_ids | json_values)))
    return body


@examples(100)
@given(body=json_values, path=st.sampled_from(PATHS))
@of_module
async def test_any_json_gets_a_response(server: httpx.AsyncClient, body: object, path: str) -> None:
    check_is_answered(await answer_to(body, server, path))


@examples(100)
@given(body=spoiled(completion_bodies(CompletionRequest.model_fields)))
@of_module
async def test_a_text_completion_with_one_error_gets_a_response(server: httpx.AsyncClient, body: JSONObject) -> None:
    check_is_answered(await answer_to(body, server, COMPLETIONS))


@examples(150)
@given(body=spoiled(bodies))
@of_module
async def test_a_body_with_one_error_gets_a_response(server: httpx.AsyncClient, body: JSONObject) -> None:
    check_is_answered(await answer_to(body, server))


odd_lists = st.lists(token_ids | odd_ids | json_values, max_size=4) | odd_ids | json_values
TOKEN_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "stop_token_ids": odd_lists,
    "allowed_token_ids": odd_lists,
    "logprob_token_ids": odd_lists,
    "bad_words": st.lists(st.text(max_size=5) | odd_ids, max_size=3) | odd_ids,
    "logit_bias": st.dictionaries(st.text(max_size=3) | odd_ids.map(str), st.integers() | odd_ids, max_size=3)
    | odd_lists,
    "truncate_prompt_tokens": odd_ids,
    "return_token_ids": odd_ids,
    "return_tokens_as_token_ids": odd_ids,
    "logprobs": odd_ids,
    "top_logprobs": odd_ids,
    "prompt_logprobs": odd_ids,
    "max_tokens": odd_ids,
    "max_completion_tokens": odd_ids,
    "min_tokens": odd_ids,
    "n": odd_ids,
    "echo": odd_ids,
    "stream": st.booleans(),
    "stream_options": st.just({"include_usage": True}) | json_values,
    "stop": st.text(max_size=3) | odd_lists,
    "include_stop_str_in_output": odd_ids,
}
WORK: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    CHAT: {"messages": conversations},
    BATCH: {"messages": st.lists(conversations, min_size=1, max_size=2)},
    COMPLETIONS: {"prompt": st.text(min_size=1, max_size=5) | odd_lists | st.lists(odd_lists, max_size=2)},
    INVOCATIONS: {"prompt": st.text(min_size=1, max_size=5) | odd_lists},
}


@examples(300)
@given(path=st.sampled_from(sorted(WORK)), model=st.sampled_from(MODELS), data=st.data())
@of_module
async def test_any_token_options_get_a_response(
    server: httpx.AsyncClient, path: str, model: str, data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(TOKEN_FIELDS)), unique=True, max_size=4))
    body = data.draw(st.fixed_dictionaries(WORK[path] | {name: TOKEN_FIELDS[name] for name in names}))

    check_is_answered(await answer_to(body | {"model": model}, server, path))


TEMPLATE_OPTIONS = ("add_generation_prompt", "continue_final_message", "add_special_tokens", "return_token_strs")
tokenizations = st.fixed_dictionaries(
    {"prompt": st.text()}, optional={"return_token_strs": st.booleans()}
) | st.fixed_dictionaries(
    {"messages": conversations},
    optional={
        "tools": tools,
        "chat_template_kwargs": st.just({"a": 1}),
        **dict.fromkeys(TEMPLATE_OPTIONS, st.booleans()),
    },
)


@examples(300)
@given(body=spoiled(tokenizations), model=st.sampled_from(MODELS))
@of_module
async def test_any_tokenize_request_gets_a_response(server: httpx.AsyncClient, body: JSONObject, model: str) -> None:
    check_is_answered(await answer_to({"model": model} | body, server, TOKENIZE))


@examples(150)
@given(tokens=odd_lists)
@of_module
async def test_any_detokenize_request_gets_a_response(server: httpx.AsyncClient, tokens: object) -> None:
    check_is_answered(await answer_to({"tokens": tokens}, server, DETOKENIZE))


content_types = st.sampled_from([b"application/json", b"Application/JSON; charset=latin-1", b"text/plain", b""])
any_content_type = content_types | st.from_regex(
    rb"[!-~\x80-\xff]([ -~\x80-\xff]{0,20}[!-~\x80-\xff])?", fullmatch=True
)


@st.composite
def broken_texts(draw: st.DrawFn) -> bytes:
    """A valid body with foreign bytes in the middle."""
    text = json.dumps(draw(bodies)).encode()
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.binary(max_size=3)) + text[at + draw(st.integers(0, 3)) :]


@examples(100)
@given(body=st.binary() | broken_texts(), content_type=any_content_type)
@of_module
async def test_any_bytes_get_a_response(server: httpx.AsyncClient, body: bytes, content_type: bytes) -> None:
    check_is_answered(await server.post(CHAT, content=body, headers={b"content-type": content_type}))


def nested(depth: int) -> bytes:
    return b'{"properties":[' * depth + b"1" + b"]}" * depth


def hello(fields: bytes) -> bytes:
    return b'{"messages":[{"role":"user","content":"hi"}],' + fields + b"}"


EXTREMES = {
    "a function call as a text": b'{"messages":[{"role":"assistant","function_call":"f"}],"return_token_ids":true}',
    "a function call as a list": b'{"messages":[{"role":"assistant","function_call":[[]]}],"return_token_ids":true}',
    "audio as a number": b'{"messages":[{"role":"assistant","audio":5}],"return_token_ids":true}',
    "numbers that JSON lacks": hello(b'"temperature":NaN,"top_p":Infinity,"logit_bias":{"1":-Infinity}'),
    "half an array, deep": b"[" * 100_000,
    "an object, deep": nested(5000),
    "an object, not too deep to be read": nested(400),
    "an unknown key, deep": hello(b'"x":' + nested(400)),
    "a content part, deep": b'{"messages":[{"role":"user","content":[' + nested(400) + b"]}]}",
    "arguments, deep": b'{"messages":[{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f","arguments":'
    + nested(400)
    + b"}}]}]}",
    "a tool's parameters, deep": hello(b'"tools":[{"function":{"name":"f","parameters":' + nested(400) + b"}}]"),
    "a response format, deep": hello(
        b'"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":' + nested(400) + b"}}"
    ),
    "a schema, deep": hello(b'"structured_outputs":{"json":' + nested(400) + b"}"),
    "a schema in a string, deep": hello(
        b'"structured_outputs":{"json":' + json.dumps(nested(5000).decode()).encode() + b"}"
    ),
    "a schema that requires a list": hello(b'"structured_outputs":{"json":{"type":"object","required":[[]]}}'),
    "parameters that require a list": hello(
        b'"tools":[{"function":{"name":"f","strict":true,"parameters":'
        b'{"type":"object","properties":{},"required":[[]],"additionalProperties":false}}}]'
    ),
    "a number of 4000 digits": hello(b'"n":' + b"9" * 4000),
    "a number of 5000 digits": hello(b'"n":' + b"9" * 5000),
    "a bias of 4000 digits": hello(b'"logit_bias":{"1":' + b"9" * 4000 + b"}"),
    "a biased token of 5000 digits": hello(b'"logit_bias":{"' + b"9" * 5000 + b'":1}'),
    "a number beyond all floats": hello(b'"temperature":1e999'),
    "lone surrogates": b'{"messages":[{"role":"user","content":"\\ud800"}]}',
    "a lone surrogate as the request's id": hello(b'"request_id":"\\udfff"'),
    "a lone surrogate as the session's id": hello(b'"session_id":"\\udfff"'),
    "a lone surrogate as the model": hello(b'"model":"\\udfff"'),
    "a lone surrogate as a key": hello(b'"\\udfff":1'),
    "a byte order mark": b"\xef\xbb\xbf" + hello(b'"n":1'),
    "UTF-16": hello(b'"n":1').decode().encode("utf-16"),
    "bad UTF-8": hello(b'"user":"\xff"'),
    "a key twice": hello(b'"n":1,"n":{}'),
    "NUL": hello(b'"request_id":"\\u0000\\r\\nX-Y: 1","user":"\\u0000"'),
}


AS = {
    CHAT: b'"messages":[{',
    BATCH: b'"messages":[[{',
    COMPLETIONS: b'"prompt":"a","x":[{',
    INVOCATIONS: b'"messages":[{',
    TOKENIZE: b'"messages":[{',
    DETOKENIZE: b'"tokens":[1],"x":[{',
}
"""Each path's main field, in place of a chat's messages."""


def sent_to(path: str, body: bytes) -> bytes:
    body = body.replace(AS[CHAT], AS[path])
    return body.replace(b"}]", b"}]]", 1) if path == BATCH else body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", EXTREMES.values(), ids=list(EXTREMES))
@of_module
async def test_an_extreme_body_gets_a_response(server: httpx.AsyncClient, body: bytes, path: str) -> None:
    content = sent_to(path, body)
    check_is_answered(await server.post(path, content=content, headers={"content-type": "application/json"}))
