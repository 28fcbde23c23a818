"""vLLM's checks of the parsed JSON body, which run before any type is validated (vLLM 0.33.0).

The error texts are vLLM's.
"""

from collections.abc import Callable, Mapping
from typing import Any

from app.features.llm.validation.vllm_error import fail, fail_with_value

MAX_PROMPTS = 1024


def check_chat_body(body: Mapping[str, Any]) -> None:
    """Check the parsed JSON body of a chat request.

    Raises:
        PydanticCustomError: a check failed; the context names the parameter.
    """
    _run_checks(_CHAT_CHECKS, body)


def check_completion_body(body: Mapping[str, Any]) -> None:
    """Check the parsed JSON body of a text completion.

    Raises:
        PydanticCustomError: a check failed; the context names the parameter.
    """
    _check_prompt(body)
    _run_checks(_COMPLETION_CHECKS, body)


def _run_checks(checks: "_Checks", body: Mapping[str, Any]) -> None:
    for name, check in checks:
        if name in body:
            check(body)


def _check_prompt(body: Mapping[str, Any]) -> None:
    prompt = body.get("prompt")
    if prompt in (None, "") and not body.get("prompt_embeds"):
        fail_with_value("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if isinstance(prompt, list) and len(prompt) > MAX_PROMPTS and not isinstance(prompt[0], int):
        fail_with_value(
            f"prompt list length {len(prompt)} exceeds the maximum allowed count of {MAX_PROMPTS}. "
            "To increase this limit, set the VLLM_MAX_COMPLETION_PROMPTS environment variable.",
            "prompt",
        )


def _reject_prompt_embeds(body: Mapping[str, Any]) -> None:
    if body.get("prompt_embeds") is not None:
        fail_with_value("You must set `--enable-prompt-embeds` to input `prompt_embeds`.", "prompt_embeds")


def _reject_suffix(body: Mapping[str, Any]) -> None:
    if body.get("suffix") is not None:
        fail("suffix is only supported for models with FIM completion rendering", "suffix")


def _check_logprobs(body: Mapping[str, Any]) -> None:
    logprobs = body.get("logprobs")
    if isinstance(logprobs, int) and logprobs < -1:
        fail_with_value("`logprobs` must be a positive value or -1.", "logprobs", logprobs)


def _reject_streamed_beams(body: Mapping[str, Any]) -> None:
    if body.get("stream") and body.get("use_beam_search"):
        fail("Streaming is not currently supported with beam search", "use_beam_search")


def _reject_null_messages(body: Mapping[str, Any]) -> None:
    if "messages" in body and body["messages"] is None:
        fail("`messages` must be a list of messages, got null.", "messages")


def _check_stream_options(body: Mapping[str, Any]) -> None:
    if body.get("stream_options") and not body.get("stream"):
        fail_with_value("Stream options can only be defined when `stream=True`.", "stream_options")


def _check_response_format(body: Mapping[str, Any]) -> None:
    value = body.get("response_format")
    if isinstance(value, dict) and value.get("type") == "json_schema" and value.get("json_schema") is None:
        fail_with_value(
            "When response_format type is 'json_schema', the 'json_schema' field must be provided.", "response_format"
        )


def _check_prompt_logprobs(body: Mapping[str, Any]) -> None:
    count = body.get("prompt_logprobs")
    if not isinstance(count, int):
        return
    if body.get("stream") and (count > 0 or count == -1):
        fail_with_value("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")
    if count < -1:
        fail_with_value("`prompt_logprobs` must be a positive value or -1.", "prompt_logprobs", count)


def _check_top_logprobs(body: Mapping[str, Any]) -> None:
    count = body.get("top_logprobs")
    if count is None:
        return
    if not isinstance(count, int):
        fail_with_value("`top_logprobs` must be an integer.", "top_logprobs", count)
    if count < -1:
        fail_with_value("`top_logprobs` must be a positive value or -1.", "top_logprobs", count)
    if count and not body.get("logprobs"):
        fail_with_value("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")


def _check_structured_outputs(body: Mapping[str, Any]) -> None:
    outputs = body.get("structured_outputs")
    if not isinstance(outputs, dict):
        return
    if sum(outputs.get(kind) is not None for kind in ("json", "regex", "choice")) > 1:
        fail(
            "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice').",
            "structured_outputs",
        )


def _reject_empty_tools(body: Mapping[str, Any]) -> None:
    if body.get("tools") == []:
        fail_with_value(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.", "tools"
        )


def _check_tool_choice(body: Mapping[str, Any]) -> None:
    choice, tools = body.get("tool_choice"), body.get("tools")
    if choice is None or choice == "none":
        return
    if not tools:
        fail_with_value("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if isinstance(choice, dict):
        _check_named_tool(choice, tools)
    elif choice not in ("auto", "required"):
        fail_with_value(
            f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or "required" are supported.',
            "tool_choice",
            choice,
        )


def _check_named_tool(choice: Mapping[str, Any], tools: object) -> None:
    usage = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`'
    function = choice.get("function")
    if not isinstance(function, dict):
        message = f"Invalid value for `function`: `{function}` in `tool_choice`! {usage}"
        fail_with_value(message, "tool_choice.function", function)
    if not isinstance(function.get("name"), str):
        message = f"Invalid value for `name`: `{function.get('name')}` in `tool_choice`! {usage}"
        fail_with_value(message, "tool_choice.function.name", function.get("name"))
    if isinstance(tools, list) and not any(_is_function(tool, function["name"]) for tool in tools):
        fail_with_value(
            "The tool specified in `tool_choice` does not match any of the specified `tools`", "tool_choice"
        )


def _is_function(tool: object, name: str) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and function.get("name") == name


def check_prompt_ending(body: Mapping[str, Any]) -> None:
    """Check that the last message is not both closed for a new response and left open to be continued.

    Raises:
        PydanticCustomError: it is.
    """
    if body.get("continue_final_message") and body.get("add_generation_prompt"):
        fail("Cannot set both `continue_final_message` and `add_generation_prompt` to True.", "continue_final_message")


def _check_cache_salt(body: Mapping[str, Any]) -> None:
    salt = body.get("cache_salt")
    if salt is None:
        return
    if not isinstance(salt, str) or not salt:
        fail_with_value("Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt")
    if len(salt) > 128 or any(character in salt for character in "@/\\\0"):
        fail_with_value(
            "Parameter 'cache_salt' must be at most 128 characters and must not contain '@', '/', '\\\\', or NUL.",
            "cache_salt",
        )


_Checks = tuple[tuple[str, Callable[[Mapping[str, Any]], None]], ...]

# In vLLM's order. A check runs only if its field is present.
_CHAT_CHECKS: _Checks = (
    ("messages", _reject_null_messages),
    ("stream_options", _check_stream_options),
    ("response_format", _check_response_format),
    ("prompt_logprobs", _check_prompt_logprobs),
    ("top_logprobs", _check_top_logprobs),
    ("structured_outputs", _check_structured_outputs),
    ("tools", _reject_empty_tools),
    ("tool_choice", _check_tool_choice),
    ("continue_final_message", check_prompt_ending),
    ("cache_salt", _check_cache_salt),
)

_COMPLETION_CHECKS: _Checks = (
    ("prompt_embeds", _reject_prompt_embeds),
    ("suffix", _reject_suffix),
    ("stream_options", _check_stream_options),
    ("response_format", _check_response_format),
    ("prompt_logprobs", _check_prompt_logprobs),
    ("logprobs", _check_logprobs),
    ("structured_outputs", _check_structured_outputs),
    ("use_beam_search", _reject_streamed_beams),
    ("cache_salt", _check_cache_salt),
)
