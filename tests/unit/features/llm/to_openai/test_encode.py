"""What reaches OpenAI of each field."""

import json
from typing import Any

import pytest

from app.core.errors.errors import RequestError
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


def call(unsupported_params: UnsupportedParams = "drop", **fields: Any) -> UpstreamCall:
    """The call to OpenAI for a request with these fields."""
    # The class default of temperature is the owner's 0.7.
    given = {"messages": [{"role": "user", "content": "hi"}], "temperature": None, **fields}
    request = ChatCompletionRequest.model_validate(given)
    return encode_request(request, EVERY_MODEL, unsupported_params)


def sent(**fields: Any) -> dict[str, Any]:
    """The upstream's body for a request with these fields, without the messages and the model."""
    body: dict[str, Any] = json.loads(call(**fields).body)
    return {name: value for name, value in body.items() if name not in {"messages", "model"}}


def test_every_field_of_the_schema_has_a_row_in_its_order() -> None:
    assert list(PARAMETERS) == list(ChatCompletionRequest.model_fields)


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
    nullable = {name: None for name in PARAMETERS if name not in {"messages", "bad_words", "min_tokens"}}
    accepted = {name: None for name in nullable if _takes_null(name)}

    assert sent(**accepted) == {}
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
    pytest.param({"store": True, "service_tier": "flex"}, {"store": True, "service_tier": "flex"}, id="OpenAI's own"),
    pytest.param({"store": "yes", "service_tier": 5}, {}, id="OpenAI's own with values it would refuse"),
    pytest.param({"stop": ["a", "b"]}, {"stop": ["a", "b"]}, id="stops"),
    pytest.param(
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        id="tool choice",
    ),
    pytest.param(
        {"tools": [TOOL], "tool_choice": {"function": {"name": "f", "strict": True}, "foo": 1}},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        id="a named tool, without what OpenAI does not know",
    ),
    pytest.param({"tool_choice": "none", "parallel_tool_calls": False}, {}, id="no tools, no choice"),
    pytest.param(
        {"stream": True, "stream_options": {"include_usage": False}},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        id="usage is always asked for",
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
        id="a schema the client wants loose",
    ),
    pytest.param(
        {"model": "o3", "reasoning_effort": "high"}, {"reasoning_effort": "high"}, id="effort of a reasoning model"
    ),
]


@pytest.mark.parametrize(("fields", "expected"), SENT)
def test_what_openai_knows_is_sent_in_its_form(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(**fields) == expected


def test_a_salt_is_hashed_together_with_the_session() -> None:
    asked: list[dict[str, Any]] = [{}, {"session_id": "s"}]
    keys = [sent(cache_salt=salt, **fields)["prompt_cache_key"] for salt in ("secret", "other") for fields in asked]

    assert len(set(keys)) == 4
    assert all(len(key) == 32 and "secret" not in key for key in keys)


def test_a_session_too_long_for_openai_is_hashed_and_told(record: RequestRecord) -> None:
    assert len(sent(session_id="s" * 65)["prompt_cache_key"]) == 32
    assert record.adjusted_params == {"session_id": "hashed"}


@pytest.mark.parametrize(
    ("bias", "adjusted"), [(1.6, {"logit_bias": "rounded"}), (-101, {"logit_bias": "rounded"}), (100, {})]
)
def test_a_rounded_bias_is_told(bias: float, adjusted: dict[str, str], record: RequestRecord) -> None:
    sent(logit_bias={"5": bias})

    assert record.adjusted_params == adjusted


def test_the_models_whole_output_is_nothing_to_adjust(record: RequestRecord) -> None:
    assert sent(model="gpt-4o-mini", max_tokens=16_384) == {"max_completion_tokens": 16_384}
    assert record.adjusted_params == {}


def test_what_becomes_of_the_messages_is_told(record: RequestRecord) -> None:
    call(messages=[{"role": "critic", "content": "a", "reasoning_content": "b", "foo": 1}])

    assert record.ignored_params == ["messages.reasoning_content", "1 unknown"]
    assert record.adjusted_params == {"messages.0.role": "user"}


def test_unknown_keys_of_tools_are_counted_and_vllms_own_are_not(record: RequestRecord) -> None:
    tool = {"function": {"name": "f", "foo": 1, "defer_loading": True}, "bar": 2, "defer_loading": True}

    assert sent(tools=[tool]) == {"tools": [{"type": "function", "function": {"name": "f"}}]}
    assert record.ignored_params == ["2 unknown"]


def test_numbers_are_never_retyped() -> None:
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
def test_what_the_model_cannot_do_in_full_is_adjusted_and_told(
    fields: dict[str, Any], adjusted: dict[str, object], record: RequestRecord
) -> None:
    body = sent(**fields)

    assert record.adjusted_params == adjusted
    assert set(adjusted.values()) <= set(body.values())


def test_the_wrapper_is_not_paid_for_from_the_clients_limit(record: RequestRecord) -> None:
    assert sent(max_tokens=3, structured_outputs={"choice": ["a"]})["max_completion_tokens"] == 11
    assert record.adjusted_params == {"max_tokens": 11}


def test_an_unknown_model_has_no_limits_of_ours(record: RequestRecord) -> None:
    assert sent(model="new", max_tokens=10**6) == {"max_completion_tokens": 10**6}
    assert record.adjusted_params == {}


DROPPED: dict[str, Any] = {
    "reasoning_effort": "low", "thinking_token_budget": 5, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1,
    "watermarking": True, "ignore_eos": True, "min_tokens": 2,
    "documents": [{"text": "x"}], "chat_template_kwargs": {"foo": 1}, "return_prompt_text": True,
    "vllm_xargs": {"a": 1}, "repetition_detection": {"min_count": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", DROPPED)
def test_what_openai_has_no_control_for_is_dropped_and_told(name: str, record: RequestRecord) -> None:
    assert sent(**{name: DROPPED[name]}) == {}
    assert record.ignored_params == [name]


def test_every_dropped_row_is_tried() -> None:
    assert {name for name, rule in PARAMETERS.items() if rule.handling is Handling.DROP} <= set(DROPPED)


def test_dropped_fields_are_told_in_the_schemas_order(record: RequestRecord) -> None:
    sent(**dict(reversed(DROPPED.items())), foo=1, bar=2)

    assert record.ignored_params == [*DROPPED, "2 unknown"]


REFUSED: dict[str, Any] = {
    "use_beam_search": True, "prompt_logprobs": 1, "logprob_token_ids": [1], "allowed_token_ids": list(range(1025)),
    "continue_final_message": True, "chat_template": "x", "media_io_kwargs": {"a": {}}, "mm_processor_kwargs": {"a": 1},
    "structured_outputs": {"grammar": "a"},
    "kv_transfer_params": {}, "ec_transfer_params": {}, "n": 129, "response_format": {"type": "structural_tag"},
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_mislead_is_refused_by_name(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        sent(**{name: REFUSED[name]})

    assert caught.value.response.param == name
    assert caught.value.response.status == 400


def test_every_refused_row_is_tried() -> None:
    assert {name for name, rule in PARAMETERS.items() if rule.handling is Handling.REJECT} <= set(REFUSED)


def test_openais_json_rule_is_met_for_the_client(record: RequestRecord) -> None:
    request = ChatCompletionRequest.model_validate(
        {"messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "json_object"}}
    )
    messages = json.loads(encode_request(request, EVERY_MODEL).body)["messages"]

    assert [message["role"] for message in messages] == ["system", "user"]
    assert "JSON" in messages[0]["content"]
    assert record.adjusted_params == {"messages": "json"}


@pytest.mark.parametrize("content", ["Answer as Json", [{"type": "text", "text": "as JSON"}]])
def test_a_conversation_that_mentions_json_is_left_as_it_is(content: object) -> None:
    request = ChatCompletionRequest.model_validate(
        {"messages": [{"role": "user", "content": content}], "response_format": {"type": "json_object"}}
    )

    assert len(json.loads(encode_request(request, EVERY_MODEL).body)["messages"]) == 1


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DROPPED)
def test_a_strict_operator_has_dropped_fields_refused(name: str) -> None:
    with pytest.raises(RequestError, match="UNSUPPORTED_PARAMS=reject") as caught:
        call("reject", **{name: DROPPED[name]})

    assert caught.value.response.param == name


def test_a_silent_operator_has_nothing_told(record: RequestRecord) -> None:
    call("silent", **DROPPED, foo=1, messages=[{"role": "user", "content": "hi", "reasoning": "x"}])

    assert record.ignored_params == []


# --- models that reason -----------------------------------------------------------------------------------------------


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
        pytest.param({"chat_template_kwargs": {"enable_thinking": True}}, {}, [], id="thinking is what it does"),
        pytest.param(
            {"chat_template_kwargs": {"reasoning_effort": "high"}}, {"reasoning_effort": "high"}, [], id="effort inside"
        ),
        pytest.param(
            {"chat_template_kwargs": {"foo": 1, "enable_thinking": True}}, {}, ["chat_template_kwargs"], id="unknown"
        ),
    ],
)  # fmt: skip
def test_what_a_reasoning_model_refuses_is_not_sent(
    fields: dict[str, Any], expected: dict[str, Any], ignored: list[str], record: RequestRecord
) -> None:
    assert sent(model="o3", **fields) == expected
    assert record.ignored_params == ignored


@pytest.mark.parametrize("fields", [{"logprobs": True}, {"logprobs": True, "top_logprobs": 2}])
def test_log_probabilities_of_a_reasoning_model_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="reasons"):
        sent(model="o3", **fields)


def test_a_model_told_not_to_reason_samples() -> None:
    fields = {"temperature": 0.3, "logprobs": True}

    assert sent(model="gpt-5.5", reasoning_effort="none", **fields) == {"reasoning_effort": "none", **fields}
    assert sent(model="gpt-5.1", **fields) == fields


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
def test_every_way_to_say_how_hard_to_think_becomes_an_effort(
    model: str, fields: dict[str, Any], effort: str, adjusted: dict[str, Any], record: RequestRecord
) -> None:
    assert sent(model=model, **fields)["reasoning_effort"] == effort
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
def test_turning_thinking_off_is_nothing_to_a_model_that_does_not(fields: Any, record: RequestRecord) -> None:
    assert json.loads(call("reject", model="gpt-4o-mini", **fields).body).keys() == {"model", "messages"}
    assert record.ignored_params == []


@pytest.mark.parametrize("kwargs", [{"enable_thinking": True}, {"reasoning_effort": "ultra"}, {"reasoning_effort": 5}])
def test_thinking_that_the_model_cannot_do_is_told(kwargs: dict[str, Any], record: RequestRecord) -> None:
    assert sent(model="gpt-4o-mini", chat_template_kwargs=kwargs) == {}
    assert record.ignored_params == ["chat_template_kwargs"]


def test_a_model_that_cannot_call_tools_here_says_so() -> None:
    with pytest.raises(RequestError, match="/v1/responses") as caught:
        sent(model="gpt-6-astra", tools=[TOOL])

    assert caught.value.response.param == "tools"


def test_a_chat_template_in_the_kwargs_is_refused_too() -> None:
    with pytest.raises(RequestError, match="untrusted chat template"):
        sent(chat_template_kwargs={"chat_template": "x"})


# --- what is left to this server --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "stops", "include"),
    [
        ({"model": "o3", "stop": "x"}, ("x",), False),
        ({"stop": ["x", "y"], "include_stop_str_in_output": True}, ("x", "y"), True),
        ({"stop": '"', "structured_outputs": {"choice": ["a"]}}, ('"',), False),
    ],
)
def test_stops_that_openai_cannot_find_are_found_here(
    fields: dict[str, Any], stops: tuple[str, ...], include: bool
) -> None:
    made = call(**fields)

    assert (made.plan.stops, made.plan.include_stop) == (stops, include)
    assert "stop" not in json.loads(made.body)


def test_an_ordinary_answer_is_read_as_it_is() -> None:
    assert call(stop="x", include_stop_str_in_output=False).plan == ResponsePlan()
    assert call(include_stop_str_in_output=True).plan == ResponsePlan()


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
def test_echo_is_the_last_message_of_the_answering_role(
    messages: list[Any], fields: dict[str, Any], echo: str, role: str
) -> None:
    plan = call(messages=messages, **fields).plan

    assert (plan.echo, plan.role) == (echo, role)


def test_a_single_tool_call_is_kept_here_where_the_model_takes_no_such_parameter() -> None:
    fields: Any = {"tools": [TOOL], "parallel_tool_calls": False}

    assert call(model="o3", **fields).plan.one_tool_call
    assert "parallel_tool_calls" not in sent(model="o3", **fields)
    assert sent(model="gpt-4o", **fields)["parallel_tool_calls"] is False


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_beside_a_tool_it_had_to_call_vllm_has_empty_content(choice: object) -> None:
    assert call(tools=[TOOL], tool_choice=choice).plan.content_beside_calls == ""
    assert call(tools=[TOOL], tool_choice="auto").plan.content_beside_calls is None


# --- constraints ------------------------------------------------------------------------------------------------------


def schema_sent(**fields: Any) -> tuple[dict[str, Any], Envelope | None]:
    made = call(**fields)
    return json.loads(made.body)["response_format"]["json_schema"], made.plan.envelope


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
def test_a_schema_is_made_strict_however_it_is_given(fields: dict[str, Any], record: RequestRecord) -> None:
    form, envelope = schema_sent(**fields)

    assert form == {"name": "answer", "schema": STRICT_PERSON, "strict": True}
    assert envelope is None
    assert record.ignored_params == []


def test_a_schema_that_cannot_be_strict_is_sent_as_a_hint_and_told(record: RequestRecord) -> None:
    loose = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    form, _ = schema_sent(structured_outputs={"json": loose})

    assert form == {"name": "answer", "schema": loose, "strict": False}
    assert record.ignored_params == ["structured_outputs.strict"]


def test_a_root_that_is_no_object_is_wrapped() -> None:
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
def test_choices_and_regexes_are_wrapped_as_text(
    fields: dict[str, Any], value: dict[str, Any], record: RequestRecord
) -> None:
    form, envelope = schema_sent(**fields)

    assert (form["schema"]["properties"]["value"], form["strict"], envelope) == (value, True, Envelope.TEXT)
    assert record.ignored_params == []


def test_a_json_object_may_be_asked_for_in_vllms_way() -> None:
    assert sent(structured_outputs={"json_object": True}) == {"response_format": {"type": "json_object"}}


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
def test_a_constraint_that_cannot_be_held_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        sent(**fields)


@pytest.mark.parametrize("fields", [{"guided_json": 5}, {"guided_choice": "a"}, {"guided_regex": ""}])
def test_a_guided_key_that_says_nothing_is_counted_as_unknown(fields: dict[str, Any], record: RequestRecord) -> None:
    assert sent(**fields) == {}
    assert record.ignored_params == ["1 unknown"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_lacks_is_refused(number: float) -> None:
    tool = {"function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"maximum": number}}}}}
    with pytest.raises(RequestError, match="JSON does not know") as caught:
        sent(tools=[tool])

    assert caught.value.response.param == "tools"


def test_text_that_looks_like_such_a_number_is_text() -> None:
    assert sent(user="NaN and -Infinity") == {"user": "NaN and -Infinity"}


def test_the_documented_table_is_generated_from_the_rows() -> None:
    page = PAGE.read_text()

    assert with_table(page) == page
    assert page.count("| `") > len(PARAMETERS)
