"""Responses with tool calls."""

import json
import re
from typing import Any

import httpx
import pytest

URL = "/chat/completions"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def function(name: str, **members: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": PARAMETERS, **members}}


WEATHER, CLOCK = function("weather"), function("clock")
REGEX = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "[ab]{3}"}}
SHELL = {"type": "custom", "custom": {"name": "shell", "format": REGEX}}
NOTE = {"type": "custom", "custom": {"name": "note"}}


def chat(text: str, *tools: dict[str, Any], **members: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "gpt-4o-mini", "messages": messages, "tools": list(tools), **members}


async def choice(client: httpx.AsyncClient, body: dict[str, Any]) -> Any:
    response = await client.post(URL, json=body)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]


def names(first_choice: Any) -> list[str]:
    return [call[call["type"]]["name"] for call in first_choice["message"].get("tool_calls", [])]


def named(tool: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": tool}}


def allowed(mode: str, *tools: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(tool) for tool in tools]}}


async def test_a_call_has_exactly_the_members_openai_sends(client: httpx.AsyncClient) -> None:
    first_choice = await choice(client, chat("Hi", WEATHER, tool_choice="required"))
    (call,) = first_choice["message"]["tool_calls"]
    arguments = call["function"]["arguments"]

    assert first_choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": call["id"], "type": "function", "function": {"name": "weather", "arguments": arguments}}
            ],
            "refusal": None,
            "annotations": [],
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }
    assert re.fullmatch("call_[A-Za-z0-9]{24}", call["id"])
    assert list(json.loads(arguments)) == ["city"]


@pytest.mark.parametrize(
    ("body", "called"),
    [
        pytest.param(chat("Hi", WEATHER), [], id="auto, not mentioned"),
        pytest.param(chat("How is the weather?", CLOCK, WEATHER), ["weather"], id="auto, mentioned"),
        pytest.param(chat("Call something", CLOCK, WEATHER), ["clock"], id="auto, the word call"),
        pytest.param(chat("It is called so", CLOCK), [], id="auto, another word"),
        pytest.param(chat("weather", WEATHER, tool_choice="auto"), ["weather"], id="auto, said"),
        pytest.param(chat("weather", WEATHER, tool_choice="none"), [], id="none"),
        pytest.param(chat("Hi", CLOCK, WEATHER, tool_choice="required"), ["clock"], id="required"),
        pytest.param(chat("Hi", CLOCK, WEATHER, tool_choice=named("weather")), ["weather"], id="named"),
        pytest.param(chat("both, call", CLOCK, WEATHER), ["clock", "weather"], id="both"),
        pytest.param(chat("both, call", CLOCK), ["clock"], id="both of one"),
        pytest.param(chat("both", CLOCK, WEATHER), [], id="both, not asked to call"),
        pytest.param(chat("both, call", CLOCK, WEATHER, parallel_tool_calls=False), ["clock"], id="not parallel"),
        pytest.param(chat("Hi", CLOCK, WEATHER, tool_choice=allowed("required", "weather")), ["weather"], id="allowed"),
        pytest.param(chat("clock", CLOCK, WEATHER, tool_choice=allowed("auto", "weather")), [], id="not allowed"),
        pytest.param(
            chat("Hi", NOTE, tool_choice={"type": "custom", "custom": {"name": "note"}}), ["note"], id="custom"
        ),
    ],
)
async def test_tools_are_called_on_request(client: httpx.AsyncClient, body: dict[str, Any], called: list[str]) -> None:
    assert names(await choice(client, body)) == called


@pytest.mark.parametrize(
    ("tool_choice", "reason"),
    [("required", "tool_calls"), (named("weather"), "stop"), (allowed("required", "weather"), "tool_calls")],
    ids=["required", "named", "allowed"],
)
async def test_a_named_tool_finishes_with_stop(client: httpx.AsyncClient, tool_choice: Any, reason: str) -> None:
    assert (await choice(client, chat("Hi", WEATHER, tool_choice=tool_choice)))["finish_reason"] == reason


async def test_a_tool_result_is_followed_by_text(client: httpx.AsyncClient) -> None:
    body = chat("call weather", WEATHER)
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    body["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "call: sunny weather"},
    ]
    first_choice = await choice(client, body)
    assert "tool_calls" not in first_choice["message"]
    assert first_choice["message"]["content"].startswith('"call weather":')


async def test_custom_tool_input_matches_its_grammar(client: httpx.AsyncClient) -> None:
    (call,) = (await choice(client, chat("Hi", SHELL, tool_choice="required")))["message"]["tool_calls"]
    assert call["type"] == "custom"
    assert call["custom"]["name"] == "shell"
    assert re.fullmatch("[ab]{3}", call["custom"]["input"])


async def test_a_function_without_parameters_gets_an_empty_object(client: httpx.AsyncClient) -> None:
    tool = {"type": "function", "function": {"name": "now"}}
    (call,) = (await choice(client, chat("Hi", tool, tool_choice="required")))["message"]["tool_calls"]
    assert call["function"]["arguments"] == "{}"


async def test_a_token_limit_truncates_the_arguments(client: httpx.AsyncClient) -> None:
    first_choice = await choice(client, chat("call both", CLOCK, WEATHER, max_tokens=3))
    assert first_choice["finish_reason"] == "length"
    assert [call["function"]["arguments"] for call in first_choice["message"]["tool_calls"]] == ['{"city', ""]


async def test_calls_are_streamed_in_pieces(client: httpx.AsyncClient) -> None:
    body = chat("call both", CLOCK, WEATHER)
    whole = await choice(client, body)
    response = await client.post(URL, json=body | {"stream": True})
    blocks = response.text.split("\n\n")[:-2]
    choices = [json.loads(block.removeprefix("data: "))["choices"][0] for block in blocks]
    deltas = [streamed["delta"] for streamed in choices]
    clock, weather = whole["message"]["tool_calls"]

    assert deltas[0] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"index": 0, **clock, "function": {"name": "clock", "arguments": ""}}],
        "refusal": None,
    }
    assert {"tool_calls": [{"index": 1, **weather, "function": {"name": "weather", "arguments": ""}}]} in deltas
    assert deltas[-1] == {}
    assert [streamed["finish_reason"] for streamed in choices[-2:]] == [None, "tool_calls"]
    written = ["", ""]
    for delta in deltas[:-1]:
        (piece,) = delta["tool_calls"]
        written[piece["index"]] += piece["function"]["arguments"]
    assert written == [clock["function"]["arguments"], weather["function"]["arguments"]]
    assert len(deltas) > 6


async def test_custom_input_is_streamed_in_pieces(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json=chat("Hi", NOTE, tool_choice="required", stream=True))
    blocks = response.text.split("\n\n")[:-2]
    deltas = [json.loads(block.removeprefix("data: "))["choices"][0]["delta"] for block in blocks]
    assert deltas[0]["tool_calls"][0]["custom"] == {"name": "note", "input": ""}
    assert deltas[1] == {"tool_calls": [{"index": 0, "custom": {"input": "note"}}]}
