"""Whatever is sent, the answer is one that vLLM could have given; and what vLLM accepts, OpenAI is asked properly."""

import json
import math
from collections.abc import AsyncIterator, Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from app.features.llm.schema import ChatCompletionRequest
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import served_over

JSONObject = dict[str, Any]
Strategy = st.SearchStrategy[Any]

of_module = pytest.mark.asyncio(loop_scope="module")

MODELS = ["gpt-4o-mini", "o3", "gpt-5-mini", "gpt-5.4"]
OPENAI_KEYS = CompletionCreateParamsStreaming.__required_keys__ | CompletionCreateParamsStreaming.__optional_keys__
UPSTREAMS_WORDS = ("Unrecognized request argument", "Unknown parameter", "Invalid type")


def examples(count: int) -> settings:
    """As many examples as a file of a minute allows; how long each takes is not the question."""
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


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


async def answer_to(body: object, server: httpx.AsyncClient) -> httpx.Response:
    return await server.post(CHAT, content=json.dumps(body), headers={"content-type": "application/json"})


def events_of(response: httpx.Response) -> list[Any]:
    if not response.headers["content-type"].startswith("text/event-stream"):
        return []
    *events, end = [line.removeprefix("data: ") for line in response.text.split("\n") if line]
    assert end == "[DONE]"
    return [json.loads(event) for event in events]


# --- what vLLM accepts ------------------------------------------------------------------------------------------------

texts = st.text(max_size=20)
words = st.text(min_size=1, max_size=20)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
token_ids = st.integers(0, 199_997)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=10),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=10), values, max_size=4),
    max_leaves=8,
)
objects = st.dictionaries(words, json_values, max_size=3)
booleans = st.sampled_from([True, False, "true", "false", 1, 0])


def or_null(values: Strategy) -> Strategy:
    return st.none() | values


def numbers(least: float, most: float) -> Strategy:
    """Numbers, and what pydantic takes for numbers."""
    found = st.floats(least, most) | st.integers(math.ceil(least), math.floor(most))
    return found | found.map(str)


def integers(least: int, most: int) -> Strategy:
    found = st.integers(least, most)
    return found | found.map(str) | st.integers(max(least, -1000), min(most, 1000)).map(float)


def optionally(required: dict[str, Strategy], **optional: Strategy) -> st.SearchStrategy[JSONObject]:
    return st.fixed_dictionaries(required, optional=optional)


STRICT = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
LOOSE = {
    "type": "object",
    "title": "Weather",
    "$defs": {"place": {"type": "string", "minLength": 1}},
    "properties": {"city": {"$ref": "#/$defs/place"}, "days": {"type": "integer", "default": 1}},
    "required": ["city"],
}
SCHEMAS = [STRICT, LOOSE, {"type": "array", "items": LOOSE["$defs"]}, {"anyOf": [STRICT, {"type": "null"}]}, {}]

IMAGE = "data:image/png;base64,iVBORw0KGgo="
text_parts = st.sampled_from(["text", "input_text", "output_text"]).flatmap(
    lambda kind: optionally({"type": st.just(kind), "text": texts}, uuid=words)
)
images = st.sampled_from(
    [
        {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}, "uuid": "1"},
        {"type": "image_url", "image_url": IMAGE},
        {"image_url": {"url": IMAGE}},
        {"image_url": "https://example.com/a.png"},
    ]
)
text_content = texts | st.lists(text_parts | texts, min_size=1, max_size=3)
foreign = {"reasoning": texts, "reasoning_content": texts, "task": texts, "mood": json_values}


def spoken(role: str, content: Strategy, **optional: Strategy) -> st.SearchStrategy[list[JSONObject]]:
    return st.tuples(optionally({"role": st.just(role), "content": content}, **optional, **foreign)).map(list)


def called(arguments: object, result: object) -> list[JSONObject]:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": result, "name": "get_weather"},
    ]


turns = st.one_of(
    spoken("system", text_content, name=names),
    spoken("developer", text_content, tools=st.just([])),
    spoken("user", texts | st.lists(text_parts | texts | images, min_size=1, max_size=4), name=names),
    spoken("assistant", text_content, name=names, tool_calls=st.just([]), refusal=st.none()),
    spoken("critic", text_content, name=names),
    st.builds(called, st.just('{"city": "서울"}') | st.fixed_dictionaries({"city": texts}), text_content),
)
conversations = st.lists(turns, min_size=1, max_size=4).map(lambda parts: [said for part in parts for said in part])

functions = optionally(
    {"name": names},
    description=or_null(texts),
    parameters=or_null(st.sampled_from([STRICT, LOOSE])),
    strict=st.none() | st.just(False),
    defer_loading=st.booleans(),
    returns=json_values,
)
tools = st.lists(optionally({"function": functions}, type=st.just("function"), defer_loading=st.booleans()), min_size=1)
response_formats = st.one_of(
    st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
    st.builds(
        lambda form: {"type": "json_schema", "json_schema": form},
        optionally({"name": words}, description=texts, schema=st.sampled_from(SCHEMAS), strict=st.none()),
    ),
    st.just({"type": "structural_tag", "format": {"type": "any_text"}}),
)
constraints = st.one_of(
    st.builds(lambda schema: {"json": schema}, st.sampled_from(SCHEMAS)),
    st.builds(lambda schema: {"json": json.dumps(schema)}, st.sampled_from(SCHEMAS)),
    st.builds(lambda choices: {"choice": choices}, st.lists(words, min_size=1, max_size=5)),
    st.sampled_from([{"regex": "[a-c]{3}"}, {"regex": r"\d+ €", "whitespace_pattern": " "}, {"json_object": True}]),
    st.sampled_from([{"grammar": 'root ::= "a"'}, {"structural_tag": '{"type": "any_text"}'}]),
)

FIELDS: dict[str, Strategy] = {
    "messages": conversations,
    "model": st.sampled_from([*MODELS, None, ""]),
    "frequency_penalty": or_null(numbers(-2, 2)),
    "logit_bias": or_null(st.dictionaries(token_ids.map(str), numbers(-100, 100), max_size=5)),
    "logprobs": or_null(booleans),
    "top_logprobs": or_null(st.integers(0, 20)),
    "max_tokens": or_null(integers(20, 128_000)),
    "max_completion_tokens": or_null(integers(20, 128_000)),
    "n": or_null(integers(1, 3)),
    "presence_penalty": or_null(numbers(-2, 2)),
    "response_format": or_null(response_formats),
    "seed": or_null(integers(-(2**63), 2**63 - 1)),
    "stop": or_null(words | st.lists(words, max_size=4)),
    "stream": or_null(booleans),
    "stream_options": or_null(optionally({}, include_usage=booleans, continuous_usage_stats=booleans, other=texts)),
    "temperature": or_null(numbers(0.01, 2)),
    "top_p": or_null(numbers(0.01, 1)),
    "tools": or_null(tools),
    "tool_choice": or_null(st.sampled_from(["none", "auto", "required"])),
    "reasoning_effort": or_null(st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh", "max"])),
    "thinking_token_budget": or_null(st.integers(-1, 1000)),
    "include_reasoning": booleans,
    "parallel_tool_calls": or_null(booleans),
    "user": or_null(texts),
    "use_beam_search": booleans,
    "top_k": or_null(integers(-1, 100)),
    "min_p": or_null(numbers(0, 1)),
    "repetition_penalty": or_null(numbers(0.1, 2)),
    "watermarking": or_null(booleans),
    "length_penalty": numbers(-2, 2),
    "stop_token_ids": or_null(st.lists(token_ids, max_size=3)),
    "include_stop_str_in_output": booleans,
    "ignore_eos": booleans,
    "min_tokens": integers(0, 20),
    "skip_special_tokens": booleans,
    "spaces_between_special_tokens": booleans,
    "truncate_prompt_tokens": or_null(integers(-1, 1000)),
    "truncation_side": or_null(st.sampled_from(["left", "right"])),
    "prompt_logprobs": or_null(st.integers(-1, 20)),
    "logprob_token_ids": or_null(st.lists(token_ids, max_size=3)),
    "allowed_token_ids": or_null(st.lists(token_ids, min_size=1, max_size=3)),
    "bad_words": st.lists(words, max_size=3),
    "echo": booleans,
    "add_generation_prompt": booleans,
    "continue_final_message": booleans,
    "add_special_tokens": booleans,
    "documents": or_null(st.lists(st.dictionaries(texts, texts, max_size=2), max_size=2)),
    "chat_template": or_null(texts),
    "chat_template_kwargs": or_null(objects | optionally({}, enable_thinking=st.booleans(), thinking=st.booleans())),
    "media_io_kwargs": or_null(st.dictionaries(texts, objects, max_size=2)),
    "mm_processor_kwargs": or_null(objects),
    "structured_outputs": or_null(constraints),
    "priority": integers(-(2**63), 2**63 - 1),
    "request_id": texts,
    "session_id": or_null(texts),
    "return_tokens_as_token_ids": or_null(booleans),
    "return_token_ids": or_null(booleans),
    "routed_experts_prompt_start": integers(0, 100),
    "return_token_offsets": or_null(booleans),
    "return_prompt_text": or_null(booleans),
    "mm_payload": st.sampled_from(["tensors", "none"]),
    "return_mm_kwargs": or_null(booleans),
    "cache_salt": or_null(st.text(st.characters(exclude_characters="@/\\\0", codec="utf-8"), min_size=1, max_size=128)),
    "kv_transfer_params": or_null(objects),
    "ec_transfer_params": or_null(objects),
    "vllm_xargs": or_null(st.dictionaries(texts, texts | st.integers(0, 9) | st.lists(texts, max_size=2), max_size=3)),
    "repetition_detection": or_null(st.just({"max_pattern_size": 4, "min_pattern_size": 1, "min_count": 2})),
    "stream_interval": or_null(integers(1, 100)),
}

# What vLLM wants beside a field, and what it does not take together: the first gives way.
COMPANIONS: dict[str, JSONObject] = {
    "stream_options": {"stream": True},
    "top_logprobs": {"logprobs": True},
    "logprob_token_ids": {"logprobs": True},
    "tool_choice": {"tools": [{"type": "function", "function": {"name": "get_weather"}}]},
    "continue_final_message": {"add_generation_prompt": False},
}
RIVALS = [
    ("prompt_logprobs", "stream"),
    ("structured_outputs", "response_format"),
    ("logprob_token_ids", "use_beam_search"),
    ("stream_options", "use_beam_search"),
]

# OpenAI's own fields, and what vLLM had in former versions: to vLLM these are unknown keys like any other.
STRANGE_KEYS = [
    *("store", "metadata", "service_tier", "modalities", "audio", "prediction", "functions", "function_call"),
    *("verbosity", "safety_identifier", "prompt_cache_key", "web_search_options", "best_of"),
    *("guided_json", "guided_choice", "guided_regex", "guided_grammar"),
]
strange = st.dictionaries(st.sampled_from(STRANGE_KEYS) | words.map("x-{}".format), json_values, max_size=3)


def accepted(fields: JSONObject) -> JSONObject:
    """The fields as a body that vLLM accepts."""
    body = dict(fields)
    for name in fields.keys() & COMPANIONS.keys():
        body |= COMPANIONS[name]
    for name, rival in RIVALS:
        if rival in body:
            body.pop(name, None)
    return body


# A body with many fields is likely to have one that is refused; half of them have none of these.
OFTEN_REFUSED = {
    *("use_beam_search", "stop_token_ids", "truncate_prompt_tokens", "prompt_logprobs", "logprob_token_ids"),
    *("allowed_token_ids", "bad_words", "echo", "continue_final_message", "chat_template", "media_io_kwargs"),
    *("mm_processor_kwargs", "return_tokens_as_token_ids", "return_token_ids", "kv_transfer_params"),
    *("ec_transfer_params", "messages", "model"),
}


def subsets(optional: dict[str, Strategy]) -> st.SearchStrategy[JSONObject]:
    chosen = st.lists(st.sampled_from(sorted(optional)), unique=True, max_size=12)
    always = {"messages": conversations, "stream": st.booleans()}
    drawn = chosen.flatmap(lambda keys: st.fixed_dictionaries(always | {key: optional[key] for key in keys}))
    return st.builds(lambda fields, more: accepted(more | fields), drawn, strange)


bodies = subsets({name: values for name, values in FIELDS.items() if name not in OFTEN_REFUSED}) | subsets(FIELDS)


async def check_is_served_or_refused_by_us(body: JSONObject, server: httpx.AsyncClient, openai: Simulator) -> None:
    openai.traffic.exchanges.clear()
    response = await answer_to(body, server)

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
@examples(6)
@given(data=st.data())
@of_module
async def test_each_field_is_served_or_refused_by_its_name(
    name: str, server: httpx.AsyncClient, openai: Simulator, data: st.DataObject
) -> None:
    fields = {"messages": [{"role": "user", "content": "hi"}], name: data.draw(FIELDS[name])}

    await check_is_served_or_refused_by_us(accepted(fields), server, openai)


@examples(100)
@given(keys=strange)
@of_module
async def test_keys_that_vllm_does_not_know_are_no_trouble(
    server: httpx.AsyncClient, openai: Simulator, keys: JSONObject
) -> None:
    await check_is_served_or_refused_by_us({"messages": [{"role": "user", "content": "hi"}], **keys}, server, openai)


@pytest.mark.parametrize("model", MODELS)
@examples(150)
@given(body=bodies)
@of_module
async def test_what_vllm_accepts_is_served_or_refused_by_its_name(
    model: str, server: httpx.AsyncClient, openai: Simulator, body: JSONObject
) -> None:
    await check_is_served_or_refused_by_us(body | {"model": model}, server, openai)


# --- what nobody accepts ----------------------------------------------------------------------------------------------


def check_is_answered(response: httpx.Response) -> None:
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert {"error", "detail"} & response.json().keys()
    else:
        assert all(event.get("error", {}).get("code", 400) < 500 for event in events_of(response) or [response.json()])


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys or indexes."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])  # type: ignore[index]  # only containers have keys


@st.composite
def spoiled_bodies(draw: st.DrawFn) -> JSONObject:
    """A body that vLLM accepts, but for one value anywhere in it."""
    body = deepcopy(draw(bodies))
    container, key = draw(st.sampled_from(list(places(body))))
    container[key] = draw(json_values)
    return body


@examples(150)
@given(body=json_values)
@of_module
async def test_any_json_is_answered(server: httpx.AsyncClient, body: object) -> None:
    check_is_answered(await answer_to(body, server))


@examples(300)
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
