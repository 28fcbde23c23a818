"""What reaches OpenAI of each field."""

import json
from typing import Any

import pytest

from app.core.errors import Refusal
from app.core.record import RequestRecord, begin_record
from app.features.llm.catalogue import Catalogue
from app.features.llm.schema import ChatCompletionRequest
from app.features.llm.translation import ROWS, Fate, encode_request

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": None}}}}
EVERY_MODEL = Catalogue(None)


@pytest.fixture(autouse=True)
def record() -> RequestRecord:
    record = RequestRecord()
    begin_record(record)
    return record


def sent(**fields: Any) -> dict[str, Any]:
    """The upstream's body for a request with these fields, without the messages and the model."""
    request = ChatCompletionRequest.model_validate({"messages": [{"role": "user", "content": "hi"}], **fields})
    body: dict[str, Any] = json.loads(encode_request(request, EVERY_MODEL))
    return {name: value for name, value in body.items() if name not in {"messages", "model"}}


def test_every_field_of_the_schema_has_a_row_in_its_order() -> None:
    assert list(ROWS) == list(ChatCompletionRequest.model_fields)


def test_a_request_that_asks_for_nothing_special_sends_nothing_special() -> None:
    assert sent() == {}


NEUTRAL = {
    "frequency_penalty": 0, "presence_penalty": 0.0, "logprobs": False, "top_logprobs": 0, "n": 1, "seed": -1,
    "stop": [], "stream": False, "top_p": 1, "tool_choice": "none", "thinking_token_budget": -1,
    "parallel_tool_calls": True, "use_beam_search": False, "top_k": -1, "min_p": 0, "repetition_penalty": 1.0,
    "watermarking": False, "length_penalty": 1.0, "stop_token_ids": [], "include_stop_str_in_output": False,
    "ignore_eos": False, "min_tokens": 0, "bad_words": [], "echo": False, "continue_final_message": False,
    "chat_template_kwargs": {}, "mm_processor_kwargs": {}, "response_format": {"type": "text"}, "priority": 0,
}  # fmt: skip


def test_neutral_values_are_not_sent_and_not_told(record: RequestRecord) -> None:
    assert sent(**NEUTRAL) == {}
    assert record.ignored_params == []


def test_null_means_unset(record: RequestRecord) -> None:
    nullable = {name: None for name in ROWS if name not in {"messages", "bad_words", "min_tokens"}}
    accepted = {name: None for name in nullable if _takes_null(name)}

    assert sent(**accepted) == {}
    assert record.ignored_params == []


def _takes_null(name: str) -> bool:
    return "None" in str(ChatCompletionRequest.model_fields[name].annotation)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"temperature": 0.3}, {"temperature": 0.3}, id="temperature"),
        pytest.param({"temperature": 0}, {"temperature": 0.0}, id="temperature 0"),
        pytest.param({"seed": 0}, {"seed": 0}, id="seed 0"),
        pytest.param({"stop": "x"}, {"stop": "x"}, id="stop"),
        pytest.param({"user": "me"}, {"user": "me"}, id="user"),
        pytest.param({"max_tokens": 5}, {"max_completion_tokens": 5}, id="max_tokens"),
        pytest.param({"max_tokens": 5, "max_completion_tokens": 7}, {"max_completion_tokens": 7}, id="both limits"),
        pytest.param({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}, id="logprobs"),
        pytest.param({"logit_bias": {"5": -200.4, "6": 1.6}}, {"logit_bias": {"5": -100, "6": 2}}, id="logit_bias"),
        pytest.param({"session_id": "s"}, {"prompt_cache_key": "s"}, id="session_id"),
        pytest.param({"request_id": "r", "priority": 3, "mm_payload": "none"}, {}, id="no effect upstream"),
        pytest.param({"tools": [TOOL]}, {"tools": [TOOL]}, id="tools, nulls inside a schema kept"),
        pytest.param(
            {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
            {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
            id="tool choice",
        ),
        pytest.param({"tool_choice": "none", "parallel_tool_calls": False}, {}, id="no tools, no choice"),
        pytest.param(
            {"stream": True, "stream_options": {"include_usage": False}},
            {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
            id="usage is always asked for",
        ),
        pytest.param(
            {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": {"enum": [None]}}}},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": {"enum": [None]}}}},
            id="schema",
        ),
        pytest.param(
            {"model": "o3", "reasoning_effort": "high"}, {"reasoning_effort": "high"}, id="effort of a reasoning model"
        ),
    ],
)
def test_what_openai_knows_is_sent_in_its_form(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(**fields) == expected


def test_a_salt_is_hashed_and_gives_way_to_a_session() -> None:
    salted = sent(cache_salt="secret")["prompt_cache_key"]

    assert len(salted) == 32
    assert "secret" not in salted
    assert sent(cache_salt="secret", session_id="s")["prompt_cache_key"] == "s"


def test_numbers_are_never_retyped() -> None:
    request = ChatCompletionRequest(messages=[{"role": "user", "content": "hi"}], temperature=0.3)

    assert b'"temperature":0.3}' in encode_request(request, EVERY_MODEL)


@pytest.mark.parametrize(
    ("fields", "adjusted"),
    [
        ({"model": "gpt-4o-mini", "max_tokens": 20_000}, {"max_tokens": 16_384}),
        ({"model": "gpt-4o-mini", "max_completion_tokens": 20_000}, {"max_completion_tokens": 16_384}),
        ({"model": "o3", "reasoning_effort": "xhigh"}, {"reasoning_effort": "high"}),
        ({"model": "o3", "reasoning_effort": "none"}, {"reasoning_effort": "low"}),
        ({"model": "gpt-5", "reasoning_effort": "none"}, {"reasoning_effort": "minimal"}),
    ],
)
def test_what_the_model_cannot_do_in_full_is_adjusted_and_told(
    fields: dict[str, Any], adjusted: dict[str, object], record: RequestRecord
) -> None:
    body = sent(**fields)

    assert record.adjusted_params == adjusted
    assert set(adjusted.values()) <= set(body.values())


def test_an_unknown_model_has_no_limits_of_ours(record: RequestRecord) -> None:
    assert sent(model="new", max_tokens=10**6) == {"max_completion_tokens": 10**6}
    assert record.adjusted_params == {}


DROPPED: dict[str, Any] = {
    "reasoning_effort": "low", "thinking_token_budget": 5, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1,
    "watermarking": True, "include_stop_str_in_output": True, "ignore_eos": True, "min_tokens": 2,
    "documents": [{"text": "x"}], "chat_template_kwargs": {"enable_thinking": False}, "return_prompt_text": True,
    "vllm_xargs": {"a": 1}, "repetition_detection": {"min_count": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", DROPPED)
def test_what_openai_has_no_control_for_is_dropped_and_told(name: str, record: RequestRecord) -> None:
    assert sent(**{name: DROPPED[name]}) == {}
    assert record.ignored_params == [name]


def test_every_dropped_row_is_tried() -> None:
    assert {name for name, row in ROWS.items() if row.fate is Fate.DROP} <= set(DROPPED)


def test_dropped_fields_are_told_in_the_schemas_order(record: RequestRecord) -> None:
    sent(**dict(reversed(DROPPED.items())), foo=1, bar=2)

    assert record.ignored_params == [*DROPPED, "2 unknown"]


REFUSED: dict[str, Any] = {
    "use_beam_search": True, "stop_token_ids": [1], "truncate_prompt_tokens": 5, "prompt_logprobs": 1,
    "logprob_token_ids": [1], "allowed_token_ids": [1], "bad_words": ["x"], "echo": True,
    "continue_final_message": True, "chat_template": "x", "media_io_kwargs": {"a": {}}, "mm_processor_kwargs": {"a": 1},
    "structured_outputs": {"choice": ["a"]}, "return_tokens_as_token_ids": True, "return_token_ids": True,
    "kv_transfer_params": {}, "ec_transfer_params": {}, "n": 129, "response_format": {"type": "structural_tag"},
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_mislead_is_refused_by_name(name: str) -> None:
    with pytest.raises(Refusal) as caught:
        sent(**{name: REFUSED[name]})

    assert caught.value.answer.param == name
    assert caught.value.answer.status == 400


def test_every_refused_row_is_tried() -> None:
    assert {name for name, row in ROWS.items() if row.fate is Fate.REFUSE} <= set(REFUSED)


def test_continuous_usage_is_told_as_ignored(record: RequestRecord) -> None:
    sent(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})

    assert record.ignored_params == ["stream_options.continuous_usage_stats"]


def test_openais_json_rule_is_met_for_the_client(record: RequestRecord) -> None:
    request = ChatCompletionRequest.model_validate(
        {"messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "json_object"}}
    )
    messages = json.loads(encode_request(request, EVERY_MODEL))["messages"]

    assert [message["role"] for message in messages] == ["system", "user"]
    assert "JSON" in messages[0]["content"]
    assert record.adjusted_params == {"messages": "json"}


@pytest.mark.parametrize("content", ["Answer as Json", [{"type": "text", "text": "as JSON"}]])
def test_a_conversation_that_mentions_json_is_left_as_it_is(content: object) -> None:
    request = ChatCompletionRequest.model_validate(
        {"messages": [{"role": "user", "content": content}], "response_format": {"type": "json_object"}}
    )

    assert len(json.loads(encode_request(request, EVERY_MODEL))["messages"]) == 1
