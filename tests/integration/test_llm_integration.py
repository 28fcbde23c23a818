"""The owner's scenarios against a running service: `LLM_SERVER_URL`, by default http://localhost:8002.

Left out of `pytest tests/`: name this file to run it.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

SERVER_URL = os.environ.get("LLM_SERVER_URL", "http://localhost:8002")
STARTING_UP_S = 120
CHAT = "/v1/chat/completions"


def ask(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=SERVER_URL, timeout=30) as running:
        await healthy(running)
        yield running


async def healthy(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(STARTING_UP_S):
        while True:
            try:
                if (await client.get("/health")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.2)


async def test_a_response_is_compatible_with_openais(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json=ask("안녕하세요", max_tokens=50))

    assert response.status_code == 200
    answer = response.json()
    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] in {"stop", "length"}
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_stream_has_at_least_five_chunks(client: httpx.AsyncClient) -> None:
    async with client.stream("POST", CHAT, json=ask("Count from one to ten.", stream=True, max_tokens=50)) as response:
        assert response.status_code == 200
        lines = [line async for line in response.aiter_lines() if line]

    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert len(chunks) >= 5
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)


async def test_five_concurrent_requests_succeed(client: httpx.AsyncClient) -> None:
    calls = (client.post(CHAT, json=ask(f"Say the number {number}.", max_tokens=10)) for number in range(5))
    responses = await asyncio.gather(*calls)

    assert [response.status_code for response in responses] == [200] * 5
    assert all(response.json()["choices"][0]["message"]["content"] for response in responses)


async def test_an_invalid_model_is_a_400_with_an_error(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json=ask("hi", model="no-such-model"))

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "model"


async def test_three_requests_take_under_ten_seconds_each(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        response = await client.post(CHAT, json=ask("Say hello.", max_tokens=10))
        seconds.append(time.monotonic() - began)
        assert response.status_code == 200

    with capsys.disabled():
        print("\nseconds per request:", ", ".join(f"{taken:.3f}" for taken in seconds))
    assert max(seconds) < 10
