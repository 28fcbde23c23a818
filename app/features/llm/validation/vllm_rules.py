"""vLLM's own checks of a request, in its order and its words (vLLM 0.32.0).

Each raises a `PydanticCustomError` of type `vllm` whose context names the parameter.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NoReturn

from pydantic_core import PydanticCustomError

from app.core.errors.validation_errors import VLLM_ERROR

MAX_CHOICES = 16384
MAX_PROMPTS = 1024
MAX_LOGPROBS = 20
SHOWN_CHARACTERS = 200
_TOKEN_ID = re.compile(r"-?[0-9]{1,18}", re.ASCII)


def fail(message: str, param: str | None) -> NoReturn:
    """Fail as vLLM's checks do.

    Raises:
        PydanticCustomError: always.
    """
    raise PydanticCustomError(VLLM_ERROR, "{message}", {"message": message, "param": param})


# vLLM repeats parameter and value only in the errors of its own validation class.
def _fail_with_value(message: str, param: str, value: object = None) -> NoReturn:
    shown = f"parameter={param}" if value is None else f"parameter={param}, value={value}"
    fail(f"{message} ({shown})", param)


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
        _fail_with_value("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if isinstance(prompt, list) and len(prompt) > MAX_PROMPTS and not isinstance(prompt[0], int):
        _fail_with_value(
            f"prompt list length {len(prompt)} exceeds the maximum allowed count of {MAX_PROMPTS}. "
            "To increase this limit, set the VLLM_MAX_COMPLETION_PROMPTS environment variable.",
            "prompt",
        )


def _prompt_is_text(body: Mapping[str, Any]) -> None:
    if body.get("prompt_embeds") is not None:
        _fail_with_value("You must set `--enable-prompt-embeds` to input `prompt_embeds`.", "prompt_embeds")


def _nothing_follows(body: Mapping[str, Any]) -> None:
    if body.get("suffix") is not None:
        fail("suffix is only supported for models with FIM completion rendering", "suffix")


def _logprobs_are_a_number(body: Mapping[str, Any]) -> None:
    asked = body.get("logprobs")
    if isinstance(asked, int) and asked < -1:
        _fail_with_value("`logprobs` must be a positive value or -1.", "logprobs", asked)


def _beams_are_no_stream(body: Mapping[str, Any]) -> None:
    if body.get("stream") and body.get("use_beam_search"):
        fail("Streaming is not currently supported with beam search", "use_beam_search")


def _messages_are_given(body: Mapping[str, Any]) -> None:
    if "messages" in body and body["messages"] is None:
        fail("`messages` must be a list of messages, got null.", "messages")


def _stream_options_need_a_stream(body: Mapping[str, Any]) -> None:
    if body.get("stream_options") and not body.get("stream"):
        _fail_with_value("Stream options can only be defined when `stream=True`.", "stream_options")


def _schema_is_given(body: Mapping[str, Any]) -> None:
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema" and form.get("json_schema") is None:
        _fail_with_value(
            "When response_format type is 'json_schema', the 'json_schema' field must be provided.", "response_format"
        )


def _prompt_logprobs_fit(body: Mapping[str, Any]) -> None:
    asked = body.get("prompt_logprobs")
    if not isinstance(asked, int):
        return
    if body.get("stream") and (asked > 0 or asked == -1):
        _fail_with_value("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")
    if asked < -1:
        _fail_with_value("`prompt_logprobs` must be a positive value or -1.", "prompt_logprobs", asked)


def _top_logprobs_fit(body: Mapping[str, Any]) -> None:
    asked = body.get("top_logprobs")
    if asked is None:
        return
    if not isinstance(asked, int):
        _fail_with_value("`top_logprobs` must be an integer.", "top_logprobs", asked)
    if asked < -1:
        _fail_with_value("`top_logprobs` must be a positive value or -1.", "top_logprobs", asked)
    if asked and not body.get("logprobs"):
        _fail_with_value("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")


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
        _fail_with_value(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.", "tools"
        )


def _tool_choice_fits(body: Mapping[str, Any]) -> None:
    choice, tools = body.get("tool_choice"), body.get("tools")
    if choice is None or choice == "none":
        return
    if not tools:
        _fail_with_value("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if isinstance(choice, dict):
        _named_tool_exists(choice, tools)
    elif choice not in ("auto", "required"):
        _fail_with_value(
            f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or "required" are supported.',
            "tool_choice",
            choice,
        )


def _named_tool_exists(choice: Mapping[str, Any], tools: object) -> None:
    usage = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`'
    function = choice.get("function")
    if not isinstance(function, dict):
        wrong = f"Invalid value for `function`: `{function}` in `tool_choice`! {usage}"
        _fail_with_value(wrong, "tool_choice.function", function)
    if not isinstance(function.get("name"), str):
        wrong = f"Invalid value for `name`: `{function.get('name')}` in `tool_choice`! {usage}"
        _fail_with_value(wrong, "tool_choice.function.name", function.get("name"))
    if isinstance(tools, list) and not any(_is_function(tool, function["name"]) for tool in tools):
        _fail_with_value(
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
        _fail_with_value("Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt")
    if len(salt) > 128 or any(character in salt for character in "@/\\\0"):
        _fail_with_value(
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


def check_values(request: Mapping[str, Any], given: Set[str]) -> None:
    """The checks of a chat request's values, whose types are right, by field name; `given` are those of the client."""
    conversation_is_not_empty(request["messages"])
    _check_each(_CHAT_VALUE_CHECKS, request, given)
    limit = request["max_completion_tokens"]
    _output_length_fits(request["max_tokens"] if limit is None else limit, request["min_tokens"])


def check_completion_values(request: Mapping[str, Any], given: Set[str]) -> None:
    """The same for a text completion."""
    if request["prompt"] == []:
        fail("You must pass at least one prompt", "prompt")
    if isinstance(request["prompt"], list) and any(prompt in ("", []) for prompt in request["prompt"]):
        fail("The decoder prompt cannot be empty", "prompt")
    _check_each(_COMPLETION_VALUE_CHECKS, request, given)
    if request["max_tokens"] != 0 or not request["echo"]:
        _output_length_fits(request["max_tokens"], request["min_tokens"])
    if request["echo"] and request["logprobs"] is not None:
        fail("`echo` with `logprobs` is not available: the upstream does not rate a prompt.", "echo")


def _check_each(checks: Mapping[str, Callable[[str, Any], None]], request: Mapping[str, Any], given: Set[str]) -> None:
    for name, check in checks.items():
        if name in given and (value := request[name]) is not None:
            check(name, value)


def conversation_is_not_empty(messages: Sequence[object]) -> None:
    """A prompt can only be made of something."""
    if not messages:
        fail("Cannot apply chat template to an empty conversation. Provide at least one message.", "messages")


def _choices(_name: str, value: int) -> None:
    if value < 1:
        fail(f"n must be at least 1, got {value}.", "n")
    if value > MAX_CHOICES:
        fail(
            f"n must be at most {MAX_CHOICES}, got {value}. "
            "To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable.",
            "n",
        )


def _penalty(name: str, value: float) -> None:
    if not -2 <= value <= 2:
        fail(f"{name} must be in [-2, 2], got {value}.", name)


def _repetition_penalty(name: str, value: float) -> None:
    if not math.isfinite(value):
        fail(f"{name} must be a finite number, got {value}.", name)
    if value <= 0:
        fail(f"{name} must be greater than zero, got {value}.", name)


def _temperature(name: str, value: float) -> None:
    if not math.isfinite(value):
        _fail_with_value(f"{name} must be a finite number, got {value}.", name, value)
    if value < 0:
        _fail_with_value(f"{name} must be non-negative, got {value}.", name, value)
    if value > 2:
        _fail_with_value(f"{name} must be in [0, 2], got {value}.", name, value)


def _top_p(name: str, value: float) -> None:
    if not 0 < value <= 1:
        _fail_with_value(f"{name} must be in (0, 1], got {value}.", name, value)


def _top_k(name: str, value: int) -> None:
    if value < -1:
        fail(f"{name} must be 0 (disable), or at least 1, got {value}.", name)


def _min_p(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        fail(f"{name} must be in [0, 1], got {value}.", name)


def _min_tokens(name: str, value: int) -> None:
    if value < 0:
        fail(f"{name} must be greater than or equal to 0, got {value}.", name)


def _stop(name: str, value: str | list[str]) -> None:
    if value == "" or "" in (value if isinstance(value, list) else ()):
        fail(f"{name} cannot contain an empty string.", name)


def _bad_words(name: str, value: list[str]) -> None:
    if "" in value:
        fail(f"{name} cannot contain an empty string. Got {name}={value}", name)


def _logit_bias(name: str, value: Mapping[str, float]) -> None:
    wrong = [key[:SHOWN_CHARACTERS] for key in value if not _TOKEN_ID.fullmatch(key)]
    if any(not math.isfinite(bias) for bias in value.values()):
        _fail_with_value(f"{name} values must be finite numbers.", name)
    if wrong:
        _fail_with_value(f"{name} contains key(s) that cannot be converted to integer token IDs: {wrong}", name, wrong)


def _sample_logprobs(_name: str, value: int) -> None:
    if value == -1 or value > MAX_LOGPROBS:
        shown = "the whole vocabulary" if value == -1 else value
        _fail_with_value(
            f"Requested sample logprobs of {shown}, which is greater than max allowed: {MAX_LOGPROBS}",
            "logprobs",
            value,
        )


# As vLLM shows its own object of these, in its order.
_CONSTRAINTS = ("json", "regex", "choice", "grammar", "json_object")
_OPTIONS = ("disable_any_whitespace", "disable_additional_properties", "whitespace_pattern")
_LAST_CONSTRAINT = "structural_tag"


def _structured_outputs(name: str, value: Any) -> None:
    given = value.model_dump(by_alias=True)
    shown = {key: given[key] for key in (*_CONSTRAINTS, *_OPTIONS, _LAST_CONSTRAINT)}
    kinds = [key for key in (*_CONSTRAINTS, _LAST_CONSTRAINT) if shown[key] is not None]
    if not kinds:
        fail(f"You must use one kind of structured outputs constraint but none are specified: {shown}", name)
    if len(kinds) > 1:
        fail(f"You can only use one kind of structured outputs constraint but multiple are specified: {shown}", name)
    if value.choice == []:
        fail("Choice '[]' cannot be an empty list", name)
    if value.json_object is False:
        fail("structured_outputs.json_object must be true where it is given, got False.", name)


_VALUE_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "n": _choices,
    "presence_penalty": _penalty,
    "frequency_penalty": _penalty,
    "repetition_penalty": _repetition_penalty,
    "temperature": _temperature,
    "top_p": _top_p,
    "top_k": _top_k,
    "min_p": _min_p,
    "min_tokens": _min_tokens,
    "stop": _stop,
    "bad_words": _bad_words,
    "logit_bias": _logit_bias,
    "structured_outputs": _structured_outputs,
}
_CHAT_VALUE_CHECKS = _VALUE_CHECKS | {"top_logprobs": _sample_logprobs}
_COMPLETION_VALUE_CHECKS = _VALUE_CHECKS | {"logprobs": _sample_logprobs}


def _output_length_fits(limit: int | None, least: int) -> None:
    if limit is None:
        return
    if limit < 1:
        # vLLM says max_tokens whichever of the two fields it was.
        _fail_with_value(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
    if least > limit:
        fail(f"min_tokens must be less than or equal to max_tokens={limit}, got {least}.", "min_tokens")
