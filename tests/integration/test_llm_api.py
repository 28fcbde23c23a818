"""The official openai SDK as a client of the server, over the simulator."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import httpx2
import openai
import pytest
from pydantic import BaseModel

from app.simulator.server import Simulator
from tests.conftest import CHAT

MESSAGES: Any = [{"role": "user", "content": "Say hello"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
async def sdk(server_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with httpx2.AsyncClient() as http:
        yield openai.AsyncOpenAI(api_key="EMPTY", base_url=f"{server_url}/v1", http_client=http, max_retries=0)


async def test_chat(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)

    assert answer.object == "chat.completion"
    assert answer.model == "gpt-4o-mini"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_a_stream_with_usage(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="gpt-4o-mini", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    *content, usage = chunks
    assert len(content) >= 5
    assert content[-1].choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in content)


async def test_a_stream_without_usage_has_none(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)

    chunks = [chunk async for chunk in stream]
    assert chunks
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_a_tool_is_called_and_its_result_accepted(sdk: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Weather in Seoul?"}]
    answer = await sdk.chat.completions.create(
        model="gpt-4o-mini", messages=messages, tools=[WEATHER], tool_choice="required"
    )
    message: Any = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls
    call: Any = message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)

    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "Sunny"}
    again = await sdk.chat.completions.create(
        model="gpt-4o-mini", messages=[*messages, message.model_dump(), result], tools=[WEATHER]
    )
    assert again.choices[0].message.content


async def test_a_streamed_tool_call_is_complete(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="gpt-4o-mini", messages=MESSAGES, tools=[WEATHER], tool_choice="required", stream=True
    )
    deltas = [chunk.choices[0].delta async for chunk in stream]
    calls = [call for delta in deltas for call in delta.tool_calls or []]

    assert [call.function.name for call in calls if call.function and call.function.name] == ["get_weather"]
    assert "city" in json.loads("".join(call.function.arguments or "" for call in calls if call.function))


async def test_two_choices(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, n=2)
    stream = await sdk.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, n=2, stream=True)
    texts = ["", ""]
    async for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""

    assert [choice.index for choice in answer.choices] == [0, 1]
    assert [choice.message.content for choice in answer.choices] == texts


async def test_log_probabilities(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs

    assert logprobs is not None
    assert logprobs.content
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in logprobs.content)


class Person(BaseModel):
    name: str
    age: int


async def test_a_json_schema_is_kept(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.parse(model="gpt-4o-mini", messages=MESSAGES, response_format=Person)

    assert isinstance(answer.choices[0].message.parsed, Person)


async def test_json_mode_does_not_need_the_word_json(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(
        model="gpt-4o-mini", messages=MESSAGES, response_format={"type": "json_object"}
    )

    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


async def test_an_image_is_accepted(sdk: openai.AsyncOpenAI, simulator: Simulator) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
    await sdk.chat.completions.create(model="gpt-4o-mini", messages=messages)

    body: Any = simulator.traffic.exchanges[0].body
    assert body["messages"][0]["content"][1] == image


async def test_vllms_own_fields_pass_as_extra_body(sdk: openai.AsyncOpenAI) -> None:
    raw = await sdk.chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=MESSAGES, extra_body={"top_k": 20, "repetition_penalty": 1.05}
    )

    assert raw.parse().choices[0].message.content
    assert raw.headers["x-ignored-params"] == "top_k,repetition_penalty"


async def test_the_models_are_listed(sdk: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in sdk.models.list()] == ["gpt-4o-mini"]


@pytest.mark.parametrize(
    ("fields", "exception_class", "param"),
    [
        ({"model": "nope"}, openai.BadRequestError, "model"),
        ({"temperature": 2.5}, openai.BadRequestError, "temperature"),
        ({"messages": []}, openai.BadRequestError, "messages"),
    ],
)
async def test_bad_input_is_the_sdks_bad_request(
    sdk: openai.AsyncOpenAI, fields: Any, exception_class: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(exception_class) as caught:
        await sdk.chat.completions.create(**{"model": "gpt-4o-mini", "messages": MESSAGES, **fields})

    assert caught.value.param == param


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "exception_class", "headers"),
    [
        ("rate_limit retry_after=7", openai.RateLimitError, {"retry-after": "7"}),
        ("quota", openai.RateLimitError, {"x-should-retry": "false"}),
        ("server_error", openai.InternalServerError, {}),
        ("bad_gateway", openai.InternalServerError, {}),
        ("overloaded", openai.InternalServerError, {}),
        ("status status=401", openai.InternalServerError, {"x-should-retry": "false"}),
        ("reset", openai.InternalServerError, {}),
    ],
)
async def test_openais_failures_are_the_sdks_exceptions(
    sdk: openai.AsyncOpenAI, fault: str, exception_class: type[openai.APIStatusError], headers: Any, stream: bool
) -> None:
    messages: Any = [{"role": "user", "content": f"[sim fault={fault}]"}]
    with pytest.raises(exception_class) as caught:
        await sdk.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=stream)

    assert headers.items() <= dict(caught.value.response.headers).items()
    assert not any(secret in caught.value.response.text for secret in ("sk-", "org-", "proj_"))


@pytest.mark.parametrize("fault", ["cut", "early_end", "no_done", "error_event", "bad_event"])
async def test_a_broken_stream_is_an_error(sdk: openai.AsyncOpenAI, fault: str) -> None:
    messages: Any = [{"role": "user", "content": f"[sim fault={fault}]"}]
    stream = await sdk.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True)

    chunks = []
    with pytest.raises(openai.APIError):
        async for chunk in stream:
            chunks.append(chunk)
    assert chunks


async def test_concurrent_requests_all_succeed(sdk: openai.AsyncOpenAI) -> None:
    calls = (
        sdk.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": f"Count to {number}"}])
        for number in range(50)
    )
    answers = await asyncio.gather(*calls)

    assert len({answer.id for answer in answers}) == 50


LEAVING = [
    pytest.param({}, "[sim fault=slow seconds=600]", id="whole answer"),
    pytest.param({"stream": True}, "[sim fault=slow seconds=600]", id="stream, before its headers"),
    pytest.param({"stream": True}, "[sim ttft=600]", id="stream, before its first event"),
    pytest.param({"stream": True}, "[sim fault=stall seconds=600 after=2]", id="stream, in the middle"),
]


@pytest.mark.parametrize(("fields", "text"), LEAVING)
async def test_a_disconnect_stops_the_call_to_openai(
    server_url: str, simulator: Simulator, fields: dict[str, Any], text: str
) -> None:
    body = {"messages": [{"role": "user", "content": text}], **fields}

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=server_url) as client, client.stream("POST", CHAT, json=body) as response:
            await response.aread()

    asking = asyncio.create_task(ask())
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 1)
    asking.cancel()

    await simulator.traffic.wait_for(lambda traffic: traffic.abandoned == 1 and traffic.live == 0)
    with pytest.raises(asyncio.CancelledError):
        await asking
