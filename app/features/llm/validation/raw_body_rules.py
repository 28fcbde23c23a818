"""vLLM's checks of a request's parsed JSON, before it looks at any type (vLLM 0.32.0)."""

from collections.abc import Callable, Mapping
from typing import Any

from app.features.llm.validation.vllm_error import fail, fail_with_value

MAX_PROMPTS = 1024


def check_form(body: Mapping[str, Any]) -> None:
    """The checks that vLLM makes on the parsed JSON of a chat request, before it looks at any type."""
    _check_form(_FORM_CHECKS, body)


def check_completion_form(body: Mapping[str, Any]) -> None:
    """The same for a text completion."""
    _prompt_is_given(body)
    _check_form(_COMPLETION_FORM_CHECKS, body)


def _check_form(checks: "_FormChecks", body: Mapping[str, Any]) -> None:
    for name, check in checks:
        if name in body:
            check(body)


def _prompt_is_given(body: Mapping[str, Any]) -> None:
    prompt = body.get("prompt")
    if prompt in (None, "") and not body.get("prompt_embeds"):
        fail_with_value("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if isinstance(prompt, list) and len(prompt) > MAX_PROMPTS and not isinstance(prompt[0], int):
        fail_with_value(
            f"prompt list length {len(prompt)} exceeds the maximum allowed count of {MAX_PROMPTS}. "
            "To increase this limit, set the VLLM_MAX_COMPLETION_PROMPTS environment variable.",
            "prompt",
        )


def _prompt_is_text(body: Mapping[str, Any]) -> None:
    if body.get("prompt_embeds") is not None:
        fail_with_value("You must set `--enable-prompt-embeds` to input `prompt_embeds`.", "prompt_embeds")


def _nothing_follows(body: Mapping[str, Any]) -> None:
    if body.get("suffix") is not None:
        fail("suffix is only supported for models with FIM completion rendering", "suffix")


def _logprobs_are_a_number(body: Mapping[str, Any]) -> None:
    asked = body.get("logprobs")
    if isinstance(asked, int) and asked < -1:
        fail_with_value("`logprobs` must be a positive value or -1.", "logprobs", asked)


def _beams_are_no_stream(body: Mapping[str, Any]) -> None:
    if body.get("stream") and body.get("use_beam_search"):
        fail("Streaming is not currently supported with beam search", "use_beam_search")


def _messages_are_given(body: Mapping[str, Any]) -> None:
    if "messages" in body and body["messages"] is None:
        fail("`messages` must be a list of messages, got null.", "messages")


def _stream_options_need_a_stream(body: Mapping[str, Any]) -> None:
    if body.get("stream_options") and not body.get("stream"):
        fail_with_value("Stream options can only be defined when `stream=True`.", "stream_options")


def _schema_is_given(body: Mapping[str, Any]) -> None:
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema" and form.get("json_schema") is None:
        fail_with_value(
            "When response_format type is 'json_schema', the 'json_schema' field must be provided.", "response_format"
        )


def _prompt_logprobs_fit(body: Mapping[str, Any]) -> None:
    asked = body.get("prompt_logprobs")
    if not isinstance(asked, int):
        return
    if body.get("stream") and (asked > 0 or asked == -1):
        fail_with_value("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")
    if asked < -1:
        fail_with_value("`prompt_logprobs` must be a positive value or -1.", "prompt_logprobs", asked)


def _top_logprobs_fit(body: Mapping[str, Any]) -> None:
    asked = body.get("top_logprobs")
    if asked is None:
        return
    if not isinstance(asked, int):
        fail_with_value("`top_logprobs` must be an integer.", "top_logprobs", asked)
    if asked < -1:
        fail_with_value("`top_logprobs` must be a positive value or -1.", "top_logprobs", asked)
    if asked and not body.get("logprobs"):
        fail_with_value("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")


def _one_constraint(body: Mapping[str, Any]) -> None:
    constraints = body.get("structured_outputs")
    if not isinstance(constraints, dict):
        return
    if sum(constraints.get(kind) is not None for kind in ("json", "regex", "choice")) > 1:
        fail(
            "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice').",
            "structured_outputs",
        )


def _tools_are_given(body: Mapping[str, Any]) -> None:
    if body.get("tools") == []:
        fail_with_value(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.", "tools"
        )


def _tool_choice_fits(body: Mapping[str, Any]) -> None:
    choice, tools = body.get("tool_choice"), body.get("tools")
    if choice is None or choice == "none":
        return
    if not tools:
        fail_with_value("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if isinstance(choice, dict):
        _named_tool_exists(choice, tools)
    elif choice not in ("auto", "required"):
        fail_with_value(
            f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or "required" are supported.',
            "tool_choice",
            choice,
        )


def _named_tool_exists(choice: Mapping[str, Any], tools: object) -> None:
    usage = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`'
    function = choice.get("function")
    if not isinstance(function, dict):
        wrong = f"Invalid value for `function`: `{function}` in `tool_choice`! {usage}"
        fail_with_value(wrong, "tool_choice.function", function)
    if not isinstance(function.get("name"), str):
        wrong = f"Invalid value for `name`: `{function.get('name')}` in `tool_choice`! {usage}"
        fail_with_value(wrong, "tool_choice.function.name", function.get("name"))
    if isinstance(tools, list) and not any(_is_function(tool, function["name"]) for tool in tools):
        fail_with_value(
            "The tool specified in `tool_choice` does not match any of the specified `tools`", "tool_choice"
        )


def _is_function(tool: object, name: str) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and function.get("name") == name


def one_way_to_end_the_prompt(body: Mapping[str, Any]) -> None:
    """A message is either ended for an answer or left open to be continued."""
    if body.get("continue_final_message") and body.get("add_generation_prompt"):
        fail("Cannot set both `continue_final_message` and `add_generation_prompt` to True.", "continue_final_message")


def _cache_salt_is_plain(body: Mapping[str, Any]) -> None:
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


_FormChecks = tuple[tuple[str, Callable[[Mapping[str, Any]], None]], ...]

# In vLLM's order. Each is made where its field is given.
_FORM_CHECKS: _FormChecks = (
    ("messages", _messages_are_given),
    ("stream_options", _stream_options_need_a_stream),
    ("response_format", _schema_is_given),
    ("prompt_logprobs", _prompt_logprobs_fit),
    ("top_logprobs", _top_logprobs_fit),
    ("structured_outputs", _one_constraint),
    ("tools", _tools_are_given),
    ("tool_choice", _tool_choice_fits),
    ("continue_final_message", one_way_to_end_the_prompt),
    ("cache_salt", _cache_salt_is_plain),
)

_COMPLETION_FORM_CHECKS: _FormChecks = (
    ("prompt_embeds", _prompt_is_text),
    ("suffix", _nothing_follows),
    ("stream_options", _stream_options_need_a_stream),
    ("response_format", _schema_is_given),
    ("prompt_logprobs", _prompt_logprobs_fit),
    ("logprobs", _logprobs_are_a_number),
    ("structured_outputs", _one_constraint),
    ("use_beam_search", _beams_are_no_stream),
    ("cache_salt", _cache_salt_is_plain),
)
