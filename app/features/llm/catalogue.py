"""Which model a name stands for, and what each family of OpenAI's models accepts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Levels of reasoning effort, ascending."""

_CLASSIC: tuple[str, ...] = ()
_THINKING = ("low", "medium", "high")
_MINIMAL_UP = ("minimal", *_THINKING)
_NONE_UP = ("none", *_THINKING)
_NONE_TO_XHIGH = (*_NONE_UP, "xhigh")
_LOW_TO_XHIGH = (*_THINKING, "xhigh")


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """What the models of one family accept on /v1/chat/completions. Lengths in tokens; None: not known."""

    context: int | None = None
    """Prompt and answer together: vLLM's `max_model_len`."""
    output: int | None = None
    """The longest answer."""
    efforts: tuple[str, ...] = _CLASSIC
    """Levels of `reasoning_effort`; empty: the model does not reason and knows no such parameter."""
    default_effort: str | None = None

    def samples(self, effort: str | None = None) -> bool:
        """Whether the model takes `temperature`: one that reasons does so only while it is told not to."""
        return not self.efforts or (effort or self.default_effort) == "none"


UNKNOWN_FAMILY = ModelFamily()
"""A model we have no row for: sent whatever the client asks, limits left to OpenAI."""

_FAMILIES = {
    "gpt-4o-mini": ModelFamily(128_000, 16_384),
    "gpt-4o": ModelFamily(128_000, 16_384),
    "gpt-4.1": ModelFamily(1_047_576, 32_768),
    "gpt-4.1-mini": ModelFamily(1_047_576, 32_768),
    "gpt-audio": ModelFamily(128_000, 16_384),
    "gpt-audio-mini": ModelFamily(128_000, 16_384),
    "gpt-audio-1.5": ModelFamily(128_000, 16_384),
    "o3": ModelFamily(200_000, 100_000, _THINKING, "medium"),
    "gpt-5": ModelFamily(400_000, 128_000, _MINIMAL_UP, "medium"),
    "gpt-5-mini": ModelFamily(400_000, 128_000, _MINIMAL_UP, "medium"),
    "gpt-5-nano": ModelFamily(400_000, 128_000, _MINIMAL_UP, "medium"),
    "gpt-5.1": ModelFamily(400_000, 128_000, _NONE_UP, "none"),
    "gpt-5.2": ModelFamily(400_000, 128_000, _NONE_TO_XHIGH, "none"),
    "gpt-5.4": ModelFamily(1_050_000, 128_000, _NONE_TO_XHIGH, "none"),
    "gpt-5.4-mini": ModelFamily(400_000, 128_000, _NONE_TO_XHIGH, "none"),
    "gpt-5.4-nano": ModelFamily(400_000, 128_000, _NONE_TO_XHIGH, "none"),
    "gpt-5.5": ModelFamily(1_050_000, 128_000, _NONE_TO_XHIGH, "medium"),
    "gpt-5.6-sol": ModelFamily(1_050_000, 128_000, _NONE_TO_XHIGH, "medium"),
    "gpt-5.6-terra": ModelFamily(1_050_000, 128_000, _NONE_TO_XHIGH, "medium"),
    "gpt-5.6-luna": ModelFamily(1_050_000, 128_000, _NONE_TO_XHIGH, "medium"),
    "gpt-6-sol": ModelFamily(1_050_000, 128_000, _NONE_TO_XHIGH, "medium"),
    "gpt-6-luna": ModelFamily(1_050_000, 128_000, _NONE_TO_XHIGH, "medium"),
    "gpt-6-astra": ModelFamily(1_050_000, 128_000, _LOW_TO_XHIGH, "medium"),
    "gpt-6.1-sol": ModelFamily(1_050_000, 128_000, _LOW_TO_XHIGH, "medium"),
    "gpt-6.1-terra": ModelFamily(1_050_000, 128_000, _NONE_TO_XHIGH, "medium"),
}

_SNAPSHOT_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def family_of(upstream_model: str) -> ModelFamily:
    """The family of an OpenAI model: dated snapshots and fine-tuned models belong to that of their base."""
    base = upstream_model.split(":")[1] if upstream_model.startswith("ft:") else upstream_model
    return _FAMILIES.get(_SNAPSHOT_DATE.sub("", base), UNKNOWN_FAMILY)


_DEFAULT_SERVED = MappingProxyType({"gpt-4o-mini": "gpt-4o-mini"})


class Catalogue:
    """The names clients may use, each with the OpenAI model it stands for; None: every model under its own name."""

    def __init__(self, served: Mapping[str, str] | None = _DEFAULT_SERVED) -> None:
        self._served = served

    @property
    def names(self) -> tuple[str, ...] | None:
        """The served names, the first for clients that name none; None: all that upstream has."""
        return None if self._served is None else tuple(self._served)

    def serves(self, name: str) -> bool:
        """Whether a client may ask for `name`, as far as that is known without asking upstream."""
        return self._served is None or name in self._served

    def upstream_model(self, name: str) -> str:
        """The OpenAI model that `name` stands for."""
        return name if self._served is None else self._served.get(name, name)

    def family(self, name: str) -> ModelFamily:
        """The family of the model that `name` stands for."""
        return family_of(self.upstream_model(name))
