"""Every parameter rule, by what the simulator receives."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.features.llm.to_openai.parameters import PARAMETERS, Handling
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import served_over
from tests.unit.features.llm.to_openai.test_encode import DROPPED, NEUTRAL, REJECTED, SENT

MESSAGES = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "f"}}
CHOICE_SCHEMA = {
    "type": "object",
    "properties": {"value": {"type": "string", "enum": ["a", "b"]}},
    "required": ["value"],
    "additionalProperties": False,
}

# One value of each field that is passed or translated, and what OpenAI gets for it beside the model and the messages.
TRANSLATED: dict[str, tuple[Any, dict[str, Any]]] = {
    "messages": (MESSAGES, {}),
    "model": ("gpt-4o", {}),
    "frequency_penalty": (0.5, {"frequency_penalty": 0.5}),
    "logit_bias": ({"5": 1}, {"logit_bias": {"5": 1}}),
    "logprobs": (True, {"logprobs": True}),
    "top_logprobs": (2, {"logprobs": True, "top_logprobs": 2}),
    "max_tokens": (7, {"max_completion_tokens": 7}),
    "max_completion_tokens": (7, {"max_completion_tokens": 7}),
    "n": (2, {"n": 2}),
    "presence_penalty": (0.5, {"presence_penalty": 0.5}),
    "response_format": ({"type": "json_object"}, {"response_format": {"type": "json_object"}}),
    "seed": (7, {"seed": 7}),
    "stop": (["x"], {"stop": ["x"]}),
    "stream": (True, {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}}),
    "stream_options": (
        {"include_usage": True},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    ),
    "temperature": (0.3, {"temperature": 0.3}),
    "top_p": (0.5, {"top_p": 0.5}),
    "tools": ([TOOL], {"tools": [TOOL]}),
    "tool_choice": ("required", {"tools": [TOOL], "tool_choice": "required"}),
    "reasoning_effort": ("low", {"reasoning_effort": "low"}),
    "thinking_token_budget": (0, {"reasoning_effort": "low"}),
    "parallel_tool_calls": (False, {"tools": [TOOL], "parallel_tool_calls": False}),
    "user": ("me", {"user": "me"}),
    "top_k": (1, {"temperature": 0}),
    "include_stop_str_in_output": (True, {}),
    "stop_token_ids": ([5, 200002], {"logprobs": True}),
    "truncate_prompt_tokens": (50, {}),
    "allowed_token_ids": ([5, 6, 5], {"logit_bias": {"5": 100, "6": 100}}),
    "bad_words": (["hello"], {"logit_bias": {"24912": -100, "40617": -100}}),
    "return_tokens_as_token_ids": (True, {"logprobs": True}),
    "return_token_ids": (True, {"logprobs": True}),
    "echo": (True, {}),
    "add_generation_prompt": (False, {}),
    "chat_template_kwargs": ({"enable_thinking": False}, {"reasoning_effort": "low"}),
    "structured_outputs": (
        {"choice": ["a", "b"]},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": CHOICE_SCHEMA, "strict": True},
            }
        },
    ),
    "request_id": ("mine", {}),
    "session_id": ("mine", {"prompt_cache_key": "mine"}),
    "cache_salt": (
        "salt",
        {"prompt_cache_key": "63479ad69a090b258277ec8fba6f9941"},
    ),
}
# What a field needs beside it.
BESIDE: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "stream_options": {"stream": True},
    "tool_choice": {"tools": [TOOL]},
    "parallel_tool_calls": {"tools": [TOOL]},
    "reasoning_effort": {"model": "o3"},
    "thinking_token_budget": {"model": "o3"},
    "chat_template_kwargs": {"model": "o3"},
    "include_stop_str_in_output": {"stop": ["x"]},
    "return_tokens_as_token_ids": {"logprobs": True},
}
WITHOUT_EFFECT: dict[str, Any] = {
    "include_reasoning": False, "length_penalty": 2.0, "skip_special_tokens": False,
    "spaces_between_special_tokens": False, "truncation_side": "left", "add_special_tokens": True, "priority": 5,
    "routed_experts_prompt_start": 1, "return_token_offsets": True, "mm_payload": "none", "return_mm_kwargs": True,
    "stream_interval": 4,
}  # fmt: skip


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    settings: dict[str, object] = {"served_models": "*", "default_temperature": None}
    async with (
        served_over(simulator.base_url, **settings) as url,
        httpx.AsyncClient(base_url=url) as running,
    ):
        yield running


def seen(simulator: Simulator) -> dict[str, Any]:
    """The last call's body without the model and the messages."""
    body: Any = simulator.traffic.exchanges[-1].body
    return {name: value for name, value in body.items() if name not in {"model", "messages"}}


def test_every_rule_is_covered() -> None:
    tried = {
        Handling.PASS: TRANSLATED,
        Handling.TRANSLATE: TRANSLATED,
        Handling.IGNORE: WITHOUT_EFFECT,
        Handling.DROP: DROPPED,
        Handling.REJECT: REJECTED,
    }
    assert [name for name, rule in PARAMETERS.items() if name not in tried[rule.handling]] == []


@pytest.mark.parametrize("name", TRANSLATED)
async def test_a_translated_field_reaches_openai(client: httpx.AsyncClient, simulator: Simulator, name: str) -> None:
    value, expected = TRANSLATED[name]
    response = await client.post(CHAT, json={"messages": MESSAGES, **BESIDE.get(name, {}), name: value})

    assert response.status_code == 200, response.text
    assert seen(simulator) == expected
    assert "x-ignored-params" not in response.headers


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
async def test_a_field_without_effect_is_neither_sent_nor_reported(
    client: httpx.AsyncClient, simulator: Simulator, name: str
) -> None:
    response = await client.post(CHAT, json={"messages": MESSAGES, name: WITHOUT_EFFECT[name]})

    assert (response.status_code, seen(simulator)) == (200, {})
    assert not {"x-ignored-params", "x-adjusted-params"} & set(response.headers)


@pytest.mark.parametrize("name", DROPPED)
async def test_a_dropped_field_is_reported_and_not_sent(
    client: httpx.AsyncClient, simulator: Simulator, name: str
) -> None:
    response = await client.post(CHAT, json={"messages": MESSAGES, name: DROPPED[name]})

    assert (response.status_code, seen(simulator)) == (200, {})
    assert response.headers["x-ignored-params"] == name


@pytest.mark.parametrize("name", REJECTED)
async def test_a_rejected_field_makes_no_call(client: httpx.AsyncClient, simulator: Simulator, name: str) -> None:
    response = await client.post(CHAT, json={"messages": MESSAGES, name: REJECTED[name]})

    assert (response.status_code, response.json()["error"]["param"]) == (400, name)
    assert not simulator.traffic.exchanges


async def test_neutral_values_are_not_sent(client: httpx.AsyncClient, simulator: Simulator) -> None:
    response = await client.post(CHAT, json={"messages": MESSAGES, **NEUTRAL})

    assert (response.status_code, seen(simulator)) == (200, {})


@pytest.mark.parametrize(("fields", "expected"), SENT)
async def test_openai_accepts_every_translated_field(
    client: httpx.AsyncClient, simulator: Simulator, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    response = await client.post(CHAT, json={"messages": MESSAGES, **fields})

    assert response.status_code == 200, response.text
    assert seen(simulator) == expected
