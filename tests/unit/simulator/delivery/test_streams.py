"""The events of a streamed completion."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from app.simulator.server import Pacing, Simulator

URL = "/chat/completions"
DONE = "[DONE]"


def chat(text: str = "What grows in a garden?", **members: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "stream": True, **members}


async def events(client: httpx.AsyncClient, body: dict[str, Any]) -> list[Any]:
    response = await client.post(URL, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *blocks, rest = response.text.split("\n\n")
    assert rest == ""
    assert all(block.startswith("data: ") for block in blocks)
    assert blocks[-1] == f"data: {DONE}"
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]


async def test_events_have_exactly_the_members_openai_sends(client: httpx.AsyncClient) -> None:
    first, second, *_, last = await events(client, chat())
    envelope = {
        "id": first["id"],
        "object": "chat.completion.chunk",
        "created": first["created"],
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": first["system_fingerprint"],
    }

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return envelope | {
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
            "obfuscation": None,
        }

    assert first | {"obfuscation": None} == chunk({"role": "assistant", "content": "", "refusal": None})
    assert second | {"obfuscation": None} == chunk({"content": '"What'})
    assert last | {"obfuscation": None} == chunk({}, "stop")
    assert all(isinstance(event["obfuscation"], str) for event in (first, second, last))


async def test_streamed_and_whole_responses_agree(client: httpx.AsyncClient) -> None:
    body = chat(logprobs=True, top_logprobs=2, n=3, seed=5)
    whole = (await client.post(URL, json=body | {"stream": False})).json()
    choices: list[dict[str, Any]] = [{"text": "", "entries": []} for _ in range(3)]
    for event in await events(client, body):
        (choice,) = event["choices"]
        choices[choice["index"]]["text"] += choice["delta"].get("content", "")
        choices[choice["index"]]["entries"] += (choice["logprobs"] or {"content": []})["content"]

    for streamed, expected in zip(choices, whole["choices"], strict=True):
        assert streamed["text"] == expected["message"]["content"]
        assert streamed["entries"] == expected["logprobs"]["content"]


async def test_choices_are_interleaved(client: httpx.AsyncClient) -> None:
    indices = [event["choices"][0]["index"] for event in await events(client, chat(n=3))]
    assert indices[:9] == [0, 1, 2] * 3


async def test_usage_comes_last_if_requested(client: httpx.AsyncClient) -> None:
    *others, last = await events(client, chat(stream_options={"include_usage": True}))
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]
    assert all(event["usage"] is None for event in others)


async def test_usage_is_absent_unless_requested(client: httpx.AsyncClient) -> None:
    assert not any("usage" in event for event in await events(client, chat()))


async def test_obfuscation_can_be_turned_off(client: httpx.AsyncClient) -> None:
    received = await events(client, chat(stream_options={"include_obfuscation": False}))
    assert not any("obfuscation" in event for event in received)


async def test_reasoning_models_omit_logprobs(client: httpx.AsyncClient) -> None:
    received = await events(client, chat() | {"model": "gpt-5"})
    assert not any("logprobs" in event["choices"][0] for event in received)
    assert all(event["system_fingerprint"] is None for event in received)


async def test_reasoning_models_return_logprobs_if_requested(client: httpx.AsyncClient) -> None:
    received = await events(client, chat(logprobs=True) | {"model": "gpt-5.1"})
    assert received[1]["choices"][0]["logprobs"]["content"]


async def test_the_headers_do_not_wait_for_the_first_token(client: httpx.AsyncClient, simulator: Simulator) -> None:
    async with asyncio.timeout(60), client.stream("POST", URL, json=chat("[sim ttft=600] Hi")) as response:
        assert response.status_code == 200
        assert simulator.traffic.live == 1


async def test_pacing_separates_tokens(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(60), client.stream("POST", URL, json=chat("[sim itl=600] Hi")) as response:
        received = await anext(response.aiter_text())
    assert received.count("data: ") == 1
    assert '"role":"assistant"' in received


async def test_pacing_is_kept() -> None:
    loop = asyncio.get_running_loop()
    pacing = Pacing(time_to_first_token_s=0.05, time_per_token_s=0.01)
    async with Simulator(pacing=pacing) as simulator, httpx.AsyncClient() as client:
        started = loop.time()
        for body in (chat("[sim tokens=10] Hi"), chat("[sim tokens=10] Hi", stream=False)):
            await client.post(simulator.base_url + URL, json=body, headers={"Authorization": "Bearer sk-a"})
    assert loop.time() - started >= 2 * (0.05 + 10 * 0.01)


@pytest.mark.parametrize("stream", [False, True])
async def test_directives_override_the_pacing(*, stream: bool) -> None:
    pacing = Pacing(time_to_first_token_s=600, time_per_token_s=600)
    async with Simulator(pacing=pacing) as simulator, httpx.AsyncClient() as client:
        body = chat("[sim ttft=0 itl=0] Hi", stream=stream)
        response = await client.post(simulator.base_url + URL, json=body, headers={"Authorization": "Bearer sk-a"})
    assert response.status_code == 200
