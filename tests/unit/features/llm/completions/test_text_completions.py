"""`/v1/completions` and `/invocations` over real sockets: prompts become chats, chats become vLLM's text completion."""

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
from app.features.llm.completions.request import OWN_FIELDS
from app.features.llm.schema import CompletionRequest
from app.features.llm.service import CALLS_AT_ONCE
from app.features.llm.to_openai.parameters import PARAMETERS
from app.simulator.server import Simulator
from tests.serving import served_over

COMPLETIONS = "/v1/completions"
VLLM_FIELDS = json.loads((Path(__file__).parent / "vllm-0.32-completion-fields.json").read_text())


async def completed(client: httpx.AsyncClient, **fields: Any) -> Any:
    response = await client.post(COMPLETIONS, json=fields)
    assert response.status_code == 200, response.text
    return response.json()


async def streamed(client: httpx.AsyncClient, **fields: Any) -> list[Any]:
    response = await client.post(COMPLETIONS, json={"stream": True, **fields})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8", response.text
    *events, end = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert end == "[DONE]"
    return [json.loads(event) for event in events]


def texts_of(events: list[Any]) -> dict[int, str]:
    texts: defaultdict[int, str] = defaultdict(str)
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    return dict(texts)


def sent_to(simulator: Simulator) -> list[Any]:
    return [exchange.body for exchange in simulator.traffic.exchanges]


# --- the request ------------------------------------------------------------------------------------------------------


def test_the_fields_are_vllms_in_its_order() -> None:
    assert list(CompletionRequest.model_fields) == VLLM_FIELDS


def test_each_field_is_the_completions_own_or_has_a_chats_row() -> None:
    assert set(VLLM_FIELDS) - OWN_FIELDS <= PARAMETERS.keys()
    assert set(VLLM_FIELDS) >= OWN_FIELDS


REFUSED: list[tuple[dict[str, Any], str, str | None]] = [
    ({}, "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)", "prompt"),
    ({"prompt": None}, "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)", "prompt"),
    ({"prompt": ""}, "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)", "prompt"),
    ({"prompt": []}, "You must pass at least one prompt", "prompt"),
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


@pytest.mark.parametrize(("fields", "message", "param"), REFUSED)
def test_what_vllm_refuses_is_refused_in_its_words(fields: dict[str, Any], message: str, param: str | None) -> None:
    with pytest.raises(ValidationError) as caught:
        CompletionRequest.model_validate(fields)
    answer = validation_error_response(caught.value.errors())

    assert (answer.message, answer.param) == (message, param)


@pytest.mark.parametrize(
    ("fields", "place"),
    [({"prompt": "a", "n": None}, "n"), ({"prompt": [1, -1]}, "prompt.1"), ({"prompt": {"a": 1}}, "prompt")],
)
def test_a_wrong_type_is_named_by_its_place(fields: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        CompletionRequest.model_validate(fields)
    answer = validation_error_response(caught.value.errors())

    assert (answer.type, answer.param) == ("Bad Request", place)


# --- prompts and calls ------------------------------------------------------------------------------------------------


async def test_a_prompt_is_one_user_message_of_at_most_16_tokens(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    await completed(client, prompt="Once upon")
    (body,) = sent_to(simulator)

    assert body["messages"] == [{"role": "user", "content": "Once upon"}]
    assert body["max_completion_tokens"] == 16
    # A chat's default temperature is not a text completion's.
    assert body.keys().isdisjoint({"temperature", "stop", "n"})


async def test_null_max_tokens_are_16_too(client: httpx.AsyncClient, simulator: Simulator) -> None:
    await completed(client, prompt="Once upon", max_tokens=None)

    assert sent_to(simulator)[0]["max_completion_tokens"] == 16


async def test_the_operators_system_prompt_comes_first(simulator: Simulator) -> None:
    async with (
        served_over(simulator.base_url, completions_system_prompt="Continue the text.") as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        await completed(client, prompt="Once upon")

    assert sent_to(simulator)[0]["messages"][0] == {"role": "system", "content": "Continue the text."}


async def test_a_model_that_reasons_spends_as_little_as_it_can_on_it(simulator: Simulator) -> None:
    async with (
        served_over(simulator.base_url, served_models={"gpt-5-mini": "gpt-5-mini"}) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        response = await client.post(COMPLETIONS, json={"prompt": "Once upon"})

    assert sent_to(simulator)[0]["reasoning_effort"] == "minimal"
    assert "reasoning_effort=minimal" in response.headers["x-adjusted-params"]


async def test_a_chats_own_fields_are_unknown_keys_here(client: httpx.AsyncClient, simulator: Simulator) -> None:
    extra = {"tools": 5, "messages": "x", "reasoning_effort": "high", "best_of": 3, "top_logprobs": "y"}
    response = await client.post(COMPLETIONS, json={"prompt": "Once upon", **extra})

    assert response.status_code == 200, response.text
    assert response.headers["x-ignored-params"] == "5 unknown"
    assert sent_to(simulator)[0].keys().isdisjoint({"tools", "reasoning_effort", "logprobs"})


async def test_every_prompt_is_answered_by_a_call_of_its_own_in_its_place(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    answer = await completed(client, prompt=["ant", "bee", "cat"], n=2, max_tokens=40)

    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3, 4, 5]
    for choice in answer["choices"]:
        assert choice["text"].startswith(f'"{["ant", "bee", "cat"][choice["index"] // 2]}":')
    assert sorted(body["messages"][-1]["content"] for body in sent_to(simulator)) == ["ant", "bee", "cat"]
    assert all(body["n"] == 2 for body in sent_to(simulator))


async def test_usage_is_that_of_all_calls(client: httpx.AsyncClient) -> None:
    alone = [(await completed(client, prompt=prompt, max_tokens=9))["usage"] for prompt in ("ant", "a longer prompt")]
    together = (await completed(client, prompt=["ant", "a longer prompt"], max_tokens=9))["usage"]

    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert together[name] == sum(usage[name] for usage in alone)


async def test_token_ids_are_read_as_the_text_they_stand_for(client: httpx.AsyncClient, simulator: Simulator) -> None:
    ids = encoding("o200k_base").encode("세상 끝까지")
    await completed(client, prompt=[ids, [*ids, 199999]])

    # The end of a text is not spelled out: OpenAI would take it for text.
    assert [body["messages"][0]["content"] for body in sent_to(simulator)] == ["세상 끝까지", "세상 끝까지"]


@pytest.mark.parametrize("unknown", [199_998, 200_019, 2**40])
async def test_a_token_id_that_is_none_is_refused(client: httpx.AsyncClient, unknown: int) -> None:
    response = await client.post(COMPLETIONS, json={"prompt": [1, unknown]})

    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": f"Token id {unknown} is out of vocabulary",
        "type": "BadRequestError",
        "param": "prompt",
        "code": 400,
    }


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, " three four"),
        ({"truncation_side": "left"}, " three four"),
        ({"truncation_side": "right"}, "one two"),
    ],
)
async def test_a_prompt_is_cut_to_its_last_or_first_tokens(
    client: httpx.AsyncClient, simulator: Simulator, fields: dict[str, Any], kept: str
) -> None:
    await completed(client, prompt="one two three four", truncate_prompt_tokens=2, **fields)

    assert sent_to(simulator)[0]["messages"][0]["content"] == kept


async def test_a_prompt_that_fits_is_not_cut(client: httpx.AsyncClient, simulator: Simulator) -> None:
    for limit in (-1, 4, 100):
        await completed(client, prompt="one two three four", truncate_prompt_tokens=limit)

    assert {body["messages"][0]["content"] for body in sent_to(simulator)} == {"one two three four"}


@pytest.mark.parametrize(
    ("limit", "said"), [(0, "cannot be empty"), (127_985, "cannot be greater than max_model_len - max_tokens = 127984")]
)
async def test_a_cut_that_leaves_nothing_or_too_much_is_refused(
    client: httpx.AsyncClient, limit: int, said: str
) -> None:
    response = await client.post(COMPLETIONS, json={"prompt": "a", "truncate_prompt_tokens": limit})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "truncate_prompt_tokens")
    assert said in response.json()["error"]["message"]


# --- the answer -------------------------------------------------------------------------------------------------------


async def test_an_answer_has_every_key_of_vllm_in_its_order(client: httpx.AsyncClient) -> None:
    answer = await completed(client, prompt="Once upon", request_id="mine")

    assert list(answer) == [
        "id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage",
        "kv_transfer_params", "ec_transfer_params", "metrics",
    ]  # fmt: skip
    assert list(answer["choices"][0]) == [
        "index", "text", "logprobs", "finish_reason", "stop_reason", "token_ids", "prompt_logprobs",
        "prompt_token_ids", "routed_experts",
    ]  # fmt: skip
    assert (answer["id"], answer["object"], answer["model"]) == ("cmpl-mine", "text_completion", "gpt-4o-mini")


async def test_a_stream_says_what_the_whole_answer_says(client: httpx.AsyncClient) -> None:
    fields: dict[str, Any] = {"prompt": ["東京 🚀", "b"], "n": 2, "max_tokens": 40}
    whole = await completed(client, **fields)
    events = await streamed(client, **fields)

    assert texts_of(events) == {choice["index"]: choice["text"] for choice in whole["choices"]}
    assert len({event["id"] for event in events}) == 1
    ends = [event for event in events if event["choices"][0]["finish_reason"]]
    assert [event["system_fingerprint"] for event in ends] == [whole["system_fingerprint"]] * 4
    assert sorted(event["choices"][0]["index"] for event in ends) == [0, 1, 2, 3]


async def test_the_usage_of_a_stream_is_that_of_all_calls_and_comes_last(client: httpx.AsyncClient) -> None:
    whole = await completed(client, prompt=["a", "b"])
    *chunks, last = await streamed(client, prompt=["a", "b"], stream_options={"include_usage": True})

    assert last["choices"] == []
    assert last["usage"] == {name: whole["usage"][name] for name in last["usage"]}
    assert not any("usage" in chunk for chunk in chunks)


async def test_the_prompt_is_echoed_before_each_of_its_texts(client: httpx.AsyncClient) -> None:
    fields: dict[str, Any] = {"prompt": ["Once ", "upon "], "n": 2, "max_tokens": 3}
    plain = await completed(client, **fields)
    echoed = await completed(client, **fields, echo=True)
    events = await streamed(client, **fields, echo=True)

    wanted = [["Once ", "upon "][choice["index"] // 2] + choice["text"] for choice in plain["choices"]]
    assert [choice["text"] for choice in echoed["choices"]] == wanted
    assert [texts_of(events)[index] for index in range(4)] == wanted


async def test_an_echo_alone_costs_no_call(client: httpx.AsyncClient, simulator: Simulator) -> None:
    fields: dict[str, Any] = {"prompt": [[24912, 2375], [24912]], "echo": True, "max_tokens": 0, "n": 2}
    answer = await completed(client, **fields)
    events = await streamed(client, **fields, stream_options={"include_usage": True})

    assert [choice["text"] for choice in answer["choices"]] == ["hello world", "hello world", "hello", "hello"]
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert answer["usage"]["prompt_tokens"] == 3
    assert texts_of(events) == {0: "hello world", 1: "hello world", 2: "hello", 3: "hello"}
    assert events[-1]["usage"] == {"prompt_tokens": 3, "total_tokens": 3, "completion_tokens": 0}
    assert sent_to(simulator) == []


async def test_log_probabilities_have_their_former_form(client: httpx.AsyncClient) -> None:
    answer = await completed(client, prompt="東京 🚀", logprobs=2, max_tokens=40)
    (choice,) = answer["choices"]
    logprobs = choice["logprobs"]

    assert list(logprobs) == ["text_offset", "token_logprobs", "tokens", "top_logprobs"]
    assert len({len(column) for column in logprobs.values()}) == 1
    for token, rated, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        assert top[token] == rated
        assert 2 <= len(top) <= 3
    # An offset is the place of the token in the text, though some tokens are parts of a character.
    for offset, token in zip(logprobs["text_offset"], logprobs["tokens"], strict=True):
        assert token.startswith("bytes:") or choice["text"][offset:].startswith(token)


async def test_log_probabilities_of_a_stream_are_those_of_the_whole_answer(client: httpx.AsyncClient) -> None:
    fields: dict[str, Any] = {"prompt": "東京 🚀", "logprobs": 1, "max_tokens": 30}
    whole = (await completed(client, **fields))["choices"][0]["logprobs"]
    parts = [event["choices"][0]["logprobs"] for event in await streamed(client, **fields)]

    for name in whole:
        assert [item for part in parts if part for item in part[name]] == whole[name]


async def test_logprobs_0_rate_the_tokens_that_stand_there(client: httpx.AsyncClient) -> None:
    logprobs = (await completed(client, prompt="a", logprobs=0, max_tokens=3))["choices"][0]["logprobs"]

    assert [list(top) for top in logprobs["top_logprobs"]] == [[token] for token in logprobs["tokens"]]


async def test_a_choice_among_texts_is_the_bare_text(client: httpx.AsyncClient) -> None:
    answer = await completed(client, prompt="Colour?", structured_outputs={"choice": ["red", "blue"]})

    assert answer["choices"][0]["text"] in ("red", "blue")


async def test_an_unknown_model_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post(COMPLETIONS, json={"prompt": "a", "model": "nope"})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "model")


# --- many prompts -----------------------------------------------------------------------------------------------------


async def test_64_prompts_are_streamed_whole_within_the_bound_of_calls(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    fields: dict[str, Any] = {"prompt": [f"prompt {number} [sim itl=0.001]" for number in range(64)], "n": 2}
    events = await streamed(client, **fields, max_tokens=12)
    most_live = simulator.traffic.most_live
    whole = await completed(client, **fields, max_tokens=12)

    assert texts_of(events) == {choice["index"]: choice["text"] for choice in whole["choices"]}
    assert sorted(texts_of(events)) == list(range(128))
    ended = [choice["index"] for event in events for choice in event["choices"] if choice["finish_reason"]]
    assert sorted(ended) == list(range(128))
    assert 1 < most_live <= CALLS_AT_ONCE
    assert simulator.traffic.most_live <= CALLS_AT_ONCE


async def test_choices_of_several_prompts_come_side_by_side(client: httpx.AsyncClient) -> None:
    events = await streamed(client, prompt=["a [sim tokens=20 itl=0.01]", "b [sim tokens=20 itl=0.01]"], max_tokens=20)
    order = [event["choices"][0]["index"] for event in events]

    assert order.index(1) < len(order) - 1 - order[::-1].index(0)
    assert order.index(0) < len(order) - 1 - order[::-1].index(1)


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_half_way_closes_every_call(
    client: httpx.AsyncClient, simulator: Simulator, stream: bool
) -> None:
    prompts = [f"{number} [sim tokens=1000 itl=0.05]" for number in range(64)]
    body = {"prompt": prompts, "max_tokens": 1000, "stream": stream}
    asking = asyncio.create_task(client.post(COMPLETIONS, json=body))
    await simulator.traffic.wait_for(lambda traffic: traffic.live == CALLS_AT_ONCE)

    asking.cancel()

    await simulator.traffic.wait_for(lambda traffic: traffic.live == 0, timeout_s=1)
    assert simulator.traffic.abandoned == CALLS_AT_ONCE
    assert len(simulator.traffic.exchanges) == CALLS_AT_ONCE


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_failure_is_the_answer_and_ends_the_other_calls(
    client: httpx.AsyncClient, simulator: Simulator, stream: bool
) -> None:
    prompts = ["a [sim ttft=30]", "b [sim fault=rate_limit]", "c [sim ttft=30]"]
    response = await client.post(COMPLETIONS, json={"prompt": prompts, "stream": stream})

    assert (response.status_code, response.json()["error"]["code"]) == (429, 429)
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 0, timeout_s=1)


async def test_a_failure_on_the_way_ends_the_stream_with_an_error(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    prompts = ["a [sim tokens=900 itl=0.01]", "b [sim fault=cut after=2]"]
    events = await streamed(client, prompt=prompts, max_tokens=900)

    assert events[-1]["error"]["code"] == 502
    assert not any("error" in event for event in events[:-1])
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 0, timeout_s=1)


# --- /invocations -----------------------------------------------------------------------------------------------------


async def test_an_invocation_with_messages_is_a_chat(client: httpx.AsyncClient) -> None:
    answer = await client.post("/invocations", json={"messages": [{"role": "user", "content": "hi"}]})

    assert answer.json()["object"] == "chat.completion"


async def test_an_invocation_with_a_prompt_is_a_text_completion(client: httpx.AsyncClient) -> None:
    answer = await client.post("/invocations", json={"prompt": "hi", "stream": True})

    assert '"object":"text_completion"' in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "prompt"), ({"messages": [], "n": "x"}, "body.n"), ({"prompt": "a", "n": "x"}, "body.n"), ([], "body")],
)
async def test_an_invocation_of_neither_is_refused_by_its_field(
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

    assert sent_to(simulator)[0]["model"] == "gpt-4o"
