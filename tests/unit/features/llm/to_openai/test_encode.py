"""Chat requests encoded for OpenAI, field by field."""

import json
from typing import Any

import pytest

from app.core.errors.request_errors import RequestError
from app.core.request_record import RequestRecord, begin_record
from app.features.llm.catalogue import Catalogue
from app.features.llm.from_openai.plan import Envelope, ResponsePlan
from app.features.llm.schema import ChatCompletionRequest
from app.features.llm.to_openai.builder import UnsupportedParams
from app.features.llm.to_openai.encode import UpstreamCall, encode_request
from app.features.llm.to_openai.parameters import PARAMETERS, Handling
from tests.parameter_table import PAGE, with_table

TEXT = {"type": "text", "text": "ce"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": None}}}}
PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": ["integer", "null"]}}}
STRICT_PERSON = {**PERSON, "required": ["name", "age"], "additionalProperties": False}
EVERY_MODEL = Catalogue(None)


@pytest.fixture(autouse=True)
def record() -> RequestRecord:
    record = RequestRecord()
    begin_record(record)
    return record


def encode(unsupported_params: UnsupportedParams = "drop", **fields: Any) -> UpstreamCall:
    """Encode a request with these fields."""
    # The class default of temperature is the owner's 0.7.
    given = {"messages": [{"role": "user", "content": "hi"}], "temperature": None, **fields}
    request = ChatCompletionRequest.model_validate(given)
    return encode_request(request, EVERY_MODEL, unsupported_params)


def sent_fields(**fields: Any) -> dict[str, Any]:
    """Return the upstream body for a request with these fields, without the messages and the model."""
    body: dict[str, Any] = json.loads(encode(**fields).body)
    return {name: value for name, value in body.items() if name not in {"messages", "model"}}


def test_every_field_of_the_schema_has_a_rule_in_its_order() -> None:
    assert list(PARAMETERS) == list(ChatCompletionRequest.model_fields)


def test_a_plain_request_sends_no_optional_field() -> None:
    assert sent_fields() == {}


NEUTRAL = {
    "frequency_penalty": 0, "presence_penalty": 0.0, "logprobs": False, "top_logprobs": 0, "n": 1, "seed": -1,
    "stop": [], "stream": False, "top_p": 1, "tool_choice": "none", "thinking_token_budget": -1,
    "parallel_tool_calls": True, "use_beam_search": False, "top_k": -1, "min_p": 0, "repetition_penalty": 1.0,
    "watermarking": False, "length_penalty": 1.0, "stop_token_ids": [], "include_stop_str_in_output": False,
    "ignore_eos": False, "min_tokens": 0, "bad_words": [], "echo": False, "continue_final_message": False,
    "chat_template_kwargs": {}, "mm_processor_kwargs": {}, "response_format": {"type": "text"}, "priority": 0,
}  # fmt: skip


def test_neutral_values_are_neither_sent_nor_reported(record: RequestRecord) -> None:
    assert sent_fields(**NEUTRAL) == {}
    assert record.ignored_params == []


def test_null_means_unset(record: RequestRecord) -> None:
    nullable = {name: None for name in PARAMETERS if name not in {"messages", "bad_words", "min_tokens"}}
    accepted = {name: None for name in nullable if _takes_null(name)}

    assert sent_fields(**accepted) == {}
    assert record.ignored_params == []


def _takes_null(name: str) -> bool:
    return "None" in str(ChatCompletionRequest.model_fields[name].annotation)


SENT = [
    pytest.param({"temperature": 0.3}, {"temperature": 0.3}, id="temperature"),
    pytest.param({"temperature": 0}, {"temperature": 0.0}, id="temperature 0"),
    pytest.param({"seed": 0}, {"seed": 0}, id="seed 0"),
    pytest.param({"stop": "x"}, {"stop": "x"}, id="stop"),
    pytest.param({"user": "me"}, {"user": "me"}, id="user"),
    pytest.param({"max_tokens": 5}, {"max_completion_tokens": 5}, id="max_tokens"),
    pytest.param({"max_tokens": 5, "max_completion_tokens": 7}, {"max_completion_tokens": 7}, id="both limits"),
    pytest.param({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}, id="logprobs"),
    pytest.param({"logit_bias": {"5": -200.4, "6": 1.6}}, {"logit_bias": {"5": -100, "6": 2}}, id="logit_bias"),
    pytest.param({"session_id": "s" * 64}, {"prompt_cache_key": "s" * 64}, id="session_id"),
    pytest.param({"request_id": "r", "priority": 3, "mm_payload": "none"}, {}, id="no effect upstream"),
    pytest.param({"tools": [TOOL]}, {"tools": [TOOL]}, id="tools, nulls inside a schema kept"),
    pytest.param(
        {"tools": [{"function": {"name": "f", "parameters": {}, "defer_loading": True}}]},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        id="a tool without parameters",
    ),
    pytest.param(
        {"tools": [{"function": {"name": "f", "parameters": {"type": "object"}}}]},
        {
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
            ]
        },
        id="a tool without properties",
    ),
    pytest.param({"top_k": 1, "temperature": 0.9}, {"temperature": 0}, id="top_k 1 is greedy"),
    pytest.param(
        {"store": True, "service_tier": "flex"}, {"store": True, "service_tier": "flex"}, id="OpenAI's own fields"
    ),
    pytest.param({"service_tier": "fast"}, {"service_tier": "fast"}, id="the newest service tier"),
    pytest.param({"store": "yes", "service_tier": 5}, {}, id="OpenAI's own fields with invalid values"),
    pytest.param({"stop": ["a", "b"]}, {"stop": ["a", "b"]}, id="stops"),
    pytest.param(
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        id="tool choice",
    ),
    pytest.param(
        {"tools": [TOOL], "tool_choice": {"function": {"name": "f", "strict": True}, "foo": 1}},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        id="a named tool, without unknown keys",
    ),
    pytest.param({"tool_choice": "none", "parallel_tool_calls": False}, {}, id="no tools, no choice"),
    pytest.param(
        {"stream": True, "stream_options": {"include_usage": False}},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        id="usage is always requested",
    ),
    pytest.param(
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a b", "schema": PERSON, "strict": False},
            }
        },
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a_b", "schema": PERSON, "strict": False},
            }
        },
        id="a schema with strict false",
    ),
    pytest.param(
        {"model": "o3", "reasoning_effort": "high"}, {"reasoning_effort": "high"}, id="effort of a reasoning model"
    ),
]


@pytest.mark.parametrize(("fields", "expected"), SENT)
def test_fields_are_sent_in_openais_format(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent_fields(**fields) == expected


def test_a_cache_salt_is_hashed_together_with_the_session() -> None:
    sessions: list[dict[str, Any]] = [{}, {"session_id": "s"}]
    keys = [
        sent_fields(cache_salt=salt, **fields)["prompt_cache_key"]
        for salt in ("secret", "other")
        for fields in sessions
    ]

    assert len(set(keys)) == 4
    assert all(len(key) == 32 and "secret" not in key for key in keys)


def test_a_session_too_long_for_openai_is_hashed_and_reported(record: RequestRecord) -> None:
    assert len(sent_fields(session_id="s" * 65)["prompt_cache_key"]) == 32
    assert record.adjusted_params == {"session_id": "hashed"}


@pytest.mark.parametrize(
    ("bias", "adjusted"), [(1.6, {"logit_bias": "rounded"}), (-101, {"logit_bias": "rounded"}), (100, {})]
)
def test_a_rounded_bias_is_reported(bias: float, adjusted: dict[str, str], record: RequestRecord) -> None:
    sent_fields(logit_bias={"5": bias})

    assert record.adjusted_params == adjusted


def test_max_tokens_at_the_models_limit_is_not_adjusted(record: RequestRecord) -> None:
    assert sent_fields(model="gpt-4o-mini", max_tokens=16_384) == {"max_completion_tokens": 16_384}
    assert record.adjusted_params == {}


def test_changes_to_the_messages_are_reported(record: RequestRecord) -> None:
    encode(messages=[{"role": "critic", "content": "a", "reasoning_content": "b", "foo": 1}])

    assert record.ignored_params == ["messages.reasoning_content", "1 unknown"]
    assert record.adjusted_params == {"messages.0.role": "user"}


def test_unknown_keys_of_tools_are_counted_but_not_vllms_own(record: RequestRecord) -> None:
    tool = {"function": {"name": "f", "foo": 1, "defer_loading": True}, "bar": 2, "defer_loading": True}

    assert sent_fields(tools=[tool]) == {"tools": [{"type": "function", "function": {"name": "f"}}]}
    assert record.ignored_params == ["2 unknown"]


def test_numbers_keep_their_notation() -> None:
    request = ChatCompletionRequest(messages=[{"role": "user", "content": "hi"}], temperature=0.3)

    assert b'"temperature":0.3}' in encode_request(request, EVERY_MODEL).body


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
def test_values_beyond_the_model_are_adjusted_and_reported(
    fields: dict[str, Any], adjusted: dict[str, object], record: RequestRecord
) -> None:
    body = sent_fields(**fields)

    assert record.adjusted_params == adjusted
    assert set(adjusted.values()) <= set(body.values())


def test_max_tokens_is_raised_by_the_cost_of_the_envelope(record: RequestRecord) -> None:
    assert sent_fields(max_tokens=3, structured_outputs={"choice": ["a"]})["max_completion_tokens"] == 11
    assert record.adjusted_params == {"max_tokens": 11}


def test_an_unknown_model_has_no_local_limits(record: RequestRecord) -> None:
    assert sent_fields(model="new", max_tokens=10**6) == {"max_completion_tokens": 10**6}
    assert record.adjusted_params == {}


DROPPED: dict[str, Any] = {
    "reasoning_effort": "low", "thinking_token_budget": 5, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1,
    "watermarking": True, "ignore_eos": True, "min_tokens": 2,
    "documents": [{"text": "x"}], "chat_template_kwargs": {"foo": 1}, "return_weight_versions": True,
    "return_prompt_text": True, "vllm_xargs": {"a": 1}, "repetition_detection": {"min_count": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", DROPPED)
def test_unsupported_fields_are_dropped_and_reported(name: str, record: RequestRecord) -> None:
    assert sent_fields(**{name: DROPPED[name]}) == {}
    assert record.ignored_params == [name]


def test_every_dropped_field_is_tested() -> None:
    assert {name for name, rule in PARAMETERS.items() if rule.handling is Handling.DROP} <= set(DROPPED)


def test_dropped_fields_are_reported_in_the_schemas_order(record: RequestRecord) -> None:
    sent_fields(**dict(reversed(DROPPED.items())), foo=1, bar=2)

    assert record.ignored_params == [*DROPPED, "2 unknown"]


REJECTED: dict[str, Any] = {
    "use_beam_search": True, "prompt_logprobs": 1, "logprob_token_ids": [1], "allowed_token_ids": list(range(1025)),
    "continue_final_message": True, "chat_template": "x", "media_io_kwargs": {"a": {}}, "mm_processor_kwargs": {"a": 1},
    "structured_outputs": {"grammar": "a"},
    "kv_transfer_params": {}, "ec_transfer_params": {}, "n": 129, "response_format": {"type": "structural_tag"},
}  # fmt: skip


@pytest.mark.parametrize("name", REJECTED)
def test_fields_that_cannot_be_dropped_are_rejected_by_name(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        sent_fields(**{"add_generation_prompt": False, name: REJECTED[name]})

    assert caught.value.response.param == name
    assert caught.value.response.status == 400


def test_every_rejected_field_is_tested() -> None:
    assert {name for name, rule in PARAMETERS.items() if rule.handling is Handling.REJECT} <= set(REJECTED)


def test_a_json_instruction_is_added_if_openai_requires_it(record: RequestRecord) -> None:
    request = ChatCompletionRequest.model_validate(
        {"messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "json_object"}}
    )
    messages = json.loads(encode_request(request, EVERY_MODEL).body)["messages"]

    assert [message["role"] for message in messages] == ["system", "user"]
    assert "JSON" in messages[0]["content"]
    assert record.adjusted_params == {"messages": "json"}


@pytest.mark.parametrize("content", ["Answer as Json", [{"type": "text", "text": "as JSON"}]])
def test_a_conversation_that_mentions_json_is_unchanged(content: object) -> None:
    request = ChatCompletionRequest.model_validate(
        {"messages": [{"role": "user", "content": content}], "response_format": {"type": "json_object"}}
    )

    assert len(json.loads(encode_request(request, EVERY_MODEL).body)["messages"]) == 1


@pytest.mark.parametrize("name", DROPPED)
def test_unsupported_params_reject_rejects_dropped_fields(name: str) -> None:
    with pytest.raises(RequestError, match="UNSUPPORTED_PARAMS=reject") as caught:
        encode("reject", **{name: DROPPED[name]})

    assert caught.value.response.param == name


def test_unsupported_params_silent_reports_nothing(record: RequestRecord) -> None:
    encode("silent", **DROPPED, foo=1, messages=[{"role": "user", "content": "hi", "reasoning": "x"}])

    assert record.ignored_params == []


@pytest.mark.parametrize(
    ("fields", "expected", "ignored"),
    [
        pytest.param({"temperature": 0.3, "top_p": 0.5}, {}, ["temperature", "top_p"], id="sampling"),
        pytest.param({"temperature": 1, "top_p": 1}, {}, [], id="neutral sampling"),
        pytest.param({"top_k": 1}, {}, ["top_k"], id="greedy"),
        pytest.param(
            {"frequency_penalty": 1, "presence_penalty": 1, "logit_bias": {"5": 1}}, {},
            ["frequency_penalty", "logit_bias", "presence_penalty"], id="penalties",
        ),
        pytest.param({"chat_template_kwargs": {"enable_thinking": True}}, {}, [], id="thinking is its default"),
        pytest.param(
            {"chat_template_kwargs": {"reasoning_effort": "high"}}, {"reasoning_effort": "high"}, [], id="effort inside"
        ),
        pytest.param(
            {"chat_template_kwargs": {"foo": 1, "enable_thinking": True}}, {}, ["chat_template_kwargs"], id="unknown"
        ),
    ],
)  # fmt: skip
def test_fields_that_a_reasoning_model_rejects_are_not_sent(
    fields: dict[str, Any], expected: dict[str, Any], ignored: list[str], record: RequestRecord
) -> None:
    assert sent_fields(model="o3", **fields) == expected
    assert record.ignored_params == ignored


@pytest.mark.parametrize("fields", [{"logprobs": True}, {"logprobs": True, "top_logprobs": 2}])
def test_logprobs_of_a_reasoning_model_are_rejected(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="reasons"):
        sent_fields(model="o3", **fields)


def test_sampling_fields_are_sent_at_effort_none() -> None:
    fields = {"temperature": 0.3, "logprobs": True}

    assert sent_fields(model="gpt-5.5", reasoning_effort="none", **fields) == {"reasoning_effort": "none", **fields}
    assert sent_fields(model="gpt-5.1", **fields) == fields


@pytest.mark.parametrize(
    ("model", "fields", "effort", "adjusted"),
    [
        ("gpt-5.5", {"chat_template_kwargs": {"enable_thinking": False}}, "none", {}),
        ("gpt-5", {"chat_template_kwargs": {"thinking": False}}, "minimal", {"chat_template_kwargs": "minimal"}),
        ("gpt-5.1", {"chat_template_kwargs": {"enable_thinking": True}}, "medium", {}),
        ("gpt-5", {"chat_template_kwargs": {"reasoning_effort": "xhigh"}}, "high", {"chat_template_kwargs": "high"}),
        ("o3", {"thinking_token_budget": 0}, "low", {"thinking_token_budget": "low"}),
        ("gpt-5.5", {"thinking_token_budget": 0}, "none", {}),
        ("gpt-5.5", {"tools": [TOOL]}, "none", {"reasoning_effort": "none"}),
        ("gpt-5.5", {"tools": [TOOL], "reasoning_effort": "high"}, "none", {"reasoning_effort": "none"}),
        ("gpt-5.4", {"tools": [TOOL]}, "none", {}),
        ("gpt-5.2", {"tools": [TOOL], "reasoning_effort": "high"}, "high", {}),
    ],
)
def test_each_reasoning_field_maps_to_reasoning_effort(
    model: str, fields: dict[str, Any], effort: str, adjusted: dict[str, Any], record: RequestRecord
) -> None:
    assert sent_fields(model=model, **fields)["reasoning_effort"] == effort
    assert record.adjusted_params == adjusted


@pytest.mark.parametrize(
    "fields",
    [
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"chat_template_kwargs": {"reasoning_effort": "none"}},
        {"reasoning_effort": "none"},
        {"thinking_token_budget": 0},
    ],
)
def test_turning_thinking_off_has_no_effect_on_a_non_reasoning_model(fields: Any, record: RequestRecord) -> None:
    assert json.loads(encode("reject", model="gpt-4o-mini", **fields).body).keys() == {"model", "messages"}
    assert record.ignored_params == []


@pytest.mark.parametrize("kwargs", [{"enable_thinking": True}, {"reasoning_effort": "ultra"}, {"reasoning_effort": 5}])
def test_thinking_on_a_non_reasoning_model_is_reported(kwargs: dict[str, Any], record: RequestRecord) -> None:
    assert sent_fields(model="gpt-4o-mini", chat_template_kwargs=kwargs) == {}
    assert record.ignored_params == ["chat_template_kwargs"]


def test_tools_are_rejected_if_the_model_has_them_on_responses_only() -> None:
    with pytest.raises(RequestError, match="/v1/responses") as caught:
        sent_fields(model="gpt-6-astra", tools=[TOOL])

    assert caught.value.response.param == "tools"


def test_a_chat_template_in_the_kwargs_is_rejected() -> None:
    with pytest.raises(RequestError, match="untrusted chat template"):
        sent_fields(chat_template_kwargs={"chat_template": "x"})


@pytest.mark.parametrize(
    ("fields", "stops", "include"),
    [
        ({"model": "o3", "stop": "x"}, ("x",), False),
        ({"stop": ["x", "y"], "include_stop_str_in_output": True}, ("x", "y"), True),
        ({"stop": '"', "structured_outputs": {"choice": ["a"]}}, ('"',), False),
    ],
)
def test_stop_strings_that_openai_cannot_find_are_planned_locally(
    fields: dict[str, Any], stops: tuple[str, ...], include: bool
) -> None:
    call = encode(**fields)

    assert (call.plan.stops, call.plan.include_stop) == (stops, include)
    assert "stop" not in json.loads(call.body)


def test_an_ordinary_request_has_the_default_plan() -> None:
    assert encode(stop="x", include_stop_str_in_output=False).plan == ResponsePlan()
    assert encode(include_stop_str_in_output=True).plan == ResponsePlan()


@pytest.mark.parametrize(
    ("messages", "fields", "echo", "role"),
    [
        ([{"role": "assistant", "content": "Once"}], {"echo": True}, "Once", "assistant"),
        (
            [{"role": "assistant", "content": ["On", {"type": "text", "text": "ce"}]}],
            {"echo": True},
            "Once",
            "assistant",
        ),
        ([{"role": "user", "content": "Once"}], {"echo": True}, "", "assistant"),
        ([{"role": "user", "content": "Once"}], {"echo": True, "add_generation_prompt": False}, "Once", "user"),
    ],
)
def test_echo_is_the_last_message_of_the_response_role(
    messages: list[Any], fields: dict[str, Any], echo: str, role: str
) -> None:
    plan = encode(messages=messages, **fields).plan

    assert (plan.echo, plan.role) == (echo, role)


def test_parallel_tool_calls_false_is_enforced_locally_if_unsupported() -> None:
    fields: Any = {"tools": [TOOL], "parallel_tool_calls": False}

    assert encode(model="o3", **fields).plan.one_tool_call
    assert "parallel_tool_calls" not in sent_fields(model="o3", **fields)
    assert sent_fields(model="gpt-4o", **fields)["parallel_tool_calls"] is False


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_content_is_empty_beside_a_required_tool_call(choice: object) -> None:
    assert encode(tools=[TOOL], tool_choice=choice).plan.content_beside_calls == ""
    assert encode(tools=[TOOL], tool_choice="auto").plan.content_beside_calls is None


@pytest.mark.parametrize("choice", ["required", "auto", "none", None])
def test_calls_end_with_stop_only_if_the_request_names_the_tool(choice: object) -> None:
    named = {"type": "function", "function": {"name": "f"}}

    assert encode(tools=[TOOL], tool_choice=named).plan.finish_with_calls == "stop"
    assert encode(tools=[TOOL], tool_choice=choice).plan.finish_with_calls == "tool_calls"


def schema_sent(**fields: Any) -> tuple[dict[str, Any], Envelope | None]:
    call = encode(**fields)
    return json.loads(call.body)["response_format"]["json_schema"], call.plan.envelope


@pytest.mark.parametrize(
    "fields",
    [
        {"structured_outputs": {"json": PERSON}},
        {"structured_outputs": {"json": json.dumps(PERSON)}},
        {"guided_json": PERSON},
        {"guided_json": json.dumps(PERSON)},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": PERSON}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": PERSON}},
         "structured_outputs": {"json": {"type": "array"}}},
    ],
)  # fmt: skip
def test_a_schema_is_made_strict_from_every_field(fields: dict[str, Any], record: RequestRecord) -> None:
    form, envelope = schema_sent(**fields)

    assert form == {"name": "answer", "schema": STRICT_PERSON, "strict": True}
    assert envelope is None
    assert record.ignored_params == []


def test_a_schema_without_a_strict_form_is_sent_as_a_hint_and_reported(record: RequestRecord) -> None:
    loose = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    form, _ = schema_sent(structured_outputs={"json": loose})

    assert form == {"name": "answer", "schema": loose, "strict": False}
    assert record.ignored_params == ["structured_outputs.strict"]


def test_a_root_that_is_not_an_object_is_wrapped() -> None:
    form, envelope = schema_sent(structured_outputs={"json": {"type": "array", "items": {"type": "string"}}})

    assert envelope is Envelope.JSON
    assert form["schema"]["properties"]["value"]["type"] == "array"


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"structured_outputs": {"choice": ["a", "b", "a"]}}, {"type": "string", "enum": ["a", "b"]}),
        ({"guided_choice": ["a", "b"]}, {"type": "string", "enum": ["a", "b"]}),
        ({"structured_outputs": {"regex": "[a-c]{3}"}}, {"type": "string", "pattern": "^(?:[a-c]{3})$"}),
        ({"guided_regex": "a|b"}, {"type": "string", "pattern": "^(?:a|b)$"}),
    ],
)
def test_choices_and_regexes_are_sent_in_a_text_envelope(
    fields: dict[str, Any], value: dict[str, Any], record: RequestRecord
) -> None:
    form, envelope = schema_sent(**fields)

    assert (form["schema"]["properties"]["value"], form["strict"], envelope) == (value, True, Envelope.TEXT)
    assert record.ignored_params == []


def test_structured_json_object_is_sent_as_response_format() -> None:
    assert sent_fields(structured_outputs={"json_object": True}) == {"response_format": {"type": "json_object"}}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"structured_outputs": {"choice": ["a"]}, "response_format": {"type": "json_object"}}, "only use one kind"),
        ({"structured_outputs": {"json": "{"}}, "not JSON"),
        ({"structured_outputs": {"json": "[]"}}, "an object"),
        ({"structured_outputs": {"regex": "(a"}}, "invalid regex"),
        ({"structured_outputs": {"regex": "a\0"}}, "NUL"),
        ({"structured_outputs": {"regex": "(?=a)b"}}, "no look-around"),
        ({"structured_outputs": {"regex": "(?i)abc"}}, "invalid regex"),
        ({"structured_outputs": {"choice": [f"{number:060}" for number in range(300)]}}, "15000 characters"),
        ({"structured_outputs": {"choice": [str(number) for number in range(1001)]}}, "at most 1000"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structural_tag"),
        ({"guided_json": PERSON, "guided_regex": "a"}, "Only one of"),
        ({"guided_json": "0"}, "The schema in guided_json must be an object"),
        ({"guided_json": {"a": float("inf")}}, "JSON does not know"),
    ],
)
def test_unsupported_constraints_are_rejected(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        sent_fields(**fields)


@pytest.mark.parametrize("fields", [{"guided_json": 5}, {"guided_choice": "a"}, {"guided_regex": ""}])
def test_an_invalid_guided_key_is_counted_as_unknown(fields: dict[str, Any], record: RequestRecord) -> None:
    assert sent_fields(**fields) == {}
    assert record.ignored_params == ["1 unknown"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_nan_and_infinity_are_rejected(number: float) -> None:
    tool = {"function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"maximum": number}}}}}
    with pytest.raises(RequestError, match="JSON does not know") as caught:
        sent_fields(tools=[tool])

    assert caught.value.response.param == "tools"


def test_text_that_looks_like_nan_is_sent() -> None:
    assert sent_fields(user="NaN and -Infinity") == {"user": "NaN and -Infinity"}


def test_the_documented_table_is_generated_from_the_rules() -> None:
    page = PAGE.read_text()

    assert with_table(page) == page
    assert page.count("| `") > len(PARAMETERS)
