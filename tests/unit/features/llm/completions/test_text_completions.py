"""`/v1/completions` and `/invocations` over real sockets."""

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from app.core.errors.validation_errors import validation_error_response
from app.core.tokenization import encoding
from app.features.llm.completions.to_chat import OWN_FIELDS
from app.features.llm.schema import CompletionRequest
from app.features.llm.service import CALLS_AT_ONCE
from app.features.llm.to_openai.parameters import PARAMETERS
from app.simulator.server import Simulator
from tests.serving import served_over

COMPLETIONS = "/v1/completions"
CUT = "a [sim fault=cut after=2]"
VLLM_FIELDS = json.loads((Path(__file__).parent / "vllm-0.33-completion-fields.json").read_text())


async def complete(client: httpx.AsyncClient, **fields: Any) -> Any:
    response = await client.post(COMPLETIONS, json=fields)
    assert response.status_code == 200, response.text
    return response.json()


async def stream_events(client: httpx.AsyncClient, **fields: Any) -> list[Any]:
    response = await client.post(COMPLETIONS, json={"stream": True, **fields})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8", response.text
    *events, end = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert end == "[DONE]"
    return [json.loads(event) for event in events]


def texts_by_index(events: list[Any]) -> dict[int, str]:
    texts: defaultdict[int, str] = defaultdict(str)
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    return dict(texts)


def upstream_bodies(simulator: Simulator) -> list[Any]:
    return [exchange.body for exchange in simulator.traffic.exchanges]


def test_the_fields_are_vllms_in_its_order() -> None:
    assert list(CompletionRequest.model_fields) == VLLM_FIELDS


def test_every_field_is_its_own_or_has_a_parameter_rule() -> None:
    assert set(VLLM_FIELDS) - OWN_FIELDS <= PARAMETERS.keys()
    assert set(VLLM_FIELDS) >= OWN_FIELDS


REJECTED: list[tuple[dict[str, Any], str, str | None]] = [
    ({}, "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)", "prompt"),
    ({"prompt": None}, "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)", "prompt"),
    ({"prompt": ""}, "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)", "prompt"),
    ({"prompt": []}, "You must pass at least one prompt (parameter=prompt)", "prompt"),
    ({"prompt": "a", "n": 2, "temperature": 0}, "n must be 1 when using greedy sampling, got 2.", "n"),
    ({"prompt": ["a", ""]}, "The decoder prompt cannot be empty", "prompt"),
    ({"prompt": [[1], []]}, "The decoder prompt cannot be empty", "prompt"),
    (
        {"prompt": ["a"] * 1025},
        "prompt list length 1025 exceeds the maximum allowed count of 1024. To increase this limit, set the "
        "VLLM_MAX_COMPLETION_PROMPTS environment variable. (parameter=prompt)",
        "prompt",
    ),
    ({"prompt": "a", "suffix": ""}, "suffix is only supported for models with FIM completion rendering", "suffix"),
    (
        {"prompt": "a", "prompt_embeds": "AA=="},
        "You must set `--enable-prompt-embeds` to input `prompt_embeds`. (parameter=prompt_embeds)",
        "prompt_embeds",
    ),
    (
        {"prompt": "a", "logprobs": 50},
        "Requested sample logprobs of 50, which is greater than max allowed: 20 (parameter=logprobs, value=50)",
        "logprobs",
    ),
    (
        {"prompt": "a", "logprobs": -2},
        "`logprobs` must be a positive value or -1. (parameter=logprobs, value=-2)",
        "logprobs",
    ),
    (
        {"prompt": "a", "max_tokens": 0},
        "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)",
        "max_tokens",
    ),
    (
        {"prompt": "a", "use_beam_search": True, "stream": True},
        "Streaming is not currently supported with beam search",
        "use_beam_search",
    ),
    (
        {"prompt": "a", "stream_options": {"include_usage": True}},
        "Stream options can only be defined when `stream=True`. (parameter=stream_options)",
        "stream_options",
    ),
    (
        {"prompt": "a", "echo": True, "logprobs": 1},
        "`echo` with `logprobs` is not available: the upstream returns no log probabilities for the prompt.",
        "echo",
    ),
    (
        {"prompt": "a", "temperature": 2.5},
        "temperature must be in [0, 2], got 2.5. (parameter=temperature, value=2.5)",
        "temperature",
    ),
]


@pytest.mark.parametrize(("fields", "message", "param"), REJECTED)
def test_invalid_values_are_rejected_with_vllms_texts(fields: dict[str, Any], message: str, param: str | None) -> None:
    with pytest.raises(ValidationError) as caught:
        CompletionRequest.model_validate(fields)
    error = validation_error_response(caught.value.errors())

    assert (error.message, error.param) == (message, param)


@pytest.mark.parametrize(
    ("fields", "location"),
    [({"prompt": "a", "n": None}, "n"), ({"prompt": [1, -1]}, "prompt.1"), ({"prompt": {"a": 1}}, "prompt")],
)
def test_wrong_types_are_reported_by_location(fields: dict[str, Any], location: str) -> None:
    with pytest.raises(ValidationError) as caught:
        CompletionRequest.model_validate(fields)
    error = validation_error_response(caught.value.errors())

    assert (error.type, error.param) == ("Bad Request", location)


async def test_a_prompt_is_sent_as_one_user_message_with_max_tokens_16(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    await complete(client, prompt="Once upon")
    (body,) = upstream_bodies(simulator)

    assert body["messages"] == [{"role": "user", "content": "Once upon"}]
    assert body["max_completion_tokens"] == 16
    # A chat's default temperature does not apply to a text completion.
    assert body.keys().isdisjoint({"temperature", "stop", "n"})


async def test_null_max_tokens_means_16(client: httpx.AsyncClient, simulator: Simulator) -> None:
    await complete(client, prompt="Once upon", max_tokens=None)

    assert upstream_bodies(simulator)[0]["max_completion_tokens"] == 16


async def test_the_operators_system_prompt_comes_first(simulator: Simulator) -> None:
    async with (
        served_over(simulator.base_url, completions_system_prompt="Continue the text.") as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        await complete(client, prompt="Once upon")

    assert upstream_bodies(simulator)[0]["messages"][0] == {"role": "system", "content": "Continue the text."}


async def test_a_reasoning_model_uses_its_lowest_effort(simulator: Simulator) -> None:
    async with (
        served_over(simulator.base_url, served_models={"gpt-5-mini": "gpt-5-mini"}) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        response = await client.post(COMPLETIONS, json={"prompt": "Once upon"})

    assert upstream_bodies(simulator)[0]["reasoning_effort"] == "minimal"
    assert "reasoning_effort=minimal" in response.headers["x-adjusted-params"]


async def test_chat_only_fields_are_unknown_keys(client: httpx.AsyncClient, simulator: Simulator) -> None:
    extra = {"tools": 5, "messages": "x", "reasoning_effort": "high", "best_of": 3, "top_logprobs": "y"}
    response = await client.post(COMPLETIONS, json={"prompt": "Once upon", **extra})

    assert response.status_code == 200, response.text
    assert response.headers["x-ignored-params"] == "5 unknown"
    assert upstream_bodies(simulator)[0].keys().isdisjoint({"tools", "reasoning_effort", "logprobs"})


async def test_every_prompt_has_its_own_call_and_its_choices_in_order(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    completion = await complete(client, prompt=["ant", "bee", "cat"], n=2, max_tokens=40)

    assert [choice["index"] for choice in completion["choices"]] == [0, 1, 2, 3, 4, 5]
    for choice in completion["choices"]:
        assert choice["text"].startswith(f'"{["ant", "bee", "cat"][choice["index"] // 2]}":')
    assert sorted(body["messages"][-1]["content"] for body in upstream_bodies(simulator)) == ["ant", "bee", "cat"]
    assert all(body["n"] == 2 for body in upstream_bodies(simulator))


async def test_usage_is_the_sum_of_all_calls(client: httpx.AsyncClient) -> None:
    alone = [(await complete(client, prompt=prompt, max_tokens=9))["usage"] for prompt in ("ant", "a longer prompt")]
    together = (await complete(client, prompt=["ant", "a longer prompt"], max_tokens=9))["usage"]

    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert together[name] == sum(usage[name] for usage in alone)


async def test_token_ids_are_sent_as_their_text(client: httpx.AsyncClient, simulator: Simulator) -> None:
    ids = encoding("o200k_base").encode("세상 끝까지")
    await complete(client, prompt=[ids, [*ids, 199999]])

    # OpenAI would read the name of <|endoftext|> as text, so it is left out.
    assert [body["messages"][0]["content"] for body in upstream_bodies(simulator)] == ["세상 끝까지", "세상 끝까지"]


@pytest.mark.parametrize("unknown", [199_998, 200_019, 2**40])
async def test_an_unknown_token_id_is_rejected(client: httpx.AsyncClient, unknown: int) -> None:
    response = await client.post(COMPLETIONS, json={"prompt": [1, unknown]})

    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": f"Token id {unknown} is out of vocabulary",
        "type": "BadRequestError",
        "param": "prompt",
        "code": 400,
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, " three four"),
        ({"truncation_side": "left"}, " three four"),
        ({"truncation_side": "right"}, "one two"),
    ],
)
async def test_truncation_keeps_the_last_or_the_first_tokens(
    client: httpx.AsyncClient, simulator: Simulator, fields: dict[str, Any], expected: str
) -> None:
    await complete(client, prompt="one two three four", truncate_prompt_tokens=2, **fields)

    assert upstream_bodies(simulator)[0]["messages"][0]["content"] == expected


async def test_a_prompt_within_the_limit_is_not_truncated(client: httpx.AsyncClient, simulator: Simulator) -> None:
    for limit in (-1, 4, 100):
        await complete(client, prompt="one two three four", truncate_prompt_tokens=limit)

    assert {body["messages"][0]["content"] for body in upstream_bodies(simulator)} == {"one two three four"}


@pytest.mark.parametrize(
    ("limit", "message"),
    [(0, "cannot be empty"), (127_985, "cannot be greater than max_model_len - max_tokens = 127984")],
)
async def test_a_truncation_limit_of_zero_or_beyond_the_context_is_rejected(
    client: httpx.AsyncClient, limit: int, message: str
) -> None:
    response = await client.post(COMPLETIONS, json={"prompt": "a", "truncate_prompt_tokens": limit})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "truncate_prompt_tokens")
    assert message in response.json()["error"]["message"]


async def test_a_response_has_vllms_keys_in_its_order(client: httpx.AsyncClient) -> None:
    completion = await complete(client, prompt="Once upon", request_id="mine")

    assert list(completion) == [
        "id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage",
        "kv_transfer_params", "ec_transfer_params", "metrics",
    ]  # fmt: skip
    assert list(completion["choices"][0]) == [
        "index", "text", "logprobs", "finish_reason", "stop_reason", "token_ids", "prompt_logprobs",
        "prompt_token_ids", "routed_experts", "weight_versions",
    ]  # fmt: skip
    assert (completion["id"], completion["object"], completion["model"]) == (
        "cmpl-mine",
        "text_completion",
        "gpt-4o-mini",
    )


STREAM_CHOICE = [
    "index", "text", "logprobs", "finish_reason", "stop_reason", "prompt_token_ids", "token_ids", "weight_versions",
]  # fmt: skip


@pytest.mark.parametrize("fields", [{}, {"echo": True}, {"echo": True, "max_tokens": 0}], ids=str)
async def test_a_stream_has_vllms_keys_in_its_order(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    options = {"include_usage": True}
    *chunks, usage = await stream_events(client, prompt="Once upon", stream_options=options, **fields)

    head = ["id", "object", "created", "model", "choices"]
    assert {tuple(chunk) for chunk in chunks} == {(*head, "kv_transfer_params")}
    assert {tuple(chunk["choices"][0]) for chunk in chunks} == {tuple(STREAM_CHOICE)}
    assert list(usage) == [*head, "usage", "system_fingerprint"]


async def test_a_finish_chunk_ends_with_the_fingerprint_and_transfer_params(client: httpx.AsyncClient) -> None:
    finish = (await stream_events(client, prompt="Once upon"))[-1]

    assert list(finish)[-3:] == ["choices", "system_fingerprint", "kv_transfer_params"]


async def test_a_stream_has_the_text_of_the_whole_response(client: httpx.AsyncClient) -> None:
    fields: dict[str, Any] = {"prompt": ["東京 🚀", "b"], "n": 2, "max_tokens": 40}
    whole = await complete(client, **fields)
    events = await stream_events(client, **fields)

    assert texts_by_index(events) == {choice["index"]: choice["text"] for choice in whole["choices"]}
    assert len({event["id"] for event in events}) == 1
    ends = [event for event in events if event["choices"][0]["finish_reason"]]
    assert [event["system_fingerprint"] for event in ends] == [whole["system_fingerprint"]] * 4
    assert sorted(event["choices"][0]["index"] for event in ends) == [0, 1, 2, 3]


async def test_a_stream_ends_with_the_usage_of_all_calls(client: httpx.AsyncClient) -> None:
    whole = await complete(client, prompt=["a", "b"])
    *chunks, last = await stream_events(client, prompt=["a", "b"], stream_options={"include_usage": True})

    assert last["choices"] == []
    assert last["usage"] == {name: whole["usage"][name] for name in last["usage"]}
    assert not any("usage" in chunk for chunk in chunks)


async def test_echo_puts_the_prompt_before_each_of_its_texts(client: httpx.AsyncClient) -> None:
    fields: dict[str, Any] = {"prompt": ["Once ", "upon "], "n": 2, "max_tokens": 3}
    plain = await complete(client, **fields)
    echoed = await complete(client, **fields, echo=True)
    events = await stream_events(client, **fields, echo=True)

    wanted = [["Once ", "upon "][choice["index"] // 2] + choice["text"] for choice in plain["choices"]]
    assert [choice["text"] for choice in echoed["choices"]] == wanted
    assert [texts_by_index(events)[index] for index in range(4)] == wanted


async def test_echo_without_output_makes_no_call(client: httpx.AsyncClient, simulator: Simulator) -> None:
    fields: dict[str, Any] = {"prompt": [[24912, 2375], [24912]], "echo": True, "max_tokens": 0, "n": 2}
    completion = await complete(client, **fields)
    events = await stream_events(client, **fields, stream_options={"include_usage": True})

    assert [choice["text"] for choice in completion["choices"]] == ["hello world", "hello world", "hello", "hello"]
    assert {choice["finish_reason"] for choice in completion["choices"]} == {"length"}
    assert completion["usage"]["prompt_tokens"] == 3
    assert texts_by_index(events) == {0: "hello world", 1: "hello world", 2: "hello", 3: "hello"}
    assert events[-1]["usage"] == {"prompt_tokens": 3, "total_tokens": 3, "completion_tokens": 0}
    assert upstream_bodies(simulator) == []


async def test_logprobs_have_the_legacy_format(client: httpx.AsyncClient) -> None:
    completion = await complete(client, prompt="東京 🚀", logprobs=2, max_tokens=40)
    (choice,) = completion["choices"]
    logprobs = choice["logprobs"]

    assert list(logprobs) == ["text_offset", "token_logprobs", "tokens", "top_logprobs"]
    assert len({len(column) for column in logprobs.values()}) == 1
    for token, rated, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        assert top[token] == rated
        assert 2 <= len(top) <= 3
    # An offset is the token's position in the text; tokens that are parts of a character share one.
    for offset, token in zip(logprobs["text_offset"], logprobs["tokens"], strict=True):
        assert token.startswith("bytes:") or choice["text"][offset:].startswith(token)


async def test_a_stream_has_the_logprobs_of_the_whole_response(client: httpx.AsyncClient) -> None:
    fields: dict[str, Any] = {"prompt": "東京 🚀", "logprobs": 1, "max_tokens": 30}
    whole = (await complete(client, **fields))["choices"][0]["logprobs"]
    parts = [event["choices"][0]["logprobs"] for event in await stream_events(client, **fields)]

    for name in whole:
        assert [item for part in parts if part for item in part[name]] == whole[name]


async def test_logprobs_0_covers_only_the_chosen_tokens(client: httpx.AsyncClient) -> None:
    logprobs = (await complete(client, prompt="a", logprobs=0, max_tokens=3))["choices"][0]["logprobs"]

    assert [list(top) for top in logprobs["top_logprobs"]] == [[token] for token in logprobs["tokens"]]


async def test_structured_choice_returns_the_bare_text(client: httpx.AsyncClient) -> None:
    completion = await complete(client, prompt="Colour?", structured_outputs={"choice": ["red", "blue"]})

    assert completion["choices"][0]["text"] in ("red", "blue")


async def test_an_unknown_model_is_rejected(client: httpx.AsyncClient) -> None:
    response = await client.post(COMPLETIONS, json={"prompt": "a", "model": "nope"})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "model")


async def test_64_prompts_stream_completely_within_the_call_limit(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    fields: dict[str, Any] = {"prompt": [f"prompt {number} [sim itl=0.001]" for number in range(64)], "n": 2}
    events = await stream_events(client, **fields, max_tokens=12)
    most_live = simulator.traffic.most_live
    whole = await complete(client, **fields, max_tokens=12)

    assert texts_by_index(events) == {choice["index"]: choice["text"] for choice in whole["choices"]}
    assert sorted(texts_by_index(events)) == list(range(128))
    ended = [choice["index"] for event in events for choice in event["choices"] if choice["finish_reason"]]
    assert sorted(ended) == list(range(128))
    assert 1 < most_live <= CALLS_AT_ONCE
    assert simulator.traffic.most_live <= CALLS_AT_ONCE


async def test_choices_of_several_prompts_are_interleaved(client: httpx.AsyncClient) -> None:
    events = await stream_events(
        client, prompt=["a [sim tokens=20 itl=0.01]", "b [sim tokens=20 itl=0.01]"], max_tokens=20
    )
    order = [event["choices"][0]["index"] for event in events]

    assert order.index(1) < len(order) - 1 - order[::-1].index(0)
    assert order.index(0) < len(order) - 1 - order[::-1].index(1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_disconnect_closes_every_call(
    client: httpx.AsyncClient, simulator: Simulator, stream: bool
) -> None:
    prompts = [f"{number} [sim tokens=1000 itl=1]" for number in range(64)]
    body = {"prompt": prompts, "max_tokens": 1000, "stream": stream}
    request = asyncio.create_task(client.post(COMPLETIONS, json=body))
    await simulator.traffic.wait_for(lambda traffic: traffic.live == CALLS_AT_ONCE)

    request.cancel()

    await simulator.traffic.wait_for(lambda traffic: traffic.live == 0)
    assert simulator.traffic.abandoned == CALLS_AT_ONCE
    assert len(simulator.traffic.exchanges) == CALLS_AT_ONCE


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_failure_is_returned_and_cancels_the_other_calls(
    client: httpx.AsyncClient, simulator: Simulator, stream: bool
) -> None:
    prompts = ["a [sim ttft=600]", "b [sim fault=rate_limit]", "c [sim ttft=600]"]
    response = await client.post(COMPLETIONS, json={"prompt": prompts, "stream": stream})

    assert (response.status_code, response.json()["error"]["code"]) == (429, 429)
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 0)


async def test_a_failure_in_mid_stream_ends_it_with_an_error_event(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    prompts = ["a [sim tokens=900 itl=1]", "b [sim fault=cut after=2]"]
    events = await stream_events(client, prompt=prompts, max_tokens=900)

    assert events[-1]["error"]["code"] == 502
    assert not any("error" in event for event in events[:-1])
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 0)


@pytest.mark.parametrize(
    ("path", "fields", "start"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": CUT}]}, 'data: {"error":{"message":"'),
        ("/invocations", {"messages": [{"role": "user", "content": CUT}]}, 'data: {"error":{"message":"'),
        (COMPLETIONS, {"prompt": CUT}, 'data: {"error": {"message": "'),
        ("/invocations", {"prompt": CUT}, 'data: {"error": {"message": "'),
    ],
)
async def test_an_error_event_is_compact_in_chats_and_spaced_in_text_completions(
    client: httpx.AsyncClient, path: str, fields: dict[str, Any], start: str
) -> None:
    response = await client.post(path, json={"stream": True, **fields})

    *_, error, done = response.text.removesuffix("\n\n").split("\n\n")
    assert error.startswith(start)
    assert done == "data: [DONE]"


async def test_an_invocation_with_messages_is_a_chat(client: httpx.AsyncClient) -> None:
    response = await client.post("/invocations", json={"messages": [{"role": "user", "content": "hi"}]})

    assert response.json()["object"] == "chat.completion"


async def test_an_invocation_with_a_prompt_is_a_text_completion(client: httpx.AsyncClient) -> None:
    response = await client.post("/invocations", json={"prompt": "hi", "stream": True})

    assert '"object":"text_completion"' in response.text
    assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "prompt"), ({"messages": [], "n": "x"}, "body.n"), ({"prompt": "a", "n": "x"}, "body.n"), ([], "body")],
)
async def test_an_invalid_invocation_is_rejected_with_its_field(
    client: httpx.AsyncClient, body: object, param: str
) -> None:
    response = await client.post("/invocations", json=body)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_sagemakers_header_names_the_model(simulator: Simulator) -> None:
    async with (
        served_over(simulator.base_url, served_models={"a": "gpt-4o-mini", "b": "gpt-4o"}) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        header = {"X-Amzn-SageMaker-Adapter-Identifier": "b"}
        await client.post("/invocations", json={"prompt": "hi", "model": "a"}, headers=header)

    assert upstream_bodies(simulator)[0]["model"] == "gpt-4o"
