"""vLLM's checks of the values, which run once every type is valid (vLLM 0.33.0)."""

import math
import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from app.features.llm.validation.vllm_error import fail, fail_with_value

MAX_CHOICES = 16384
MAX_LOGPROBS = 20
SHOWN_CHARACTERS = 200
INCOMPATIBLE_ENDINGS = (
    "continue_final_message and add_generation_prompt are not compatible. Use continue_final_message when you want the "
    "model to continue the final message, and add_generation_prompt when you want to add a header that will prompt it "
    "to start a new assistant message instead."
)
_TOKEN_ID = re.compile(r"-?[0-9]{1,18}", re.ASCII)


def check_chat_values(request: Mapping[str, Any], given: Set[str]) -> None:
    """Check the values of a chat request, by field name; `given` names the fields the client set.

    Raises:
        PydanticCustomError: a check failed; the context names the parameter.
    """
    check_conversation(request["messages"])
    if request["continue_final_message"] and request["add_generation_prompt"]:
        fail(INCOMPATIBLE_ENDINGS, "continue_final_message")
    _run_checks(_CHAT_CHECKS, request, given)
    limit = request["max_completion_tokens"]
    _check_output_length(request["max_tokens"] if limit is None else limit, request["min_tokens"])
    if request["temperature"] == 0:
        _check_greedy_choices(request, given)


def check_completion_values(request: Mapping[str, Any], given: Set[str]) -> None:
    """Check the values of a text completion, by field name; `given` names the fields the client set.

    Raises:
        PydanticCustomError: a check failed; the context names the parameter.
    """
    if request["prompt"] == []:
        fail_with_value("You must pass at least one prompt", "prompt")
    if isinstance(request["prompt"], list) and any(prompt in ("", []) for prompt in request["prompt"]):
        fail("The decoder prompt cannot be empty", "prompt")
    _run_checks(_COMPLETION_CHECKS, request, given)
    if request["max_tokens"] != 0 or not request["echo"]:
        _check_output_length(request["max_tokens"], request["min_tokens"])
    if request["temperature"] == 0:
        _check_greedy_choices(request, given)
    if request["echo"] and request["logprobs"] is not None:
        fail(
            "`echo` with `logprobs` is not available: the upstream returns no log probabilities for the prompt.", "echo"
        )


def _run_checks(checks: Mapping[str, Callable[[str, Any], None]], request: Mapping[str, Any], given: Set[str]) -> None:
    for name, check in checks.items():
        if name in given and (value := request[name]) is not None:
            check(name, value)


def check_conversation(messages: Sequence[object]) -> None:
    """Check that a conversation has at least one message.

    Raises:
        PydanticCustomError: it is empty.
    """
    if not messages:
        fail("Cannot apply chat template to an empty conversation. Provide at least one message.", "messages")


def _check_n(_name: str, value: int) -> None:
    if value < 1:
        fail(f"n must be at least 1, got {value}.", "n")
    if value > MAX_CHOICES:
        fail(
            f"n must be at most {MAX_CHOICES}, got {value}. "
            "To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable.",
            "n",
        )


def check_batch_choices(choices: int | None) -> None:
    """Check that a batch asks for one choice per conversation.

    Raises:
        PydanticCustomError: it asks for more.
    """
    if choices is not None and choices > 1:
        fail_with_value("Batch chat completions do not support `n > 1`. Please set `n` to 1.", "n", choices)


def _check_greedy_choices(request: Mapping[str, Any], given: Set[str]) -> None:
    # Greedy choices would all be the same. Beam search has its own.
    choices = request["n"] or 1
    if choices > 1 and "temperature" in given and not request["use_beam_search"]:
        fail(f"n must be 1 when using greedy sampling, got {choices}.", "n")


def _check_penalty(name: str, value: float) -> None:
    if not -2 <= value <= 2:
        fail(f"{name} must be in [-2, 2], got {value}.", name)


def _check_repetition_penalty(name: str, value: float) -> None:
    if not math.isfinite(value):
        fail(f"{name} must be a finite number, got {value}.", name)
    if value <= 0:
        fail(f"{name} must be greater than zero, got {value}.", name)


def _check_temperature(name: str, value: float) -> None:
    if not math.isfinite(value):
        fail_with_value(f"{name} must be a finite number, got {value}.", name, value)
    if value < 0:
        fail_with_value(f"{name} must be non-negative, got {value}.", name, value)
    if value > 2:
        fail_with_value(f"{name} must be in [0, 2], got {value}.", name, value)


def _check_top_p(name: str, value: float) -> None:
    if not 0 < value <= 1:
        fail_with_value(f"{name} must be in (0, 1], got {value}.", name, value)


def _check_top_k(name: str, value: int) -> None:
    if value < -1:
        fail(f"{name} must be 0 (disable), or at least 1, got {value}.", name)


def _check_min_p(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        fail(f"{name} must be in [0, 1], got {value}.", name)


def _check_min_tokens(name: str, value: int) -> None:
    if value < 0:
        fail(f"{name} must be greater than or equal to 0, got {value}.", name)


def _check_stop(name: str, value: str | list[str]) -> None:
    if value == "" or "" in (value if isinstance(value, list) else ()):
        fail(f"{name} cannot contain an empty string.", name)


def _check_bad_words(name: str, value: list[str]) -> None:
    if "" in value:
        fail(f"{name} cannot contain an empty string. Got {name}={value}", name)


def _check_logit_bias(name: str, value: Mapping[str, float]) -> None:
    invalid = [key[:SHOWN_CHARACTERS] for key in value if not _TOKEN_ID.fullmatch(key)]
    if any(not math.isfinite(bias) for bias in value.values()):
        fail_with_value(f"{name} values must be finite numbers.", name)
    if invalid:
        fail_with_value(
            f"{name} contains key(s) that cannot be converted to integer token IDs: {invalid}", name, invalid
        )


def _check_sample_logprobs(_name: str, value: int) -> None:
    if value == -1 or value > MAX_LOGPROBS:
        shown = "the whole vocabulary" if value == -1 else value
        fail_with_value(
            f"Requested sample logprobs of {shown}, which is greater than max allowed: {MAX_LOGPROBS}",
            "logprobs",
            value,
        )


# vLLM's error texts show its own object: all of these keys, in this order.
_CONSTRAINTS = ("json", "regex", "choice", "grammar", "json_object")
_OPTIONS = ("disable_any_whitespace", "disable_additional_properties", "whitespace_pattern")
_LAST_CONSTRAINT = "structural_tag"


def _check_structured_outputs(name: str, value: Any) -> None:
    given = value.model_dump(by_alias=True)
    shown = {key: given[key] for key in (*_CONSTRAINTS, *_OPTIONS, _LAST_CONSTRAINT)}
    kinds = [key for key in (*_CONSTRAINTS, _LAST_CONSTRAINT) if shown[key] is not None]
    if not kinds:
        fail(f"You must use one kind of structured outputs constraint but none are specified: {shown}", name)
    if len(kinds) > 1:
        fail(f"You can only use one kind of structured outputs constraint but multiple are specified: {shown}", name)
    if value.grammar == "":
        fail("structured_outputs.grammar cannot be an empty string", name)
    if value.choice == []:
        fail("Choice '[]' cannot be an empty list", name)
    if value.json_object is False:
        fail("structured_outputs.json_object must be true if it is given, got False.", name)


_SHARED_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "n": _check_n,
    "presence_penalty": _check_penalty,
    "frequency_penalty": _check_penalty,
    "repetition_penalty": _check_repetition_penalty,
    "temperature": _check_temperature,
    "top_p": _check_top_p,
    "top_k": _check_top_k,
    "min_p": _check_min_p,
    "min_tokens": _check_min_tokens,
    "stop": _check_stop,
    "bad_words": _check_bad_words,
    "logit_bias": _check_logit_bias,
    "structured_outputs": _check_structured_outputs,
}
_CHAT_CHECKS = _SHARED_CHECKS | {"top_logprobs": _check_sample_logprobs}
_COMPLETION_CHECKS = _SHARED_CHECKS | {"logprobs": _check_sample_logprobs}


def _check_output_length(limit: int | None, minimum: int) -> None:
    if limit is None:
        return
    if limit < 1:
        # vLLM names max_tokens for both fields.
        fail_with_value(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
    if minimum > limit:
        fail(f"min_tokens must be less than or equal to max_tokens={limit}, got {minimum}.", "min_tokens")
