"""What each family of OpenAI's models accepts: one row per family."""

import re
from dataclasses import dataclass, replace
from datetime import date
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field, with_config

from app.core.tokenization import EncodingName

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)
"""Levels of reasoning effort, ascending."""

_CLASSIC: tuple[Effort, ...] = ()
_THINKING: tuple[Effort, ...] = ("low", "medium", "high")
_MINIMAL_UP: tuple[Effort, ...] = ("minimal", *_THINKING)
_NONE_UP: tuple[Effort, ...] = ("none", *_THINKING)
_NONE_TO_XHIGH: tuple[Effort, ...] = (*_NONE_UP, "xhigh")
_LOW_TO_XHIGH: tuple[Effort, ...] = (*_THINKING, "xhigh")


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class ModelFamily:
    """What the models of one family accept on /v1/chat/completions. Lengths in tokens; None: not known."""

    context: Annotated[int, Field(gt=0)] | None = None
    """Prompt and answer together: vLLM's `max_model_len`."""
    output: Annotated[int, Field(gt=0)] | None = None
    """The longest answer."""
    efforts: tuple[Effort, ...] = _CLASSIC
    """Levels of `reasoning_effort`, ascending; empty: the model does not reason and knows no such parameter."""
    default_effort: Effort | None = None
    """What the model does where no effort is asked for."""
    encoding: EncodingName | None = "o200k_base"
    """How text becomes token ids; None: not known."""
    ends: date | None = None
    """The day OpenAI shuts it down."""
    tools_with_effort: bool = True
    """Whether function tools may be used while the model reasons."""
    parallel_tool_calls: bool = True
    """Whether `parallel_tool_calls` may be sent."""

    def __post_init__(self) -> None:
        if self.default_effort is not None and self.default_effort not in self.efforts:
            raise ValueError(f"default_effort {self.default_effort!r} is not one of efforts")

    @property
    def reasons(self) -> bool:
        """Whether these models reason; those that do take no penalties, no `logit_bias` and no `stop`."""
        return bool(self.efforts)

    def accepts_sampling(self, effort: Effort | None) -> bool:
        """Whether the model takes `temperature`, `top_p` and `logprobs`: one that reasons only while told not to."""
        return not self.reasons or (effort or self.default_effort) == "none"

    def nearest_effort(self, wanted: Effort) -> Effort:
        """The level these models have that is closest to `wanted`; of two, the lower."""
        return min(self.efforts, key=lambda level: abs(EFFORTS.index(level) - EFFORTS.index(wanted)))


UNKNOWN_FAMILY = ModelFamily(encoding=None)
"""A model we have no row for: sent whatever the client asks, limits left to OpenAI."""

_ENDED = date(2026, 10, 23)
_JANUARY = date(2027, 1, 14)
_DECEMBER = date(2026, 12, 11)
_APRIL = date(2027, 4, 1)

_GPT_4 = ModelFamily(8_192, encoding="cl100k_base", ends=_ENDED)
_GPT_4O = ModelFamily(128_000, 16_384, ends=_JANUARY)
_GPT_4_1 = ModelFamily(1_047_576, 32_768, ends=_JANUARY)
_AUDIO = ModelFamily(128_000, 16_384, ends=date(2027, 1, 20))
_O3 = ModelFamily(200_000, 100_000, _THINKING, "medium", ends=_DECEMBER, parallel_tool_calls=False)
_GPT_5 = ModelFamily(400_000, 128_000, _MINIMAL_UP, "medium", ends=_DECEMBER)
_GPT_5_1 = ModelFamily(400_000, 128_000, _NONE_UP, "none", ends=_APRIL)
_GPT_5_2 = ModelFamily(400_000, 128_000, _NONE_TO_XHIGH, "none")
_GPT_5_4 = ModelFamily(1_050_000, 128_000, _NONE_TO_XHIGH, "none", tools_with_effort=False)
_GPT_5_5 = ModelFamily(1_050_000, 128_000, _NONE_TO_XHIGH, "medium", tools_with_effort=False)
_ASTRA = ModelFamily(1_050_000, 128_000, _LOW_TO_XHIGH, "medium", tools_with_effort=False)

# OpenAI's model pages and LiteLLM's model map, November 2026.
_FAMILIES = {
    "gpt-3.5-turbo": replace(_GPT_4, context=16_385, output=4_096),
    "gpt-4": _GPT_4,
    "gpt-4-turbo": replace(_GPT_4, context=128_000, output=4_096),
    "gpt-4o-mini": _GPT_4O,
    "gpt-4o": _GPT_4O,
    "gpt-4.1": _GPT_4_1,
    "gpt-4.1-mini": _GPT_4_1,
    "gpt-audio": _AUDIO,
    "gpt-audio-mini": _AUDIO,
    "gpt-audio-1.5": replace(_AUDIO, ends=None),
    "o3": _O3,
    "gpt-5": _GPT_5,
    "gpt-5-mini": _GPT_5,
    "gpt-5-nano": _GPT_5,
    "gpt-5.1": _GPT_5_1,
    "gpt-5.2": _GPT_5_2,
    "gpt-5.4": _GPT_5_4,
    "gpt-5.4-mini": replace(_GPT_5_4, context=400_000),
    "gpt-5.4-nano": replace(_GPT_5_4, context=400_000, ends=_APRIL),
    "gpt-5.5": _GPT_5_5,
    "gpt-5.6-sol": _GPT_5_5,
    "gpt-5.6-terra": _GPT_5_5,
    "gpt-5.6-luna": _GPT_5_5,
    "gpt-6-sol": _GPT_5_5,
    "gpt-6-luna": _GPT_5_5,
    "gpt-6-astra": _ASTRA,
    "gpt-6.1-sol": _ASTRA,
    "gpt-6.1-terra": _GPT_5_5,
}

_SNAPSHOT_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def family_of(upstream_model: str) -> ModelFamily:
    """The family of an OpenAI model: dated snapshots and fine-tuned models belong to that of their base."""
    return _FAMILIES.get(base_model(upstream_model), UNKNOWN_FAMILY)


def base_model(upstream_model: str) -> str:
    """The model that a fine-tuned model or a dated snapshot is a version of."""
    base = upstream_model.split(":")[1] if upstream_model.startswith("ft:") else upstream_model
    return _SNAPSHOT_DATE.sub("", base)
