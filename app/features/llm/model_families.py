"""What each of OpenAI's models accepts: one row per model. To add a model, add a row to `MODELS`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import date
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import PydanticCustomError

from app.core.tokenization import EncodingName

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)
"""Levels of reasoning effort, ascending."""

Sampling = Literal["always", "at_none", "never"]
ToolsOn = Literal["chat", "chat_at_none", "responses", "nowhere"]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class ModelFamily:
    """What a model accepts on /v1/chat/completions. Lengths in tokens; None: not known."""

    context: Annotated[int, Field(gt=0)] | None = None
    """Prompt and output together: vLLM's `max_model_len`."""
    output: Annotated[int, Field(gt=0)] | None = None
    """The longest output, reasoning included."""
    efforts: tuple[Effort, ...] = ()
    """Levels of `reasoning_effort`, ascending; empty: the model does not accept the parameter."""
    default_effort: Effort | None = None
    """The effort if the request names none."""
    encoding: EncodingName | None = "o200k_base"
    """The tokenizer's encoding; None: not known."""
    sampling: Sampling | None = None
    """When the model accepts `temperature`, `top_p` and `logprobs`. The default depends on its efforts."""
    penalties: bool | None = None
    """Whether the model accepts penalties, `logit_bias` and `stop`. Default: only if it has no efforts."""
    choices: bool = True
    """Whether the model accepts `n`."""
    json_schema: bool = True
    """Whether the model accepts a `response_format` of type `json_schema`."""
    tools: ToolsOn = "chat"
    """Where the model accepts function tools: Chat, Chat at effort `none` only, /v1/responses only, or nowhere."""
    parallel_tool_calls: bool = True
    """Whether the model accepts `parallel_tool_calls`."""
    ends: date | None = None
    """The date on which OpenAI shuts the model down."""
    successor: str | None = None
    """The model that OpenAI recommends instead."""

    def __post_init__(self) -> None:
        if self.default_effort is not None and self.default_effort not in self.efforts:
            raise ValueError(f"default_effort {self.default_effort!r} is not one of efforts")
        if self.sampling is None:
            object.__setattr__(self, "sampling", "at_none" if self.efforts else "always")
        if self.penalties is None:
            object.__setattr__(self, "penalties", not self.efforts)

    @property
    def reasons(self) -> bool:
        """Whether the model accepts `reasoning_effort`."""
        return bool(self.efforts)

    def accepts_sampling(self, effort: Effort | None) -> bool:
        """Whether the model accepts `temperature`, `top_p` and `logprobs` at `effort`."""
        if self.sampling == "at_none":
            return (effort or self.default_effort) == "none"
        return self.sampling == "always"

    def nearest_effort(self, wanted: Effort) -> Effort:
        """Return the supported level closest to `wanted`; of two, the lower."""
        return min(self.efforts, key=lambda level: abs(EFFORTS.index(level) - EFFORTS.index(wanted)))


UNKNOWN_FAMILY = ModelFamily(encoding=None)
"""A model without a row. All parameters are sent, and OpenAI checks the limits."""

_THINKING: tuple[Effort, ...] = ("low", "medium", "high")
_LOW_TO_XHIGH: tuple[Effort, ...] = (*_THINKING, "xhigh")
_NONE_TO_XHIGH: tuple[Effort, ...] = ("none", *_LOW_TO_XHIGH)

_JULY, _AUGUST, _SEPTEMBER = date(2026, 7, 23), date(2026, 8, 10), date(2026, 9, 28)
_OCTOBER, _DECEMBER = date(2026, 10, 23), date(2026, 12, 11)
_JANUARY, _AUDIO_END, _APRIL = date(2027, 1, 14), date(2027, 1, 20), date(2027, 4, 1)

# Rows that several models share, except for their shutdown date.
_GPT_4 = ModelFamily(8_192, 8_192, encoding="cl100k_base", json_schema=False)
_GPT_4_TURBO = replace(_GPT_4, context=128_000, output=4_096)
_GPT_3_5 = replace(_GPT_4, context=16_385, output=4_096)
_GPT_4O = ModelFamily(128_000, 16_384)
_GPT_4_1 = ModelFamily(1_047_576, 32_768)
# LiteLLM's model map: no JSON schemas, not even in gpt-audio-1.5.
_AUDIO = ModelFamily(128_000, 16_384, json_schema=False)
_O_SERIES = ModelFamily(200_000, 100_000, _THINKING, "medium", parallel_tool_calls=False)
_CHAT_LATEST = ModelFamily(128_000, 16_384)
_GPT_5 = ModelFamily(400_000, 128_000, ("minimal", *_THINKING), "medium")
_GPT_5_1 = ModelFamily(400_000, 128_000, ("none", *_THINKING), "none")
_GPT_5_2 = ModelFamily(400_000, 128_000, _NONE_TO_XHIGH, "none")
_GPT_5_4 = ModelFamily(1_050_000, 128_000, _NONE_TO_XHIGH, "none", tools="chat_at_none")
_GPT_5_4_MINI = replace(_GPT_5_4, context=400_000)
_GPT_5_5 = replace(_GPT_5_4, default_effort="medium")
_ASTRA = ModelFamily(1_050_000, 128_000, _LOW_TO_XHIGH, "medium", tools="responses")
# Only verified parameters are sent: which others these models accept is unknown, and OpenAI might reject them.
_INSTANT = ModelFamily(400_000, 128_000, sampling="never", penalties=False)
_SEARCH = ModelFamily(
    400_000, 128_000, sampling="never", penalties=False, choices=False, tools="nowhere", parallel_tool_calls=False
)


def _until(ends: date, successor: str | None, family: ModelFamily) -> ModelFamily:
    return replace(family, ends=ends, successor=successor)


# OpenAI's model and deprecation pages, LiteLLM's model map and published probes, November 2026. A dated snapshot and a
# fine-tuned model have the row of their base, unless they have one of their own.
MODELS: Mapping[str, ModelFamily] = {
    "gpt-3.5-turbo": _until(_OCTOBER, "gpt-5.6-terra", _GPT_3_5),
    "gpt-3.5-turbo-1106": _until(_SEPTEMBER, "gpt-5.6-terra", _GPT_3_5),
    "gpt-4": _until(_OCTOBER, "gpt-5.6-sol", _GPT_4),
    "gpt-4-turbo": _until(_OCTOBER, "gpt-5.6-sol", _GPT_4_TURBO),
    "gpt-4o-mini": _until(_JANUARY, "gpt-6-luna", _GPT_4O),
    "gpt-4o": _until(_JANUARY, "gpt-6-luna", _GPT_4O),
    "gpt-4o-2024-05-13": _until(_OCTOBER, "gpt-5.6-sol", replace(_GPT_4O, output=4_096, json_schema=False)),
    "gpt-4.1": _until(_JANUARY, "gpt-6-luna", _GPT_4_1),
    "gpt-4.1-mini": _until(_JANUARY, "gpt-6-luna", _GPT_4_1),
    "gpt-4.1-nano": _until(_OCTOBER, "gpt-5.6-luna", _GPT_4_1),
    "gpt-audio": _until(_AUDIO_END, "gpt-audio-1.5", _AUDIO),
    "gpt-audio-mini": _until(_AUDIO_END, "gpt-audio-1.5", _AUDIO),
    "gpt-audio-mini-2025-10-06": _until(_JULY, "gpt-audio-1.5", _AUDIO),
    "gpt-audio-1.5": _AUDIO,
    "o1": _until(_OCTOBER, "gpt-5.6-sol", _O_SERIES),
    "o3": _until(_DECEMBER, "gpt-6.1-terra", _O_SERIES),
    "o3-mini": _until(_OCTOBER, "gpt-5.6-sol", _O_SERIES),
    "o4-mini": _until(_OCTOBER, "gpt-5.6-terra", _O_SERIES),
    "gpt-5": _until(_DECEMBER, "gpt-6.1-sol", _GPT_5),
    "gpt-5-mini": _until(_DECEMBER, "gpt-6.1-terra", _GPT_5),
    "gpt-5-nano": _until(_DECEMBER, "gpt-6-luna", _GPT_5),
    "gpt-5-search-api": _SEARCH,
    "gpt-5-chat-latest": _until(_JULY, "gpt-5.5", _CHAT_LATEST),
    "gpt-5.1-chat-latest": _until(_JULY, "gpt-5.5", _CHAT_LATEST),
    "gpt-5.2-chat-latest": _until(_AUGUST, "gpt-5.5", _CHAT_LATEST),
    "gpt-5.3-chat-latest": _until(_AUGUST, "gpt-5.5", _CHAT_LATEST),
    "chat-latest": _INSTANT,
    "gpt-5.1": _until(_APRIL, None, _GPT_5_1),
    "gpt-5.2": _GPT_5_2,
    "gpt-5.4": _GPT_5_4,
    "gpt-5.4-mini": _GPT_5_4_MINI,
    "gpt-5.4-nano": _until(_APRIL, None, _GPT_5_4_MINI),
    "gpt-5.5": _GPT_5_5,
    "gpt-5.6": _GPT_5_5,
    "gpt-5.6-sol": _GPT_5_5,
    "gpt-5.6-terra": _GPT_5_5,
    "gpt-5.6-luna": _GPT_5_5,
    "gpt-6-sol": _GPT_5_5,
    "gpt-6-luna": _GPT_5_5,
    "gpt-6-astra": _ASTRA,
    "gpt-6.1-sol": _ASTRA,
    # OpenAI's page says tools on Responses only; LiteLLM sends them to Chat at effort none.
    "gpt-6.1-terra": replace(_GPT_5_5, tools="responses"),
    "gpt-6.2-sol": _ASTRA,
    "gpt-6.2-astra": _ASTRA,
}

# -2024-07-18, or the older form -0613.
_SNAPSHOT_DATE = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))$")


def family_of(upstream_model: str) -> ModelFamily:
    """Return the row of an OpenAI model, or of the base model of a dated snapshot or fine-tuned model."""
    name = _strip_fine_tuning(upstream_model)
    return MODELS.get(name) or MODELS.get(_strip_date(name), UNKNOWN_FAMILY)


def base_model(upstream_model: str) -> str:
    """Return the name without a snapshot's date and fine-tuning."""
    return _strip_date(_strip_fine_tuning(upstream_model))


def is_fine_tuned(upstream_model: str) -> bool:
    """Whether this is the name of a fine-tuned model."""
    return upstream_model.startswith("ft:")


def _strip_fine_tuning(name: str) -> str:
    return name.split(":")[1] if is_fine_tuned(name) else name


def _strip_date(name: str) -> str:
    return _SNAPSHOT_DATE.sub("", name)


_FAMILY_ADAPTER = TypeAdapter(ModelFamily)
_SHUTDOWN_FIELDS = frozenset({"ends", "successor"})
_DERIVED_FROM_EFFORTS = frozenset({"default_effort", "sampling", "penalties"})


def described_family(description: Mapping[str, Any]) -> ModelFamily:
    """Build a family from an entry of `MODEL_FAMILIES`: its own keys over those of the model that `like` names.

    That model's shutdown date is not inherited: a deployment under another name has its own.

    Raises:
        ValidationError: the entry has an unknown key or an invalid value, or `like` names no known model.
    """
    own = dict(description)
    like = own.pop("like", None)
    if like is None:
        return _FAMILY_ADAPTER.validate_python(own)
    base = family_of(like) if isinstance(like, str) else UNKNOWN_FAMILY
    if base is UNKNOWN_FAMILY:
        raise ValidationError.from_exception_data(
            ModelFamily.__name__,
            [{"type": PydanticCustomError("unknown_model", "no such model is known"), "loc": ("like",), "input": like}],
        )
    # Fields that depend on the efforts are not inherited if the entry has its own efforts.
    not_inherited = _SHUTDOWN_FIELDS | (_DERIVED_FROM_EFFORTS if "efforts" in own else frozenset())
    inherited = {field.name: getattr(base, field.name) for field in fields(base) if field.name not in not_inherited}
    return _FAMILY_ADAPTER.validate_python(inherited | own)
