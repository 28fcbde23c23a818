"""How each field of a chat request is handled: one rule per field, in the schema's order."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.core.errors.request_errors import RequestError
from app.features.llm.to_openai import field_mappers, token_mappers
from app.features.llm.to_openai.builder import RequestBuilder


class Handling(StrEnum):
    """How a field is handled if its value is neither null nor neutral; the value is for docs/parameters.md."""

    PASS = "passed"  # noqa: S105 - not a password
    TRANSLATE = "translated"
    IGNORE = "no effect"
    DROP = "dropped, reported"
    REJECT = "rejected"


Apply = Callable[[RequestBuilder, str, Any], None]


@dataclass(frozen=True, slots=True)
class ParameterRule:
    """How one field is handled."""

    handling: Handling
    note: str
    """Details for the table in docs/parameters.md."""
    apply: Apply
    neutral: tuple[object, ...] = ()
    """Values that mean the default. Many clients always send them, and some models reject even these."""
    always: bool = False
    """Whether the rule applies even if the client did not send the field."""


def _passed(note: str = "", *, neutral: tuple[object, ...] = ()) -> ParameterRule:
    def apply(builder: RequestBuilder, name: str, value: Any) -> None:
        builder.body[name] = value

    return ParameterRule(Handling.PASS, note, apply, neutral)


def _translated(apply: Apply, note: str, *, neutral: tuple[object, ...] = (), always: bool = False) -> ParameterRule:
    return ParameterRule(Handling.TRANSLATE, note, apply, neutral, always)


def _without_effect(note: str) -> ParameterRule:
    return ParameterRule(Handling.IGNORE, note, lambda _builder, _name, _value: None)


def _drop(builder: RequestBuilder, name: str, _value: object) -> None:
    builder.drop(name)


def _dropped(note: str = "OpenAI has no such control", *, neutral: tuple[object, ...] = ()) -> ParameterRule:
    return ParameterRule(Handling.DROP, note, _drop, neutral)


def _rejected(message: str, note: str, *, neutral: tuple[object, ...] = ()) -> ParameterRule:
    def apply(_builder: RequestBuilder, name: str, _value: object) -> None:
        raise RequestError(message.format(name=name), param=name)

    return ParameterRule(Handling.REJECT, note, apply, neutral)


_STOP = "found by this server if the model takes none; then `stop_reason` names it, and tokens after it may be billed"
_STOP_TOKENS = "found by this server, for reasoning models by the token's text; see `stop`"
_BAD_WORDS = (
    "a word of one token as `logit_bias` of -100; longer words, and all words for reasoning models: dropped, reported"
)
_RETURNED_IDS = "from OpenAI's log probabilities; for reasoning models and wrapped responses from the text, reported"
_NON_REASONING_ONLY = "dropped, reported for reasoning models"
_NOT_WHILE_REASONING = "dropped, reported while the model reasons"
_NOT_AVAILABLE = "`{name}` is not available: the upstream has no equivalent, and a response without it would mislead."
DISABLED_KWARGS = (
    "Per-request {name} are disabled by default because they can change multimodal preprocessing resource usage. "
    "Start the server with --trust-request-mm-kwargs only when clients are trusted. (parameter={name})"
)
PARAMETERS: dict[str, ParameterRule] = {
    "messages": _translated(
        field_mappers.messages, "keys, roles and parts that OpenAI does not know are left out or mapped"
    ),
    "model": _translated(field_mappers.model, "the OpenAI model that the served name maps to", always=True),
    "frequency_penalty": _translated(field_mappers.penalty, _NON_REASONING_ONLY, neutral=(0,)),
    "logit_bias": _translated(
        field_mappers.logit_bias, "rounded to integers between -100 and 100; " + _NON_REASONING_ONLY, neutral=({},)
    ),
    "logprobs": _translated(field_mappers.logprobs, "rejected while the model reasons", neutral=(False,)),
    "top_logprobs": _translated(field_mappers.logprobs, "rejected while the model reasons", neutral=(0,)),
    "max_tokens": _translated(field_mappers.max_tokens, "as `max_completion_tokens`, at most the model's output limit"),
    "max_completion_tokens": _translated(field_mappers.max_tokens, "at most the model's output limit"),
    "n": _translated(field_mappers.choices, f"at most {field_mappers.MAX_UPSTREAM_CHOICES}", neutral=(1,)),
    "presence_penalty": _translated(field_mappers.penalty, _NON_REASONING_ONLY, neutral=(0,)),
    "response_format": _translated(
        field_mappers.handled_elsewhere,
        "JSON schemas are made strict where that is equivalent; `structural_tag` is rejected",
    ),
    "seed": _passed("best effort at OpenAI", neutral=(-1,)),
    "stop": _translated(field_mappers.stop, _STOP, neutral=([],)),
    "stream": _translated(field_mappers.stream, "usage is always requested from OpenAI", neutral=(False,)),
    "stream_options": _translated(
        field_mappers.stream_options, "usage is shown if requested; running usage is counted by this server"
    ),
    "temperature": _translated(
        field_mappers.sampling, "`DEFAULT_TEMPERATURE` if absent; " + _NOT_WHILE_REASONING, always=True
    ),
    "top_p": _translated(field_mappers.sampling, _NOT_WHILE_REASONING, neutral=(1,)),
    "tools": _translated(field_mappers.tools, "`defer_loading` has no effect"),
    "tool_choice": _translated(field_mappers.tool_choice, "sent if there are tools"),
    "reasoning_effort": _translated(
        field_mappers.reasoning_effort, "the nearest level the model has; dropped, reported if it has none"
    ),
    "thinking_token_budget": _translated(
        field_mappers.thinking_token_budget,
        "0 as the lowest effort the model has; else dropped, reported",
        neutral=(-1,),
    ),
    "include_reasoning": _without_effect("Chat Completions has no reasoning text"),
    "parallel_tool_calls": _translated(
        field_mappers.parallel_tool_calls,
        "sent if there are tools; enforced by this server if the model has no such parameter",
        neutral=(True,),
    ),
    "user": _passed(),
    "use_beam_search": _rejected("beam search is not available", "", neutral=(False,)),
    "top_k": _translated(field_mappers.top_k, "1 as temperature 0; else dropped, reported", neutral=(0, -1)),
    "min_p": _dropped(neutral=(0,)),
    "repetition_penalty": _dropped(neutral=(1,)),
    "watermarking": _dropped(neutral=(False,)),
    "length_penalty": _without_effect("beam search only"),
    "stop_token_ids": _translated(token_mappers.stop_token_ids, _STOP_TOKENS, neutral=([],)),
    "include_stop_str_in_output": _translated(field_mappers.handled_elsewhere, "see `stop`", neutral=(False,)),
    "ignore_eos": _dropped(neutral=(False,)),
    "min_tokens": _dropped(neutral=(0,)),
    "skip_special_tokens": _without_effect("OpenAI sends text, without special tokens"),
    "spaces_between_special_tokens": _without_effect("OpenAI sends text, without special tokens"),
    "truncate_prompt_tokens": _translated(
        token_mappers.truncate_prompt_tokens, "no effect if the prompt is short enough; a longer one is rejected"
    ),
    "truncation_side": _without_effect("nothing is truncated"),
    "prompt_logprobs": _rejected(_NOT_AVAILABLE, ""),
    "logprob_token_ids": _rejected(_NOT_AVAILABLE, ""),
    "allowed_token_ids": _translated(
        token_mappers.allowed_token_ids,
        f"as `logit_bias` of 100; at most {token_mappers.MAX_BIASES}, rejected for reasoning models",
    ),
    "bad_words": _translated(token_mappers.bad_words, _BAD_WORDS, neutral=([],)),
    "echo": _translated(
        field_mappers.echo, "the last message before the response, if it is the assistant's", neutral=(False,)
    ),
    "add_generation_prompt": _translated(
        field_mappers.add_generation_prompt, "`false`: the response has the last message's role", neutral=(True,)
    ),
    "continue_final_message": _rejected(_NOT_AVAILABLE, "OpenAI cannot continue a message", neutral=(False,)),
    "add_special_tokens": _without_effect("OpenAI builds the prompt"),
    "documents": _dropped(neutral=([],)),
    "chat_template": _rejected(field_mappers.UNTRUSTED_TEMPLATE, "as in vLLM without `--trust-request-chat-template`"),
    "chat_template_kwargs": _translated(
        field_mappers.chat_template_kwargs,
        "`enable_thinking`, `reasoning_effort`; else dropped, reported",
        neutral=({},),
    ),
    "media_io_kwargs": _rejected(DISABLED_KWARGS, "as in vLLM without `--trust-request-mm-kwargs`", neutral=({},)),
    "mm_processor_kwargs": _rejected(DISABLED_KWARGS, "as in vLLM without `--trust-request-mm-kwargs`", neutral=({},)),
    "structured_outputs": _translated(
        field_mappers.handled_elsewhere,
        "`json`, `regex`, `choice`, `json_object`; `grammar`, `structural_tag` are rejected",
    ),
    "priority": _without_effect("OpenAI has its own scheduling"),
    "request_id": _translated(field_mappers.handled_elsewhere, "the response's id; the header `X-Request-Id` wins"),
    "session_id": _translated(field_mappers.cache_key, "as `prompt_cache_key`"),
    "return_tokens_as_token_ids": _translated(
        token_mappers.return_tokens_as_token_ids, "in `logprobs`", neutral=(False,)
    ),
    "return_token_ids": _translated(token_mappers.return_token_ids, _RETURNED_IDS, neutral=(False,)),
    "return_weight_versions": _dropped("the model runs at OpenAI", neutral=(False,)),
    "routed_experts_prompt_start": _without_effect("the model runs at OpenAI"),
    "return_token_offsets": _without_effect("vLLM's render endpoint only"),
    "return_prompt_text": _dropped(neutral=(False,)),
    "mm_payload": _without_effect("vLLM's render endpoint only"),
    "return_mm_kwargs": _without_effect("vLLM's render endpoint only"),
    "cache_salt": _translated(field_mappers.cache_key, "as `prompt_cache_key`, hashed"),
    "kv_transfer_params": _rejected(_NOT_AVAILABLE, ""),
    "ec_transfer_params": _rejected(_NOT_AVAILABLE, ""),
    "vllm_xargs": _dropped(neutral=({},)),
    "repetition_detection": _dropped(),
    "stream_interval": _without_effect("events are passed on as they arrive"),
}
