"""What becomes of each field of vLLM's chat request on its way to OpenAI."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from app.core.errors import Refusal
from app.core.record import current_record
from app.features.llm.catalogue import EFFORTS, Catalogue, ModelFamily
from app.features.llm.messages import Conversation
from app.features.llm.schema import ChatCompletionRequest, JSONObject, ResponseFormat, StreamOptions, Tool

MAX_UPSTREAM_CHOICES = 128


@dataclass(slots=True)
class Draft:
    """OpenAI's request body in the making."""

    request: ChatCompletionRequest
    upstream_model: str
    family: ModelFamily
    body: JSONObject = field(default_factory=dict)
    ignored: dict[str, None] = field(default_factory=dict)
    adjusted: dict[str, object] = field(default_factory=dict)
    unknown_keys: int = 0

    def ignored_params(self) -> list[str]:
        """Names of the fields without effect; keys that vLLM does not know either are only counted."""
        unknown = [f"{self.unknown_keys} unknown"] if self.unknown_keys else []
        return [*self.ignored, *unknown]


def encode_request(request: ChatCompletionRequest, catalogue: Catalogue) -> bytes:
    """The JSON body for OpenAI. What was ignored or adjusted goes into the request's record.

    Raises:
        Refusal: a field asks for what OpenAI cannot do, and an answer without it would mislead.
    """
    name = request.model or ""
    draft = Draft(request, catalogue.upstream_model(name), catalogue.family(name))
    given = request.model_fields_set
    for field_name, row in ROWS.items():
        if field_name in given or row.always:
            value = getattr(request, field_name)
            if value is not None and value not in row.neutral:
                row.apply(draft, field_name, value)
    draft.unknown_keys += len(request.model_extra or ())
    record = current_record()
    record.ignored_params = draft.ignored_params()
    record.adjusted_params = draft.adjusted
    try:
        return to_json(draft.body)
    except (PydanticSerializationError, UnicodeEncodeError):
        raise Refusal("The request has text that is not valid Unicode: a lone surrogate.") from None


# --- rows -------------------------------------------------------------------------------------------------------------


class Fate(StrEnum):
    """What becomes of a field whose value is neither null nor neutral."""

    PASS = "passed"  # noqa: S105 - no password
    TRANSLATE = "translated"
    IGNORE = "no effect"
    DROP = "dropped and told"
    REFUSE = "refused"


Apply = Callable[[Draft, str, Any], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One field's fate."""

    fate: Fate
    note: str
    """For the README's table."""
    apply: Apply
    neutral: tuple[object, ...] = ()
    """Values that ask for nothing: many clients send them always, and some models refuse even these."""
    always: bool = False
    """Whether the field counts even where the client left it out."""


def _passed(note: str = "", *, neutral: tuple[object, ...] = ()) -> Row:
    def apply(draft: Draft, name: str, value: Any) -> None:
        draft.body[name] = value

    return Row(Fate.PASS, note, apply, neutral)


def _translated(apply: Apply, note: str, *, neutral: tuple[object, ...] = (), always: bool = False) -> Row:
    return Row(Fate.TRANSLATE, note, apply, neutral, always)


def _without_effect(note: str) -> Row:
    return Row(Fate.IGNORE, note, lambda _draft, _name, _value: None)


def _drop(draft: Draft, name: str, _value: object) -> None:
    draft.ignored[name] = None


def _dropped(note: str = "OpenAI has no such control", *, neutral: tuple[object, ...] = ()) -> Row:
    return Row(Fate.DROP, note, _drop, neutral)


def _refused(message: str, note: str, *, neutral: tuple[object, ...] = ()) -> Row:
    def apply(_draft: Draft, name: str, _value: object) -> None:
        raise Refusal(message.format(name=name), param=name)

    return Row(Fate.REFUSE, note, apply, neutral)


_NOT_AVAILABLE = "`{name}` is not available: the upstream has no equivalent, and an answer without it would mislead."
_NOT_YET = "`{name}` is not available: it needs the model's tokenizer."
_DISABLED_KWARGS = (
    "Per-request {name} are disabled by default because they can change multimodal preprocessing resource usage. "
    "Start the server with --trust-request-mm-kwargs only when clients are trusted. (parameter={name})"
)
_UNTRUSTED_TEMPLATE = (
    "Chat template is passed with request, but --trust-request-chat-template is not set. "
    "Refused request with untrusted chat template."
)

# --- translations -----------------------------------------------------------------------------------------------------


def _messages(draft: Draft, _name: str, value: Any) -> None:
    conversation = Conversation(value)
    draft.ignored |= conversation.ignored
    draft.adjusted |= conversation.adjusted
    draft.unknown_keys += conversation.unknown_keys
    draft.body["messages"] = conversation.messages
    form = draft.request.response_format
    if form is not None and form.type == "json_object" and not conversation.mentions("json"):
        # OpenAI refuses json_object unless a message says so; vLLM's users never had to.
        draft.body["messages"].insert(0, {"role": "system", "content": "Answer with a JSON object."})
        draft.adjusted["messages"] = "json"


def _model(draft: Draft, _name: str, _value: str) -> None:
    draft.body["model"] = draft.upstream_model


def _max_tokens(draft: Draft, name: str, value: int) -> None:
    if name == "max_tokens" and draft.request.max_completion_tokens is not None:
        return
    limit = draft.family.output
    if limit is not None and value > limit:
        value = draft.adjusted[name] = limit
    draft.body["max_completion_tokens"] = value


def _choices(draft: Draft, name: str, value: int) -> None:
    if value > MAX_UPSTREAM_CHOICES:
        raise Refusal(f"n must be at most {MAX_UPSTREAM_CHOICES} with this upstream, got {value}.", param=name)
    draft.body[name] = value


def _logit_bias(draft: Draft, name: str, value: dict[str, float]) -> None:
    # vLLM clamps to the same range and takes fractions; OpenAI takes integers only.
    draft.body[name] = {token: round(max(-100, min(100, bias))) for token, bias in value.items()}


def _response_format(draft: Draft, name: str, value: ResponseFormat) -> None:
    if value.type == "text":
        return
    if value.type == "structural_tag":
        raise Refusal("response_format of type 'structural_tag' is not available with this upstream.", param=name)
    draft.body[name] = value.model_dump(include={"type", "json_schema"}, exclude_none=True, by_alias=True)


def _stream(draft: Draft, name: str, value: bool) -> None:
    draft.body[name] = value
    # Usage is always asked for; the client sees it if it asked. Obfuscation is padding nobody here reads.
    draft.body["stream_options"] = {"include_usage": True, "include_obfuscation": False}


def _stream_options(draft: Draft, name: str, value: StreamOptions) -> None:
    if value.continuous_usage_stats:
        draft.ignored[f"{name}.continuous_usage_stats"] = None


def _tools(draft: Draft, name: str, value: list[Tool]) -> None:
    draft.body[name] = [
        {"type": "function", "function": tool.function.model_dump(exclude={"defer_loading"}, exclude_none=True)}
        for tool in value
    ]


def _with_tools(draft: Draft, name: str, value: object) -> None:
    # OpenAI refuses a choice among no tools, even "none".
    if draft.request.tools:
        draft.body[name] = value


def _reasoning_effort(draft: Draft, name: str, value: str) -> None:
    levels = draft.family.efforts
    if not levels:
        draft.ignored[name] = None
        return
    wanted = EFFORTS.index(value)
    nearest = min(levels, key=lambda level: abs(EFFORTS.index(level) - wanted))
    if nearest != value:
        draft.adjusted[name] = nearest
    draft.body[name] = nearest


def _cache_key(draft: Draft, name: str, value: str) -> None:
    # A session keeps to its own key even where a salt asks for another.
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    draft.body.setdefault("prompt_cache_key", value if name == "session_id" and len(value) <= 64 else digest)


def _answered_by_us(_draft: Draft, _name: str, _value: object) -> None:
    """The field shapes our answer, not OpenAI's."""


ROWS: dict[str, Row] = {
    "messages": _translated(_messages, "keys, roles and parts OpenAI does not know are left out or mapped"),
    "model": _translated(_model, "the OpenAI model the served name stands for", always=True),
    "frequency_penalty": _passed(neutral=(0,)),
    "logit_bias": _translated(_logit_bias, "rounded to integers between -100 and 100", neutral=({},)),
    "logprobs": _passed(neutral=(False,)),
    "top_logprobs": _passed(neutral=(0,)),
    "max_tokens": _translated(_max_tokens, "as `max_completion_tokens`, at most the model's output limit"),
    "max_completion_tokens": _translated(_max_tokens, "at most the model's output limit"),
    "n": _translated(_choices, f"at most {MAX_UPSTREAM_CHOICES}", neutral=(1,)),
    "presence_penalty": _passed(neutral=(0,)),
    "response_format": _translated(_response_format, "`structural_tag` is refused"),
    "seed": _passed("best effort at OpenAI", neutral=(-1,)),
    "stop": _passed(neutral=([],)),
    "stream": _translated(_stream, "usage is always asked for", neutral=(False,)),
    "stream_options": _translated(_stream_options, "usage is shown if asked for"),
    "temperature": _passed("`DEFAULT_TEMPERATURE` where absent"),
    "top_p": _passed(neutral=(1,)),
    "tools": _translated(_tools, "`defer_loading` has no effect"),
    "tool_choice": _translated(_with_tools, "sent where there are tools"),
    "reasoning_effort": _translated(_reasoning_effort, "the nearest level the model has; told where it has none"),
    "thinking_token_budget": _dropped(neutral=(-1,)),
    "include_reasoning": _without_effect("OpenAI shows no reasoning here"),
    "parallel_tool_calls": _translated(_with_tools, "sent where there are tools", neutral=(True,)),
    "user": _passed(),
    "use_beam_search": _refused("beam search is not available", "", neutral=(False,)),
    "top_k": _dropped(neutral=(0, -1)),
    "min_p": _dropped(neutral=(0,)),
    "repetition_penalty": _dropped(neutral=(1,)),
    "watermarking": _dropped(neutral=(False,)),
    "length_penalty": _without_effect("beam search only"),
    "stop_token_ids": _refused(_NOT_YET, "", neutral=([],)),
    "include_stop_str_in_output": _dropped("OpenAI cuts the stop string off", neutral=(False,)),
    "ignore_eos": _dropped(neutral=(False,)),
    "min_tokens": _dropped(neutral=(0,)),
    "skip_special_tokens": _without_effect("OpenAI sends text, without special tokens"),
    "spaces_between_special_tokens": _without_effect("OpenAI sends text, without special tokens"),
    "truncate_prompt_tokens": _refused(_NOT_YET, ""),
    "truncation_side": _without_effect("nothing is truncated"),
    "prompt_logprobs": _refused(_NOT_AVAILABLE, ""),
    "logprob_token_ids": _refused(_NOT_AVAILABLE, ""),
    "allowed_token_ids": _refused(_NOT_YET, ""),
    "bad_words": _refused(_NOT_YET, "", neutral=([],)),
    "echo": _refused(_NOT_AVAILABLE, "", neutral=(False,)),
    "add_generation_prompt": _without_effect("OpenAI always answers with a new message"),
    "continue_final_message": _refused(_NOT_AVAILABLE, "OpenAI cannot go on with a message", neutral=(False,)),
    "add_special_tokens": _without_effect("OpenAI makes the prompt"),
    "documents": _dropped(neutral=([],)),
    "chat_template": _refused(_UNTRUSTED_TEMPLATE, "as vLLM does unless told to trust templates"),
    "chat_template_kwargs": _dropped(neutral=({},)),
    "media_io_kwargs": _refused(_DISABLED_KWARGS, "as vLLM does unless told to trust them", neutral=({},)),
    "mm_processor_kwargs": _refused(_DISABLED_KWARGS, "as vLLM does unless told to trust them", neutral=({},)),
    "structured_outputs": _refused(_NOT_AVAILABLE, "use `response_format`"),
    "priority": _without_effect("OpenAI schedules as it likes"),
    "request_id": _translated(_answered_by_us, "the answer's id; the header `X-Request-Id` wins"),
    "session_id": _translated(_cache_key, "as `prompt_cache_key`"),
    "return_tokens_as_token_ids": _refused(_NOT_YET, "", neutral=(False,)),
    "return_token_ids": _refused(_NOT_YET, "", neutral=(False,)),
    "routed_experts_prompt_start": _without_effect("the model is not ours"),
    "return_token_offsets": _without_effect("vLLM's render endpoint only"),
    "return_prompt_text": _dropped(neutral=(False,)),
    "mm_payload": _without_effect("vLLM's render endpoint only"),
    "return_mm_kwargs": _without_effect("vLLM's render endpoint only"),
    "cache_salt": _translated(_cache_key, "as `prompt_cache_key`, hashed"),
    "kv_transfer_params": _refused(_NOT_AVAILABLE, ""),
    "ec_transfer_params": _refused(_NOT_AVAILABLE, ""),
    "vllm_xargs": _dropped(neutral=({},)),
    "repetition_detection": _dropped(),
    "stream_interval": _without_effect("events are passed on as they come"),
}
