"""The text and usage of chat completions."""

import re
from typing import Any

import httpx
import pytest

URL = "/chat/completions"


def chat(text: str = "What grows in a garden?", **members: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **members}


async def post_chat(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    response = await client.post(URL, json=body)
    assert response.status_code == 200, response.text
    parsed: dict[str, Any] = response.json()
    return parsed


async def first(client: httpx.AsyncClient, body: dict[str, Any]) -> Any:
    return (await post_chat(client, body))["choices"][0]


async def test_response_has_exactly_the_members_openai_sends(client: httpx.AsyncClient) -> None:
    body = await post_chat(client, chat())

    text = body["choices"][0]["message"]["content"]
    assert body == {
        "id": body["id"],
        "object": "chat.completion",
        "created": body["created"],
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 13,
            "completion_tokens": body["usage"]["completion_tokens"],
            "total_tokens": 13 + body["usage"]["completion_tokens"],
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": body["system_fingerprint"],
    }
    assert re.fullmatch("chatcmpl-[A-Za-z0-9]{29}", body["id"])
    assert re.fullmatch("fp_[0-9a-f]{10}", body["system_fingerprint"])


async def test_equal_requests_get_equal_responses(client: httpx.AsyncClient) -> None:
    body = chat(logprobs=True, top_logprobs=3, n=2)
    responses = [await post_chat(client, body) for _ in range(2)]
    for received in responses:
        received.pop("created")
    assert responses[0] == responses[1]


@pytest.mark.parametrize(
    "other", [pytest.param(chat("What grows in a wood?"), id="messages"), pytest.param(chat(seed=7), id="seed")]
)
async def test_different_requests_get_different_responses(client: httpx.AsyncClient, other: dict[str, Any]) -> None:
    responses = [await post_chat(client, body) for body in (chat(), other)]
    texts = {received["choices"][0]["message"]["content"] for received in responses}
    assert len(texts) == 2
    assert responses[0]["id"] != responses[1]["id"]


async def test_text_quotes_the_question_without_its_directives(client: httpx.AsyncClient) -> None:
    text = (await first(client, chat("[sim itl=0]Why is the sky blue, and why is it dark at night?")))["message"]
    assert text["content"].startswith('"Why is the sky blue, and why is it dark":')


async def test_conversation_without_a_user_message_gets_text(client: httpx.AsyncClient) -> None:
    body = chat() | {"messages": [{"role": "system", "content": "Be brief."}]}
    assert (await post_chat(client, body))["usage"]["completion_tokens"] >= 8


async def test_text_includes_non_ascii_characters(client: httpx.AsyncClient) -> None:
    texts = [(await first(client, chat(seed=seed)))["message"]["content"] for seed in range(20)]
    assert any(not text.isascii() for text in texts)
    assert any(re.search("[\U00010000-\U0010ffff]", text) for text in texts)


async def test_choices_differ_and_come_in_order(client: httpx.AsyncClient) -> None:
    body = await post_chat(client, chat(n=5))
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3, 4]
    assert len({choice["message"]["content"] for choice in body["choices"]}) == 5


async def test_usage_counts_all_choices(client: httpx.AsyncClient) -> None:
    body = await post_chat(client, chat("[sim tokens=11] Hi", n=3))
    assert body["usage"]["completion_tokens"] == 33


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_token_limit_truncates_the_text(client: httpx.AsyncClient, name: str) -> None:
    body = await post_chat(client, chat() | {name: 3})
    assert body["usage"]["completion_tokens"] == 3
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["content"] == '"What grows in'


async def test_an_exact_token_limit_truncates_nothing(client: httpx.AsyncClient) -> None:
    length = (await post_chat(client, chat()))["usage"]["completion_tokens"]
    assert (await first(client, chat(max_tokens=length)))["finish_reason"] == "stop"
    assert (await first(client, chat(max_tokens=length - 1)))["finish_reason"] == "length"


async def test_an_emoji_truncated_by_the_limit_is_counted_and_not_shown(client: httpx.AsyncClient) -> None:
    body = await post_chat(client, chat("🚀", max_tokens=2, logprobs=True))
    choice = body["choices"][0]
    assert choice["message"]["content"] == '"'
    assert body["usage"]["completion_tokens"] == 2
    assert choice["logprobs"]["content"][1]["bytes"] == [0xF0, 0x9F, 0x9A]
    assert choice["logprobs"]["content"][1]["token"] == "bytes:\\xf0\\x9f\\x9a"
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize("stop", ["grows", ["zzz", "grows", "garden"]], ids=["text", "list"])
async def test_text_ends_before_a_stop_sequence(client: httpx.AsyncClient, stop: Any) -> None:
    choice = await first(client, chat(stop=stop))
    assert choice["message"]["content"] == '"What '
    assert choice["finish_reason"] == "stop"


async def test_a_stop_sequence_beyond_the_limit_has_no_effect(client: httpx.AsyncClient) -> None:
    assert (await first(client, chat(stop="garden", max_tokens=2)))["finish_reason"] == "length"


@pytest.mark.parametrize("length", [1, 8, 500])
async def test_the_tokens_directive_sets_the_length(client: httpx.AsyncClient, length: int) -> None:
    body = await post_chat(client, chat(f"[sim tokens={length}] Go on"))
    assert body["usage"]["completion_tokens"] == length
    assert body["choices"][0]["finish_reason"] == "stop"


async def test_a_length_beyond_the_limit_is_truncated(client: httpx.AsyncClient) -> None:
    body = await post_chat(client, chat("[sim tokens=900000000] Go on", max_tokens=20))
    assert body["usage"]["completion_tokens"] == 20
    assert body["choices"][0]["finish_reason"] == "length"


async def test_logprob_bytes_joined_are_the_text(client: httpx.AsyncClient) -> None:
    body = await post_chat(client, chat("🚀 to the moon", logprobs=True, top_logprobs=4))
    choice = body["choices"][0]
    entries = choice["logprobs"]["content"]
    spelled = b"".join(bytes(entry["bytes"]) for entry in entries)

    assert spelled.decode() == choice["message"]["content"]
    assert len(entries) == body["usage"]["completion_tokens"]
    assert choice["logprobs"]["refusal"] is None
    for entry in entries:
        top = entry["top_logprobs"]
        values = [alternative["logprob"] for alternative in top]
        assert top[0] == {key: entry[key] for key in ("token", "logprob", "bytes")}
        assert len({alternative["token"] for alternative in top}) == 4
        assert values == sorted(values, reverse=True)
        assert values[0] < 0


async def test_logprobs_without_alternatives(client: httpx.AsyncClient) -> None:
    choice = await first(client, chat(logprobs=True))
    assert all(entry["top_logprobs"] == [] for entry in choice["logprobs"]["content"])


async def test_json_mode_returns_an_object(client: httpx.AsyncClient) -> None:
    choice = await first(client, chat("As JSON, please", response_format={"type": "json_object"}))
    assert re.fullmatch(r'\{"answer":".*","number":\d+\}', choice["message"]["content"])


async def test_json_schema_returns_an_instance(client: httpx.AsyncClient) -> None:
    schema = {"type": "object", "properties": {"kind": {"const": "tree"}}, "required": ["kind"]}
    response_format = {"type": "json_schema", "json_schema": {"name": "plant", "schema": schema}}
    choice = await first(client, chat(response_format=response_format))
    assert choice["message"]["content"] == '{"kind":"tree"}'


async def test_json_schema_without_a_schema_returns_an_object(client: httpx.AsyncClient) -> None:
    choice = await first(client, chat(response_format={"type": "json_schema", "json_schema": {"name": "any"}}))
    assert choice["message"]["content"] == "{}"


@pytest.mark.parametrize(
    ("model", "effort", "spent"),
    [
        pytest.param("gpt-5", None, 64, id="default"),
        pytest.param("gpt-5", "high", 128, id="high"),
        pytest.param("gpt-5.1", None, 0, id="default none"),
        pytest.param("gpt-5.1", "none", 0, id="none"),
        pytest.param("gpt-6.1-sol", None, 64, id="no none"),
    ],
)
async def test_reasoning_tokens_are_counted(
    client: httpx.AsyncClient, model: str, effort: str | None, spent: int
) -> None:
    body = await post_chat(client, chat("Hi", n=2, reasoning_effort=effort) | {"model": model})
    plain = await post_chat(client, chat("Hi", n=2))
    usage = body["usage"]

    assert usage["completion_tokens_details"]["reasoning_tokens"] == 2 * spent
    assert usage["completion_tokens"] == plain["usage"]["completion_tokens"] + 2 * spent
    assert body["system_fingerprint"] is None


@pytest.mark.parametrize("limit", [10, 64])
async def test_a_limit_used_up_by_reasoning_leaves_no_text(client: httpx.AsyncClient, limit: int) -> None:
    body = await post_chat(client, chat(max_completion_tokens=limit) | {"model": "gpt-5"})
    assert body["choices"][0]["message"]["content"] == ""
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == limit
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == limit


async def test_a_limit_covers_reasoning_and_text(client: httpx.AsyncClient) -> None:
    body = await post_chat(client, chat(max_completion_tokens=67) | {"model": "gpt-5"})
    assert body["choices"][0]["message"]["content"] == '"What grows in'
    assert body["usage"]["completion_tokens"] == 67


@pytest.mark.parametrize(
    ("requested", "snapshot"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4o-2024-11-20", "gpt-4o-2024-11-20"),
        ("gpt-5.4", "gpt-5.4"),
        ("gpt-6-luna", "gpt-6-luna"),
    ],
)
async def test_the_response_names_the_snapshot(client: httpx.AsyncClient, requested: str, snapshot: str) -> None:
    assert (await post_chat(client, chat() | {"model": requested}))["model"] == snapshot


async def test_prompt_tokens_count_text_parts_only(client: httpx.AsyncClient) -> None:
    parts = [
        {"type": "text", "text": "one two"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "text", "text": "three"},
    ]
    body = await post_chat(client, {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": parts}]})
    assert body["usage"]["prompt_tokens"] == len(["user", "one", " two", "three"]) + 3 + 3


TOOL = {
    "type": "function",
    "function": {
        "name": "grow",
        "description": "Grows a plant.",
        "parameters": {
            "type": "object",
            "properties": {"kind": {"type": "string", "description": "Which one.", "enum": ["tree", "rose"]}},
        },
    },
}


@pytest.mark.parametrize(
    ("member", "more"),
    [
        pytest.param({"messages": [{"role": "user", "content": "Hi", "name": "ann"}]}, 1 + 1, id="name"),
        # "grow:Grows a plant"; "kind:string:Which one"; "tree" and "rose".
        pytest.param({"tools": [TOOL]}, 7 + 5 + 3 + 3 + 5 + (-3 + 3 + 1 + 3 + 1) + 12, id="tools"),
        pytest.param({"tools": [{"type": "function", "function": {"name": "grow"}}]}, 7 + 2 + 12, id="name alone"),
        pytest.param({"tools": [{"type": "custom", "custom": {"name": "grow"}}]}, 7 + 2 + 12, id="custom tool"),
    ],
)
async def test_prompt_tokens_count_names_and_tools(
    client: httpx.AsyncClient, member: dict[str, Any], more: int
) -> None:
    plain, extended = [(await post_chat(client, body))["usage"] for body in (chat("Hi"), chat("Hi") | member)]
    assert extended["prompt_tokens"] - plain["prompt_tokens"] == more


# Of o200k_base.
GARDEN, WINTER = 13727, 13655


async def test_a_banned_token_never_appears(client: httpx.AsyncClient) -> None:
    plain = await first(client, chat("[sim tokens=200] Hi", logprobs=True))
    written = {entry["token"] for entry in plain["logprobs"]["content"]}
    assert {" garden", " winter"} & written
    bias = {str(number): -100 for number in (GARDEN, WINTER)}

    biased = await first(client, chat("[sim tokens=200] Hi", logprobs=True, logit_bias=bias))

    assert not {" garden", " winter"} & {entry["token"] for entry in biased["logprobs"]["content"]}
    assert len(biased["logprobs"]["content"]) == 200


async def test_bias_of_100_allows_only_these_tokens(client: httpx.AsyncClient) -> None:
    bias = {str(GARDEN): 100, str(WINTER): 100, "0": 5}

    choice = await first(client, chat("Hi", logit_bias=bias, max_tokens=12))

    assert set(choice["message"]["content"].split()) == {"garden", "winter"}


async def test_a_bias_below_the_extremes_has_no_effect(client: httpx.AsyncClient) -> None:
    bodies = chat(), chat(logit_bias={str(GARDEN): -99})
    texts = [(await first(client, body))["message"]["content"] for body in bodies]
    assert texts[0] == texts[1]
