"""Token fields, from the client to OpenAI and back over real sockets."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.core.tokenization import encoding
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import served_over

O200K = encoding("o200k_base")
MESSAGES = [{"role": "user", "content": "Say something. [sim tokens=12]"}]
USAGE = {"include_usage": True}
IMAGE = "data:image/png;base64," + "A" * 900


@asynccontextmanager
async def client_of(simulator: Simulator, **settings: object) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        served_over(simulator.base_url, served_models="*", **settings) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(simulator) as running:
        yield running


async def asked(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await client.post(CHAT, json={"messages": MESSAGES, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def chunks_of(client: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    response = await client.post(CHAT, json={"messages": MESSAGES, "stream": True, **fields})
    assert response.status_code == 200, response.text
    *events, done = response.text.strip().split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


def sent(simulator: Simulator) -> dict[str, Any]:
    body: dict[str, Any] = simulator.traffic.exchanges[-1].body
    return body


# --- return_token_ids, return_tokens_as_token_ids ---------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"model": "o3"}, {"structured_outputs": {"choice": ["red", "green"]}}])
async def test_token_ids_encode_the_response(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    answer = await asked(client, return_token_ids=True, **fields)
    choice = answer["choices"][0]

    assert O200K.decode(choice["token_ids"]) == choice["message"]["content"] != ""
    assert choice["logprobs"] is None
    assert "Say something." in O200K.decode(answer["prompt_token_ids"])


@pytest.mark.parametrize("fields", [{}, {"model": "o3"}, {"n": 2}])
async def test_the_token_ids_of_a_stream_encode_its_text(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    chunks = await chunks_of(client, return_token_ids=True, **fields)

    for index in range(fields.get("n", 1)):
        own = [chunk for chunk in chunks if chunk["choices"][0]["index"] == index]
        ids = [token for chunk in own for token in chunk["choices"][0].get("token_ids") or ()]
        assert O200K.decode(ids) == text_of(own) != ""
        assert "Say something." in O200K.decode(own[0]["prompt_token_ids"])


async def test_ids_from_the_text_are_reported(client: httpx.AsyncClient) -> None:
    body = {"messages": MESSAGES, "return_token_ids": True}
    exact, canonical = [await client.post(CHAT, json={**body, "model": model}) for model in ("gpt-4o", "o3")]

    assert "x-adjusted-params" not in exact.headers
    assert canonical.headers["x-adjusted-params"] == "return_token_ids=canonical"


async def test_requested_logprobs_stay_beside_the_ids(client: httpx.AsyncClient) -> None:
    choice = (await asked(client, return_token_ids=True, logprobs=True))["choices"][0]

    assert choice["logprobs"]["content"]


async def test_logprobs_name_tokens_by_id(client: httpx.AsyncClient) -> None:
    fields = {"return_tokens_as_token_ids": True, "logprobs": True, "top_logprobs": 2}
    choice = (await asked(client, return_token_ids=True, **fields))["choices"][0]
    shown = choice["logprobs"]["content"]

    assert [entry["token"] for entry in shown[:1]] == [f"token_id:{choice['token_ids'][0]}"]
    assert all(entry["token"].startswith("token_id:") for one in shown for entry in (one, *one["top_logprobs"]))


async def test_a_batch_has_ids_for_each_conversation_but_not_the_prompt(client: httpx.AsyncClient) -> None:
    body = {"messages": [MESSAGES, MESSAGES], "return_token_ids": True}
    answer = (await client.post(f"{CHAT}/batch", json=body)).json()

    assert answer["prompt_token_ids"] is None
    assert all(choice["token_ids"] for choice in answer["choices"])


# --- stop_token_ids ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gpt-4o", "o3"])
@pytest.mark.parametrize("include", [False, True])
async def test_a_stop_token_ends_the_response(client: httpx.AsyncClient, model: str, include: bool) -> None:
    whole = (await asked(client, model=model, return_token_ids=True))["choices"][0]
    text, stop = whole["message"]["content"], whole["token_ids"][3]
    place = text.index(O200K.decode([stop]))
    expected = text[: place + (len(O200K.decode([stop])) if include else 0)]
    fields = {"model": model, "stop_token_ids": [stop], "include_stop_str_in_output": include}

    choice = (await asked(client, **fields))["choices"][0]
    chunks = await chunks_of(client, **fields)

    assert (choice["message"]["content"], choice["finish_reason"], choice["stop_reason"]) == (expected, "stop", stop)
    assert choice["logprobs"] is None
    assert text_of(chunks) == expected
    assert chunks[-1]["choices"][0]["stop_reason"] == stop


async def test_stop_tokens_that_always_end_a_response_change_nothing(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    await asked(client, stop_token_ids=[199999, 200002, 200007, 200012, 200018])

    assert "logprobs" not in sent(simulator)


async def test_without_logprobs_part_of_a_character_cannot_stop(client: httpx.AsyncClient) -> None:
    part = next(token for token in O200K.encode("\N{PARTY POPPER}"))
    response = await client.post(CHAT, json={"messages": MESSAGES, "model": "o3", "stop_token_ids": [part]})

    assert response.headers["x-ignored-params"] == "stop_token_ids"


async def test_a_stream_with_usage_is_closed_at_its_stop(client: httpx.AsyncClient, simulator: Simulator) -> None:
    slow = [{"role": "user", "content": "Say something. [sim tokens=60 itl=0.3]"}]
    whole = await asked(
        client, messages=[{"role": "user", "content": "Say something. [sim tokens=60]"}], return_token_ids=True
    )
    stop = whole["choices"][0]["token_ids"][2]
    chunks = await chunks_of(client, messages=slow, stop_token_ids=[stop], stream_options=USAGE)

    await simulator.traffic.wait_for(lambda traffic: traffic.abandoned == 1 and traffic.live == 0)
    assert chunks[-1]["usage"]["completion_tokens"] <= 3
    assert chunks[-1]["usage"]["prompt_tokens"] > 0


async def test_a_reasoning_models_usage_at_a_stop_is_openais(client: httpx.AsyncClient, simulator: Simulator) -> None:
    chunks = await chunks_of(client, model="o3", stop=[" "], stream_options=USAGE)

    await simulator.traffic.wait_for(lambda traffic: traffic.answered == 1)
    assert chunks[-1]["usage"]["completion_tokens"] > 12


# --- bad_words, allowed_token_ids -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "biases", "told"),
    [
        pytest.param({"bad_words": ["hello"]}, {"24912": -100, "40617": -100}, {}, id="with and without a blank"),
        pytest.param({"bad_words": [" hello"]}, {"24912": -100, "40617": -100}, {}, id="blanks before it do not count"),
        pytest.param(
            {"bad_words": ["hello", "damn it all"]}, {"24912": -100, "40617": -100},
            {"x-ignored-params": "bad_words"}, id="a long word is told",
        ),
        pytest.param({"bad_words": ["damn it all"]}, None, {"x-ignored-params": "bad_words"}, id="only a long word"),
        pytest.param(
            {"bad_words": ["hello"], "logit_bias": {"24912": 5, "7": 1}}, {"24912": -100, "7": 1, "40617": -100}, {},
            id="a ban wins over a bias",
        ),
        pytest.param(
            {"allowed_token_ids": [5, 6], "logit_bias": {"5": -3, "9": 2}}, {"5": 97, "6": 100}, {},
            id="a bias on what is not allowed is left out",
        ),
        pytest.param(
            {"allowed_token_ids": [5], "logit_bias": {"5": 3}}, {"5": 100}, {"x-adjusted-params": "logit_bias=merged"},
            id="more than allowed there is not",
        ),
        pytest.param(
            {"allowed_token_ids": [5, 24912], "bad_words": ["hello"]}, {"5": 100, "24912": -100}, {},
            id="a ban among the allowed",
        ),
        pytest.param({"bad_words": ["x"], "model": "o3"}, None, {"x-ignored-params": "bad_words"}, id="reasoning"),
    ],
)  # fmt: skip
async def test_words_and_tokens_become_biases(
    client: httpx.AsyncClient, simulator: Simulator, fields: dict[str, Any], biases: object, told: dict[str, str]
) -> None:
    response = await client.post(CHAT, json={"messages": MESSAGES, **fields})

    assert response.status_code == 200, response.text
    assert sent(simulator).get("logit_bias") == biases
    headers = {"x-ignored-params", "x-adjusted-params"}
    assert {name: value for name, value in response.headers.items() if name in headers} == told


async def test_a_banned_word_is_not_generated(client: httpx.AsyncClient) -> None:
    messages = [{"role": "user", "content": "Say something. [sim tokens=60]"}]
    text = (await asked(client, messages=messages))["choices"][0]["message"]["content"]
    word = next(word for word in text.split() if len(O200K.encode(word)) == len(O200K.encode(" " + word)) == 1)
    banned = (await asked(client, messages=messages, bad_words=[word]))["choices"][0]["message"]["content"]

    assert word in text
    assert word not in banned.split()


async def test_only_allowed_tokens_are_generated(client: httpx.AsyncClient) -> None:
    allowed = [*O200K.encode(" cat"), *O200K.encode(" dog")]
    choice = (await asked(client, allowed_token_ids=allowed, return_token_ids=True))["choices"][0]

    assert set(choice["token_ids"]) <= set(allowed)
    assert choice["token_ids"]


# --- what is refused --------------------------------------------------------------------------------------------------

BEYOND = (
    "token_id(s) [200019] in {name} contain out-of-vocab token ids. Vocabulary size: 200019 "
    "(parameter={name}, value=[200019])"
)


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        pytest.param({"stop_token_ids": [5, 200_019]}, "stop_token_ids", BEYOND, id="stop beyond the vocabulary"),
        pytest.param({"logit_bias": {"200019": 1}}, "logit_bias", BEYOND, id="bias beyond the vocabulary"),
        pytest.param(
            {"allowed_token_ids": [-1]}, "allowed_token_ids",
            "allowed_token_ids contains out-of-vocab token id! (parameter={name}, value=[-1])", id="allowed beyond it",
        ),
        pytest.param(
            {"allowed_token_ids": []}, "allowed_token_ids",
            "allowed_token_ids is not None and empty! (parameter={name}, value=[])", id="nothing allowed",
        ),
        pytest.param(
            {"allowed_token_ids": list(range(1025))}, "allowed_token_ids",
            "allowed_token_ids must be at most 1024 ids with this upstream, got 1025.", id="too many allowed",
        ),
        pytest.param(
            {"allowed_token_ids": [5], "model": "o3"}, "allowed_token_ids",
            "`allowed_token_ids` is not available: this model takes no `logit_bias`.", id="allowed, reasoning",
        ),
        pytest.param(
            {"bad_words": ["a"] * 129}, "bad_words", "Too many bad words: 129. The max number is 128.",
            id="too many bad words",
        ),
        pytest.param(
            {"bad_words": [" ".join(["cat"] * 1200)]}, "bad_words",
            "Too many total bad word tokens: 2400. The max is 1024.", id="too long bad words",
        ),
        pytest.param(
            {"truncate_prompt_tokens": 3}, "truncate_prompt_tokens",
            "truncate_prompt_tokens=3 would truncate the conversation, which has 16 tokens: the upstream does not "
            "truncate conversations.", id="a prompt that would be truncated",
        ),
        pytest.param(
            {"truncate_prompt_tokens": 127_991, "max_tokens": 10}, "truncate_prompt_tokens",
            "truncate_prompt_tokens=127991 cannot be greater than max_model_len - max_tokens = 127990. Please request "
            "a smaller truncation size. (parameter=truncate_prompt_tokens, value=127991)", id="above the context",
        ),
    ],
)  # fmt: skip
async def test_unsupported_requests_are_rejected_in_vllms_words(
    client: httpx.AsyncClient, simulator: Simulator, fields: dict[str, Any], param: str, message: str
) -> None:
    response = await client.post(CHAT, json={"messages": MESSAGES, **fields})

    error = response.json()["error"]
    assert (response.status_code, error["param"], error["message"]) == (400, param, message.format(name=param))
    assert not simulator.traffic.exchanges


@pytest.mark.parametrize("name", ["stop_token_ids", "truncate_prompt_tokens", "return_token_ids", "stream_options"])
async def test_token_fields_need_a_known_tokenizer(client: httpx.AsyncClient, name: str) -> None:
    values: dict[str, Any] = {
        "stop_token_ids": [5], "truncate_prompt_tokens": 5, "return_token_ids": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }  # fmt: skip
    body = {"messages": MESSAGES, "model": "unheard-of", "stream": True, name: values[name]}
    response = await client.post(CHAT, json=body)

    assert (response.status_code, response.json()["error"]["param"]) == (400, name)


# --- the prompt's length ----------------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {"model_families": {"gpt-4o-mini": {"context": 50}}}
CUT = "Please reduce the length of the input prompt."


def saying(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


# The user's role, the marks around it and the answer's beginning are seven tokens.
@pytest.mark.parametrize(
    ("text", "param", "message"),
    [
        pytest.param(
            " cat" * 44, "input_tokens",
            "This model's maximum context length is 50 tokens. However, your prompt contains at least 51 input tokens, "
            f"which exceeds this limit even without any output tokens. {CUT} (parameter=input_tokens, value=51)",
            id="one too many",
        ),
        pytest.param(
            " cat" * 43, "max_tokens", "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)",
            id="no room for an answer",
        ),
        pytest.param(
            "a" * 6401, "input_text",
            "This model's maximum context length is 50 tokens. However, your prompt contains 6401 characters (more "
            "than 6400 characters, which is the upper bound for 50 input tokens). "
            f"{CUT} (parameter=input_text, value=6401)", id="characters",
        ),
    ],
)  # fmt: skip
async def test_a_prompt_beyond_the_context_is_rejected_before_a_call(
    simulator: Simulator, text: str, param: str, message: str
) -> None:
    async with client_of(simulator, **SMALL) as client:
        response = await client.post(CHAT, json=saying(text))

    error = response.json()["error"]
    assert (response.status_code, error["param"], error["message"]) == (400, param, message)
    assert not simulator.traffic.exchanges


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(" cat" * 42, id="text"),
        pytest.param(
            [{"type": "text", "text": " cat"}, {"type": "image_url", "image_url": {"url": IMAGE}}],
            id="an image is no text",
        ),
    ],
)  # fmt: skip
async def test_a_prompt_within_the_context_is_accepted(simulator: Simulator, content: Any) -> None:
    async with client_of(simulator, **SMALL) as client:
        response = await client.post(CHAT, json=saying(content, max_tokens=1))

    assert response.status_code == 200, response.text


async def test_a_prompt_limit_that_is_met_has_no_effect(client: httpx.AsyncClient) -> None:
    for limit in (16, -1):
        await asked(client, truncate_prompt_tokens=limit)


# --- continuous_usage_stats -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gpt-4o", "o3"])
async def test_each_chunk_has_the_usage_so_far(client: httpx.AsyncClient, model: str) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = await chunks_of(client, model=model, stream_options=options)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]

    assert counts[0] == 0
    assert counts == sorted(counts)
    assert counts[-1] == len(O200K.encode(text_of(chunks)))
    assert {chunk["usage"]["prompt_tokens"] for chunk in chunks} == {16}
    assert last["choices"] == []


async def test_without_include_usage_no_chunk_has_usage(client: httpx.AsyncClient) -> None:
    chunks = await chunks_of(client, stream_options={"continuous_usage_stats": True})

    assert not any("usage" in chunk for chunk in chunks)


# --- what costs nothing, and what comes together ----------------------------------------------------------------------


@pytest.mark.parametrize("parts", [[], [{"type": "image_url", "image_url": {"url": IMAGE * 150}}]])
async def test_an_ordinary_request_loads_no_vocabulary(client: httpx.AsyncClient, parts: list[dict[str, Any]]) -> None:
    before = encoding.cache_info()
    await asked(client, messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}, *parts]}])

    assert encoding.cache_info() == before


async def test_tools_are_part_of_the_prompt(client: httpx.AsyncClient) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "description": "Look a word up"}}
    answer = await asked(client, return_token_ids=True, tools=[tool], tool_choice="none")

    assert "Look a word up" in O200K.decode(answer["prompt_token_ids"])


async def test_a_stop_string_that_is_also_a_stop_token_is_reported_as_a_string(client: httpx.AsyncClient) -> None:
    stop = O200K.encode("e")[0]
    text = O200K.decode([stop])
    choice = (await asked(client, model="o3", stop=[text], stop_token_ids=[stop]))["choices"][0]

    assert choice["stop_reason"] == text


# Slow enough for the simulator to notice who leaves.
PACED = "Say something. [sim tokens=30 itl=0.02]"
PNG = [{"type": "text", "text": PACED}, {"type": "image_url", "image_url": {"url": IMAGE}}]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"messages": [{"role": "user", "content": PNG}]}, id="images"),
        pytest.param({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none"}, id="tools"),
        pytest.param({"response_format": {"type": "json_object"}}, id="a form"),
    ],
)
async def test_openais_usage_is_reported_if_only_openai_can_count(
    client: httpx.AsyncClient, simulator: Simulator, fields: dict[str, Any]
) -> None:
    asked_for = {"messages": [{"role": "user", "content": PACED}], **fields}
    chunks = await chunks_of(client, stop=["e"], include_stop_str_in_output=True, stream_options=USAGE, **asked_for)

    assert chunks[-2]["choices"][0]["stop_reason"] == "e"
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 0)
    assert (simulator.traffic.answered, simulator.traffic.abandoned) == (1, 0)
