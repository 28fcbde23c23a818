"""Reasoning effort by operator and client, and the tokens reserved for it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.core.tokenization import encoding
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.openai_schema import violations
from tests.serving import served_over

USUAL: dict[str, Any] = {"temperature": 0, "max_tokens": 64, "stop": ["\n\n"], "logprobs": True, "top_logprobs": 2}
OFF = {"enable_thinking": False}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@dataclass
class Served:
    """A server with one model, and the bodies that it sends to OpenAI."""

    client: httpx.AsyncClient
    openai: Simulator

    async def ask(self, text: str = "Hi", **members: Any) -> httpx.Response:
        messages = [{"role": "user", "content": text}]
        response = await self.client.post(CHAT, json={"messages": messages, **members})
        assert response.status_code == 200, response.text
        return response

    def last_body(self) -> dict[str, Any]:
        body: dict[str, Any] = self.openai.traffic.exchanges[-1].body
        return body


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(simulator: Simulator) -> Serve:
    @asynccontextmanager
    async def serving(model: str = "gpt-6-luna", **settings: Any) -> AsyncIterator[Served]:
        async with (
            served_over(simulator.base_url, default_model=model, **settings) as url,
            httpx.AsyncClient(base_url=url, timeout=10) as client,
        ):
            yield Served(client, simulator)
        assert violations(simulator.traffic.exchanges) == []

    return serving


async def test_without_thinking_a_usual_request_is_that_of_gpt_4o_mini(serve: Serve) -> None:
    async with serve(default_chat_template_kwargs=OFF) as served:
        response = await served.ask(**USUAL)
        body = served.last_body()

    choice = response.json()["choices"][0]
    assert choice["message"]["content"]
    assert choice["logprobs"]["content"]
    assert "x-ignored-params" not in response.headers
    assert "x-adjusted-params" not in response.headers
    assert (body["reasoning_effort"], body["temperature"], body["max_completion_tokens"]) == ("none", 0, 64)


async def test_without_thinking_the_default_temperature_is_sent(serve: Serve) -> None:
    async with serve(default_chat_template_kwargs=OFF) as served:
        await served.ask()
        assert served.last_body()["temperature"] == 0.7


@pytest.mark.parametrize(
    ("model", "default", "asked", "sent"),
    [
        pytest.param("gpt-6-luna", {}, {}, None, id="nobody says a thing"),
        pytest.param("gpt-6-luna", {"reasoning_effort": "low"}, {}, "low", id="the operator"),
        pytest.param("gpt-6-astra", OFF, {}, "low", id="the operator, of a model that always reasons"),
        pytest.param("gpt-4o", OFF, {}, None, id="the operator, of a model that never does"),
        pytest.param("gpt-6-luna", OFF, {"reasoning_effort": "high"}, "high", id="the client, by the effort"),
        pytest.param(
            "gpt-6-luna",
            OFF,
            {"chat_template_kwargs": {"reasoning_effort": "high"}},
            "high",
            id="the client, in kwargs",
        ),
        pytest.param(
            "gpt-6-luna",
            {"reasoning_effort": "high"},
            {"chat_template_kwargs": OFF},
            "none",
            id="the client turns it off",
        ),
        pytest.param(
            "gpt-6-luna",
            {"reasoning_effort": "high"},
            {"thinking_token_budget": 0},
            "none",
            id="the client has no budget",
        ),
        pytest.param(
            "gpt-6-luna", OFF, {"chat_template_kwargs": {"enable_thinking": True}}, None, id="the client turns it on"
        ),
        pytest.param(
            "gpt-5.2",
            OFF,
            {"chat_template_kwargs": {"enable_thinking": True}},
            "medium",
            id="on where it is off by default",
        ),
        pytest.param(
            "gpt-6-luna",
            {"reasoning_effort": "none"},
            {"chat_template_kwargs": {"enable_thinking": True}},
            None,
            id="the client turns on what the operator named none",
        ),
        pytest.param(
            "gpt-6-luna",
            {"reasoning_effort": "low"},
            {"chat_template_kwargs": {"enable_thinking": True}},
            "low",
            id="the client turns it on, the operator says how far",
        ),
        pytest.param(
            "gpt-6-luna", OFF, {"chat_template_kwargs": {"other": 1}}, "none", id="the client speaks of something else"
        ),
        pytest.param("gpt-6-luna", {"reasoning_effort": "high"}, {"tools": [TOOL]}, "none", id="beside tools"),
    ],
)
async def test_the_clients_setting_wins_over_the_operators(
    model: str, default: dict[str, Any], asked: dict[str, Any], sent: str | None, serve: Serve
) -> None:
    async with serve(model, default_chat_template_kwargs=default) as served:
        await served.ask(**asked)
        assert served.last_body().get("reasoning_effort") == sent


@pytest.mark.parametrize(
    ("asked", "sent", "adjusted"),
    [
        ({"reasoning_effort": "medium"}, "low", "reasoning_effort=low"),
        ({"chat_template_kwargs": {"reasoning_effort": "medium"}}, "low", "chat_template_kwargs=low"),
        ({"reasoning_effort": "high"}, "high", None),
        ({}, None, None),
    ],
    ids=["mapped", "in kwargs", "another effort", "none asked"],
)
async def test_a_requested_effort_is_mapped_and_reported(
    asked: dict[str, Any], sent: str | None, adjusted: str | None, serve: Serve
) -> None:
    async with serve(reasoning_effort_map={"medium": "low"}) as served:
        response = await served.ask(**asked)
        assert served.last_body().get("reasoning_effort") == sent
    assert response.headers.get("x-adjusted-params") == adjusted


def texts(response: httpx.Response) -> tuple[dict[int, str], dict[int, str]]:
    """The text and finish reason of each choice of a response or stream."""
    if response.headers["content-type"] == "application/json":
        choices = response.json()["choices"]
        return (
            {choice["index"]: choice["message"]["content"] for choice in choices},
            {choice["index"]: choice["finish_reason"] for choice in choices},
        )
    events = [json.loads(event[6:]) for event in response.text.split("\n\n") if event.startswith("data: {")]
    shown: dict[int, str] = {}
    reasons: dict[int, str] = {}
    for choice in (choice for event in events for choice in event["choices"]):
        assert choice["index"] not in reasons, "a choice goes on after its end"
        shown[choice["index"]] = shown.get(choice["index"], "") + (choice["delta"].get("content") or "")
        if choice["finish_reason"]:
            reasons[choice["index"]] = choice["finish_reason"]
    return shown, reasons


def length(text: str) -> int:
    return len(encoding("o200k_base").encode(text))


STREAMS = {
    "whole": {},
    "stream": {"stream": True},
    "stream with usage": {"stream": True, "stream_options": {"include_usage": True}},
}
every_stream = pytest.mark.parametrize("stream", STREAMS.values(), ids=list(STREAMS))


@every_stream
@pytest.mark.parametrize("n", [1, 2])
async def test_reserved_tokens_are_added_and_the_text_is_cut_at_the_limit(
    stream: dict[str, Any], n: int, serve: Serve
) -> None:
    async with serve(reasoning_reserve_tokens=100) as served:
        response = await served.ask("Go on. [sim tokens=60]", max_tokens=16, n=n, **stream)
        assert served.last_body()["max_completion_tokens"] == 116

    shown, reasons = texts(response)
    assert response.headers["x-adjusted-params"] == "max_tokens=116"
    assert {index: length(text) for index, text in shown.items()} == dict.fromkeys(range(n), 16)
    assert reasons == dict.fromkeys(range(n), "length")


@every_stream
@pytest.mark.parametrize(
    ("members", "finish"), [({"max_tokens": 16}, "stop"), ({"max_tokens": 15}, "length")], ids=["fits", "one too many"]
)
async def test_a_text_below_the_limit_is_not_cut(
    stream: dict[str, Any], members: dict[str, Any], finish: str, serve: Serve
) -> None:
    async with serve(reasoning_reserve_tokens=100) as served:
        response = await served.ask("Go on. [sim tokens=16]", **members, **stream)

    shown, reasons = texts(response)
    assert length(shown[0]) == members["max_tokens"]
    assert reasons == {0: finish}


@every_stream
async def test_a_stop_string_before_the_limit_ends_the_text(stream: dict[str, Any], serve: Serve) -> None:
    async with serve(reasoning_reserve_tokens=100) as served:
        whole, _ = texts(await served.ask("Go on. [sim tokens=60]", max_completion_tokens=16))
        word = whole[0].split()[3]
        shown, reasons = texts(await served.ask("Go on. [sim tokens=60]", max_tokens=16, stop=word, **stream))

    assert shown[0] == whole[0].partition(word)[0]
    assert reasons == {0: "stop"}


@pytest.mark.parametrize(
    ("model", "members"),
    [
        ("gpt-6-luna", {"reasoning_effort": "none"}),
        ("gpt-5.2", {}),
        ("gpt-4o-mini", {}),
    ],
)
async def test_a_model_without_reasoning_gets_no_reserved_tokens(
    model: str, members: dict[str, Any], serve: Serve
) -> None:
    async with serve(model, reasoning_reserve_tokens=100) as served:
        response = await served.ask(max_tokens=64, **members)
        assert served.last_body()["max_completion_tokens"] == 64
    assert "x-adjusted-params" not in response.headers


async def test_reserved_tokens_stay_within_the_models_limit(serve: Serve) -> None:
    async with serve(reasoning_reserve_tokens=100_000) as served:
        response = await served.ask(max_tokens=100_000)
        assert served.last_body()["max_completion_tokens"] == 128_000
    assert response.headers["x-adjusted-params"] == "max_tokens=128000"


async def test_without_a_requested_limit_none_is_sent(serve: Serve) -> None:
    async with serve(reasoning_reserve_tokens=100) as served:
        await served.ask()
        assert "max_completion_tokens" not in served.last_body()


async def test_a_response_used_up_by_reasoning_is_reported(serve: Serve) -> None:
    async with serve() as served:
        empty = await served.ask(max_tokens=48)
        written = await served.ask(max_tokens=48, reasoning_effort="none")

    assert empty.json()["choices"][0]["finish_reason"] == "length"
    assert not empty.json()["choices"][0]["message"]["content"]
    assert empty.headers["x-empty-response"] == "reasoning used all 48 tokens"
    assert "x-empty-response" not in written.headers
