"""Whatever is sent, the answer is one that vLLM could have given; and what vLLM accepts, OpenAI is asked properly."""

import json
from collections.abc import AsyncIterator
from copy import deepcopy
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
from tests.golden.requests import FIELDS, MODELS, accepted, bodies, completion_bodies, json_values, unknown_keys
from tests.properties import examples, places
from tests.serving import served_over

of_module = pytest.mark.asyncio(loop_scope="module")

COMPLETIONS = "/v1/completions"
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
        httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client,
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
@examples(15)
@given(data=st.data())
@of_module
async def test_each_field_is_served_or_refused_by_its_name(
    name: str, server: httpx.AsyncClient, openai: Simulator, data: st.DataObject
) -> None:
    fields = {"messages": [{"role": "user", "content": "hi"}], name: data.draw(FIELDS[name])}

    await check_is_served_or_refused_by_us(accepted(fields), server, openai)


@examples(100)
@given(keys=unknown_keys)
@example(keys={"guided_json": "0"})
@example(keys={"guided_json": {"": float("inf")}})
@of_module
async def test_keys_that_vllm_does_not_know_are_no_trouble(
    server: httpx.AsyncClient, openai: Simulator, keys: JSONObject
) -> None:
    await check_is_served_or_refused_by_us({"messages": [{"role": "user", "content": "hi"}], **keys}, server, openai)


@pytest.mark.parametrize("model", MODELS)
@examples(300)
@given(body=bodies)
@of_module
async def test_what_vllm_accepts_is_served_or_refused_by_its_name(
    model: str, server: httpx.AsyncClient, openai: Simulator, body: JSONObject
) -> None:
    await check_is_served_or_refused_by_us(body | {"model": model}, server, openai)


@pytest.mark.parametrize("model", MODELS)
@examples(150)
@given(body=completion_bodies(CompletionRequest.model_fields))
@of_module
async def test_a_text_completion_is_served_or_refused_by_its_name(
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


@st.composite
def spoiled_bodies(draw: st.DrawFn) -> JSONObject:
    """A body that vLLM accepts, but for one value anywhere in it."""
    body = deepcopy(draw(bodies))
    container, key = draw(st.sampled_from(list(places(body))))
    container[key] = draw(json_values)
    return body


@examples(150)
@given(body=json_values, path=st.sampled_from([CHAT, COMPLETIONS, "/invocations"]))
@of_module
async def test_any_json_is_answered(server: httpx.AsyncClient, body: object, path: str) -> None:
    check_is_answered(await answer_to(body, server, path))


@st.composite
def spoiled_completions(draw: st.DrawFn) -> JSONObject:
    """The same of a text completion."""
    body = deepcopy(draw(completion_bodies(CompletionRequest.model_fields)))
    container, key = draw(st.sampled_from(list(places(body))))
    container[key] = draw(json_values)
    return body


@examples(300)
@given(body=spoiled_completions())
@of_module
async def test_a_text_completion_that_is_wrong_in_one_place_is_answered(
    server: httpx.AsyncClient, body: JSONObject
) -> None:
    check_is_answered(await answer_to(body, server, COMPLETIONS))


@examples(600)
@given(body=spoiled_bodies())
@of_module
async def test_a_body_that_is_wrong_in_one_place_is_answered(server: httpx.AsyncClient, body: JSONObject) -> None:
    check_is_answered(await answer_to(body, server))


content_types = st.sampled_from([b"application/json", b"Application/JSON; charset=latin-1", b"text/plain", b""])
any_content_type = content_types | st.from_regex(
    rb"[!-~\x80-\xff]([ -~\x80-\xff]{0,20}[!-~\x80-\xff])?", fullmatch=True
)


@st.composite
def broken_texts(draw: st.DrawFn) -> bytes:
    """A body that vLLM accepts, with something in the middle that does not belong there."""
    text = json.dumps(draw(bodies)).encode()
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.binary(max_size=3)) + text[at + draw(st.integers(0, 3)) :]


@examples(150)
@given(body=st.binary() | broken_texts(), content_type=any_content_type)
@of_module
async def test_any_bytes_are_answered(server: httpx.AsyncClient, body: bytes, content_type: bytes) -> None:
    check_is_answered(await server.post(CHAT, content=body, headers={b"content-type": content_type}))


def nested(depth: int) -> bytes:
    return b'{"properties":[' * depth + b"1" + b"]}" * depth


def hello(fields: bytes) -> bytes:
    return b'{"messages":[{"role":"user","content":"hi"}],' + fields + b"}"


EXTREMES = {
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


@pytest.mark.parametrize("body", EXTREMES.values(), ids=list(EXTREMES))
@of_module
async def test_an_extreme_body_is_answered(server: httpx.AsyncClient, body: bytes) -> None:
    check_is_answered(await server.post(CHAT, content=body, headers={"content-type": "application/json"}))
