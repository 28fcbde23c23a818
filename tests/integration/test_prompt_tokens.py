"""The server counts a prompt's tokens as the upstream does, by an independent implementation."""

from typing import Any

import httpx
import pytest

from tests.conftest import CHAT

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city, now.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "도시, e.g. 서울."},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            },
        },
    },
}
BARE = {"type": "function", "function": {"name": "ping"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "東京"}'}}


def said(content: object, role: str = "user", **keys: object) -> dict[str, object]:
    return {"role": role, "content": content, **keys}


CONVERSATIONS: dict[str, dict[str, Any]] = {
    "one message": {"messages": [said("Say hello")]},
    "names": {"messages": [said("Be brief.", "system", name="boss"), said("Hi", name="ann_lee")]},
    "several": {"messages": [said("a", "developer"), said("b"), said("c", "assistant"), said(" d\n\n")]},
    "scripts": {"messages": [said("天気はどうですか。나는 🦩를 좋아해. مرحبا <|im_end|>")]},
    "parts": {"messages": [said([{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}])]},
    "unknown role": {"messages": [said("x", "critic")]},
    "tools": {"messages": [said("Weather?")], "tools": [TOOL, BARE]},
    "calls": {
        "messages": [
            said("Weather?"), said(None, "assistant", tool_calls=[CALL]), said("晴れ", "tool", tool_call_id="call_1"),
        ],
        "tools": [TOOL],
    },
    "long": {"messages": [said("word " * 5000)]},
}  # fmt: skip


@pytest.mark.parametrize("conversation", CONVERSATIONS)
async def test_tokenize_counts_the_same_as_the_usage(client: httpx.AsyncClient, conversation: str) -> None:
    body = CONVERSATIONS[conversation]
    counted = (await client.post("/tokenize", json=body)).json()
    answered = (await client.post(CHAT, json=body)).json()

    assert counted["count"] == len(counted["tokens"]) == answered["usage"]["prompt_tokens"]


async def test_a_responses_tokens_are_those_of_its_text(client: httpx.AsyncClient) -> None:
    answered = (await client.post(CHAT, json={"messages": [said("[sim tokens=40] 🦩 東京")]})).json()
    text = answered["choices"][0]["message"]["content"]
    counted = (await client.post("/tokenize", json={"prompt": text})).json()

    assert answered["usage"]["completion_tokens"] == 40
    assert abs(counted["count"] - 40) <= 1, "but for a character that the limit has cut"


async def test_logprobs_name_the_tokens_of_the_text(client: httpx.AsyncClient) -> None:
    asked = {"messages": [said("🦩 in 東京")], "logprobs": True}
    choice = (await client.post(CHAT, json=asked)).json()["choices"][0]
    made = (await client.post("/tokenize", json={"prompt": choice["message"]["content"]})).json()

    assert len(choice["logprobs"]["content"]) == made["count"]
