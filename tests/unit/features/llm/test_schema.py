"""vLLM's request models, and vLLM's own checks with its error texts."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from app.core.errors.request_errors import ErrorResponse
from app.core.errors.validation_errors import validation_error_response
from app.features.llm.schema import ChatCompletionRequest, ChatMessage, CompletionRequest, MessageRole

MESSAGES: Any = [{"role": "user", "content": "Hello"}]
# The fields of vLLM 0.33.0's class, in the order of its own schema.
VLLM_FIELDS = json.loads((Path(__file__).parent / "vllm-0.33-chat-fields.json").read_text())


def test_the_defaults_are_the_owners() -> None:
    request = ChatCompletionRequest(messages=MESSAGES)

    assert (request.model, request.temperature) == ("gpt-4o-mini", 0.7)
    assert request.messages[0]["role"] == "user"
    assert request.model_fields_set == {"messages"}


def test_a_message_can_be_a_chat_message_model() -> None:
    messages: Any = [ChatMessage(role=MessageRole.USER, content="Hello")]

    assert ChatCompletionRequest(messages=messages).messages == MESSAGES


@pytest.mark.parametrize("fields", [{"messages": []}, {"messages": MESSAGES, "temperature": 2.5}])
def test_empty_messages_and_a_high_temperature_are_invalid(fields: Any) -> None:
    with pytest.raises(ValidationError):
        ChatCompletionRequest(**fields)


def test_the_fields_are_vllms_in_its_order() -> None:
    assert list(ChatCompletionRequest.model_fields) == VLLM_FIELDS


# Fields that vLLM itself declares differently for chat and for text completions.
DIFFERENT_FIELDS = {"model", "temperature", "logprobs", "max_tokens", "n", "echo", "add_special_tokens"}


def test_shared_fields_are_declared_identically() -> None:
    chat, text = ChatCompletionRequest.model_fields, CompletionRequest.model_fields
    different = {name for name in chat.keys() & text.keys() if _declaration(chat[name]) != _declaration(text[name])}

    assert different == DIFFERENT_FIELDS


def _declaration(field: FieldInfo) -> tuple[object, ...]:
    # Two `Field(…)` are never equal: a limited type compares equal only if both requests use the same named type.
    return field.annotation, field.metadata, field.default, field.default_factory


def test_unknown_keys_are_kept() -> None:
    request = ChatCompletionRequest.model_validate({"messages": MESSAGES, "foo": {"bar": 1}})

    assert request.model_extra == {"foo": {"bar": 1}}


@pytest.mark.parametrize(
    ("field", "given", "value"),
    [("temperature", "0.5", 0.5), ("stream", "true", True), ("max_tokens", 5.0, 5), ("stop", "x", "x")],
)
def test_values_are_coerced_as_pydantic_does(field: str, given: object, value: object) -> None:
    assert getattr(ChatCompletionRequest.model_validate({"messages": MESSAGES, field: given}), field) == value


def rejection(**fields: Any) -> ErrorResponse:
    with pytest.raises(ValidationError) as caught:
        ChatCompletionRequest.model_validate({"messages": MESSAGES, **fields})
    return validation_error_response(caught.value.errors())


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize("type_", ["custom", None, 1, ["function"]])
def test_a_named_tool_choice_of_another_type_is_rejected_in_vllms_words(type_: object) -> None:
    error = rejection(tools=[TOOL], tool_choice={**TOOL, "type": type_})

    heading, *lines = error.message.splitlines()
    assert heading == "4 validation errors:"
    assert ["'loc': 'tool_choice'" in line for line in lines] == [True, True, True, False]
    assert "'loc': 'tool_choice.type'" in lines[3]
    assert (error.param, error.type) == ("tool_choice", "Bad Request")


@pytest.mark.parametrize("role", ["user", "system", "developer", "tool", "critic"])
def test_null_as_content_is_rejected_where_the_role_needs_one(role: str) -> None:
    error = rejection(messages=[*MESSAGES, {"role": role, "content": None, "tool_call_id": "1"}])

    assert (error.param, error.type) == ("messages.1.content", "Bad Request")


@pytest.mark.parametrize("role", ["assistant", "function"])
def test_null_as_content_is_accepted_where_the_role_needs_none(role: str) -> None:
    messages = [{"role": role, "content": None, "name": "f"}]

    assert ChatCompletionRequest.model_validate({"messages": messages}).messages == messages


def test_a_named_tool_choice_keeps_its_keys() -> None:
    choice = {"function": {"name": "f", "x": 1}, "y": 2}

    request = ChatCompletionRequest.model_validate({"messages": MESSAGES, "tools": [TOOL], "tool_choice": choice})

    assert request.tool_choice == choice


VALUE = " (parameter={0}, value={1})"

# Error texts of a running vLLM 0.33.0.
OWN_CHECKS = [
    ({"messages": []}, "messages",
     "Cannot apply chat template to an empty conversation. Provide at least one message."),
    ({"temperature": -1}, "temperature",
     "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)"),
    ({"temperature": 2.5}, "temperature",
     "temperature must be in [0, 2], got 2.5. (parameter=temperature, value=2.5)"),
    ({"temperature": float("nan")}, "temperature",
     "temperature must be a finite number, got nan. (parameter=temperature, value=nan)"),
    ({"top_p": 0}, "top_p", "top_p must be in (0, 1], got 0.0. (parameter=top_p, value=0.0)"),
    ({"top_p": 1.001}, "top_p", "top_p must be in (0, 1], got 1.001. (parameter=top_p, value=1.001)"),
    ({"n": 0}, "n", "n must be at least 1, got 0."),
    ({"n": 20000}, "n", "n must be at most 16384, got 20000. To increase this limit, set the "
                        "VLLM_MAX_N_SEQUENCES environment variable."),
    ({"n": 2, "temperature": 0}, "n", "n must be 1 when using greedy sampling, got 2."),
    ({"max_tokens": 0}, "max_tokens", "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"),
    ({"max_completion_tokens": -1}, "max_tokens",
     "max_tokens must be at least 1, got -1. (parameter=max_tokens, value=-1)"),
    ({"presence_penalty": 3}, "presence_penalty", "presence_penalty must be in [-2, 2], got 3.0."),
    ({"frequency_penalty": -3}, "frequency_penalty", "frequency_penalty must be in [-2, 2], got -3.0."),
    ({"repetition_penalty": 0}, "repetition_penalty", "repetition_penalty must be greater than zero, got 0.0."),
    ({"repetition_penalty": float("inf")}, "repetition_penalty",
     "repetition_penalty must be a finite number, got inf."),
    ({"top_k": -2}, "top_k", "top_k must be 0 (disable), or at least 1, got -2."),
    ({"min_p": 2}, "min_p", "min_p must be in [0, 1], got 2.0."),
    ({"max_tokens": 2, "min_tokens": 10}, "min_tokens",
     "min_tokens must be less than or equal to max_tokens=2, got 10."),
    ({"max_completion_tokens": 2, "max_tokens": 10, "min_tokens": 5}, "min_tokens",
     "min_tokens must be less than or equal to max_tokens=2, got 5."),
    ({"min_tokens": -1}, "min_tokens", "min_tokens must be greater than or equal to 0, got -1."),
    ({"stop": ""}, "stop", "stop cannot contain an empty string."),
    ({"stop": ["a", ""]}, "stop", "stop cannot contain an empty string."),
    ({"bad_words": [""]}, "bad_words", "bad_words cannot contain an empty string. Got bad_words=['']"),
    ({"logit_bias": {"abc": 1}}, "logit_bias",
     "logit_bias contains key(s) that cannot be converted to integer token IDs: ['abc'] "
     "(parameter=logit_bias, value=['abc'])"),
    ({"logit_bias": {"5": float("nan")}}, "logit_bias",
     "logit_bias values must be finite numbers. (parameter=logit_bias)"),
    ({"logprobs": True, "top_logprobs": -1}, "logprobs",
     "Requested sample logprobs of the whole vocabulary, which is greater than max allowed: 20 "
     "(parameter=logprobs, value=-1)"),
    ({"logprobs": True, "top_logprobs": 25}, "logprobs",
     "Requested sample logprobs of 25, which is greater than max allowed: 20 (parameter=logprobs, value=25)"),
    ({"top_logprobs": 2}, "top_logprobs",
     "when using `top_logprobs`, `logprobs` must be set to true. (parameter=top_logprobs)"),
    ({"top_logprobs": -1}, "top_logprobs",
     "when using `top_logprobs`, `logprobs` must be set to true. (parameter=top_logprobs)"),
    ({"top_logprobs": "x"}, "top_logprobs",
     "`top_logprobs` must be an integer. (parameter=top_logprobs, value=x)"),
    ({"logprobs": True, "top_logprobs": -2}, "top_logprobs",
     "`top_logprobs` must be a positive value or -1. (parameter=top_logprobs, value=-2)"),
    ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs",
     "`prompt_logprobs` are not available when `stream=True`. (parameter=prompt_logprobs)"),
    ({"prompt_logprobs": -1, "stream": True}, "prompt_logprobs",
     "`prompt_logprobs` are not available when `stream=True`. (parameter=prompt_logprobs)"),
    ({"prompt_logprobs": -5}, "prompt_logprobs",
     "`prompt_logprobs` must be a positive value or -1. (parameter=prompt_logprobs, value=-5)"),
    ({"stream_options": {"include_usage": True}}, "stream_options",
     "Stream options can only be defined when `stream=True`. (parameter=stream_options)"),
    ({"response_format": {"type": "json_schema"}}, "response_format",
     "When response_format type is 'json_schema', the 'json_schema' field must be provided. "
     "(parameter=response_format)"),
    ({"structured_outputs": {"choice": ["a"], "regex": "b"}}, "structured_outputs",
     "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice')."),
    ({"structured_outputs": {"choice": []}}, "structured_outputs", "Choice '[]' cannot be an empty list"),
    ({"structured_outputs": {}}, "structured_outputs",
     "You must use one kind of structured outputs constraint but none are specified: {'json': None, 'regex': None, "
     "'choice': None, 'grammar': None, 'json_object': None, 'disable_any_whitespace': False, "
     "'disable_additional_properties': False, 'whitespace_pattern': None, 'structural_tag': None}"),
    ({"structured_outputs": {"grammar": "a", "json_object": True}}, "structured_outputs",
     "You can only use one kind of structured outputs constraint but multiple are specified: {'json': None, "
     "'regex': None, 'choice': None, 'grammar': 'a', 'json_object': True, 'disable_any_whitespace': False, "
     "'disable_additional_properties': False, 'whitespace_pattern': None, 'structural_tag': None}"),
    ({"structured_outputs": {"json_object": False}}, "structured_outputs",
     "structured_outputs.json_object must be true if it is given, got False."),
    ({"tools": []}, "tools",
     "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely. "
     "(parameter=tools)"),
    ({"tool_choice": "auto"}, "tool_choice", "When using `tool_choice`, `tools` must be set. (parameter=tool_choice)"),
    ({"tools": [TOOL], "tool_choice": "zzz"}, "tool_choice",
     'Invalid value for `tool_choice`: zzz! Only named tools, "none", "auto" or "required" are supported. '
     "(parameter=tool_choice, value=zzz)"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice",
     "The tool specified in `tool_choice` does not match any of the specified `tools` (parameter=tool_choice)"),
    ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.function",
     "Invalid value for `function`: `None` in `tool_choice`! Correct usage: "
     '`{"type": "function", "function": {"name": "my_function"}}` (parameter=tool_choice.function)'),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {}}}, "tool_choice.function.name",
     "Invalid value for `name`: `None` in `tool_choice`! Correct usage: "
     '`{"type": "function", "function": {"name": "my_function"}}` (parameter=tool_choice.function.name)'),
    ({"continue_final_message": True}, "continue_final_message",
     "continue_final_message and add_generation_prompt are not compatible. Use continue_final_message when you want "
     "the model to continue the final message, and add_generation_prompt when you want to add a header that will "
     "prompt it to start a new assistant message instead."),
    ({"structured_outputs": {"grammar": ""}}, "structured_outputs",
     "structured_outputs.grammar cannot be an empty string"),
    ({"add_generation_prompt": True, "continue_final_message": True}, "continue_final_message",
     "Cannot set both `continue_final_message` and `add_generation_prompt` to True."),
    ({"cache_salt": ""}, "cache_salt",
     "Parameter 'cache_salt' must be a non-empty string if provided. (parameter=cache_salt)"),
    ({"cache_salt": "a@b"}, "cache_salt",
     "Parameter 'cache_salt' must be at most 128 characters and must not contain '@', '/', '\\\\', or NUL. "
     "(parameter=cache_salt)"),
    ({"cache_salt": "a" * 129}, "cache_salt",
     "Parameter 'cache_salt' must be at most 128 characters and must not contain '@', '/', '\\\\', or NUL. "
     "(parameter=cache_salt)"),
    ({"messages": None}, "messages", "`messages` must be a list of messages, got null."),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param", "message"), OWN_CHECKS)
def test_vllms_own_checks_use_its_error_texts(fields: dict[str, Any], param: str, message: str) -> None:
    error = rejection(**fields).body()["error"]

    assert (error["type"], error["param"], error["message"]) == ("BadRequestError", param, message)


@pytest.mark.parametrize(
    "fields",
    [
        {"cache_salt": "a" * 128},
        {"presence_penalty": 2, "frequency_penalty": -2},
        {"presence_penalty": -2, "frequency_penalty": 2},
        {"logit_bias": {"-5": 1}},
        {"max_completion_tokens": 10, "max_tokens": 2, "min_tokens": 5},
        {"max_tokens": 5, "min_tokens": 5},
        {"logprobs": True, "top_logprobs": 20},
    ],
)
def test_values_at_vllms_limits_are_accepted(fields: dict[str, Any]) -> None:
    request = ChatCompletionRequest.model_validate({"messages": MESSAGES, **fields})

    assert request.model_dump(include=set(fields)) == fields


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 5}, "body.model"),
        ({"temperature": "hot"}, "body.temperature"),
        ({"n": 1.5}, "body.n"),
        ({"logprobs": 5}, "body.logprobs"),
        ({"seed": 2**63}, "body.seed"),
        ({"reasoning_effort": "ultra"}, "body.reasoning_effort"),
        ({"thinking_token_budget": True}, "body.thinking_token_budget"),
        ({"tools": [{"type": "custom"}]}, "body.tools.0.type"),
        ({"tools": [{"type": "function"}]}, "body.tools.0.function"),
        ({"messages": [{"role": "user", "content": 5}]}, "body.messages.0.content"),
        ({"messages": ["hi"]}, "body.messages.0"),
        ({"stream_interval": 0}, "body.stream_interval"),
    ],
)
def test_wrong_types_are_reported_by_location(fields: dict[str, Any], param: str) -> None:
    error = rejection(**fields).body()["error"]

    assert (error["type"], f"body.{error['param']}") == ("Bad Request", param)


@pytest.mark.parametrize("tools", [{}, 5, "x", [5], [{"function": 5}]])
def test_malformed_tools_with_a_named_tool_choice_are_a_400(tools: object) -> None:
    assert rejection(tools=tools, tool_choice={"type": "function", "function": {"name": "f"}}).status == 400
