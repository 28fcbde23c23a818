"""The simulator's models: their limits, what each family accepts on chat completions, and their shutdown dates.

Limits, effort levels and dates are as published by OpenAI in November 2026.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Any, Literal

from app.simulator.errors import model_ended, model_not_found

ToolUse = Literal["always", "without reasoning", "never"]

NEVER_WITH_REASONING = frozenset({"presence_penalty", "frequency_penalty", "logit_bias", "stop"})
SAMPLING = frozenset({"temperature", "top_p", "logprobs", "top_logprobs"})
MEDIUM_REASONING_TOKENS = 64
REASONING_TOKENS = {"none": 0, "minimal": 16, "low": 32, "medium": MEDIUM_REASONING_TOKENS, "high": 128, "xhigh": 256}


@dataclass(frozen=True)
class Family:
    """What a group of models accepts; without ``efforts`` they are not reasoning models.

    ``unsupported`` names the parameters that are always rejected, ``incompatible`` those rejected with the message of
    search models; ``tools`` says when functions are supported on this endpoint, ``schemas`` whether JSON schemas are.
    """

    efforts: tuple[str, ...] = ()
    default_effort: str = "none"
    unsupported: frozenset[str] = frozenset()
    tools: ToolUse = "always"
    schemas: bool = True
    incompatible: frozenset[str] = frozenset()

    @property
    def reasons(self) -> bool:
        """True for reasoning models."""
        return bool(self.efforts)


@dataclass(frozen=True)
class Model:
    """A model by its alias, which stands for its first snapshot. It is shut down on ``ends``."""

    name: str
    family: Family
    context_tokens: int
    output_tokens: int
    created: int
    snapshots: tuple[str, ...] = ()
    ends: date | None = None

    def response_name(self, requested: str) -> str:
        """Return the name in a response: the dated snapshot if there is one."""
        if requested == self.name and self.snapshots:
            return self.snapshots[0]
        return requested


CLASSIC = Family()
FORMER = Family(schemas=False)
INSTANT = Family(unsupported=NEVER_WITH_REASONING | SAMPLING)
SEARCH = Family(
    incompatible=NEVER_WITH_REASONING | SAMPLING | {"tools", "tool_choice", "parallel_tool_calls", "n"}, tools="never"
)
O_SERIES = Family(("low", "medium", "high"), "medium", NEVER_WITH_REASONING | {"parallel_tool_calls"})
GPT_5 = Family(("minimal", "low", "medium", "high"), "medium", NEVER_WITH_REASONING)
GPT_5_1 = Family(("none", "low", "medium", "high"), "none", NEVER_WITH_REASONING)
GPT_5_2 = Family(("none", "low", "medium", "high", "xhigh"), "none", NEVER_WITH_REASONING)
GPT_5_4 = Family(GPT_5_2.efforts, "none", NEVER_WITH_REASONING, "without reasoning")
GPT_5_5 = Family(GPT_5_2.efforts, "medium", NEVER_WITH_REASONING, "without reasoning")
TERRA = Family(GPT_5_2.efforts, "medium", NEVER_WITH_REASONING, "never")
ALWAYS_REASONING = Family(("low", "medium", "high", "xhigh"), "medium", NEVER_WITH_REASONING, "never")

JULY, AUGUST, SEPTEMBER = date(2026, 7, 23), date(2026, 8, 10), date(2026, 9, 28)
OCTOBER, DECEMBER = date(2026, 10, 23), date(2026, 12, 11)
JANUARY, AUDIO_END, APRIL = date(2027, 1, 14), date(2027, 1, 20), date(2027, 4, 1)

MODELS = (
    Model("gpt-3.5-turbo", FORMER, 16_385, 4_096, 1677610602, ("gpt-3.5-turbo-0125",), OCTOBER),
    Model("gpt-3.5-turbo-1106", FORMER, 16_385, 4_096, 1698959748, (), SEPTEMBER),
    Model("gpt-4", FORMER, 8_192, 8_192, 1687882411, ("gpt-4-0613",), OCTOBER),
    Model("gpt-4-turbo", FORMER, 128_000, 4_096, 1712361441, ("gpt-4-turbo-2024-04-09",), OCTOBER),
    Model("gpt-4o-mini", CLASSIC, 128_000, 16_384, 1721172741, ("gpt-4o-mini-2024-07-18",), JANUARY),
    Model("gpt-4o", CLASSIC, 128_000, 16_384, 1715367049, ("gpt-4o-2024-08-06", "gpt-4o-2024-11-20"), JANUARY),
    Model("gpt-4o-2024-05-13", FORMER, 128_000, 4_096, 1715368132, (), OCTOBER),
    Model("gpt-4.1", CLASSIC, 1_047_576, 32_768, 1744316542, ("gpt-4.1-2025-04-14",), JANUARY),
    Model("gpt-4.1-mini", CLASSIC, 1_047_576, 32_768, 1744318173, ("gpt-4.1-mini-2025-04-14",), JANUARY),
    Model("gpt-4.1-nano", CLASSIC, 1_047_576, 32_768, 1744321025, ("gpt-4.1-nano-2025-04-14",), OCTOBER),
    Model("gpt-audio", FORMER, 128_000, 16_384, 1756256146, ("gpt-audio-2025-08-28",), AUDIO_END),
    Model("gpt-audio-mini", FORMER, 128_000, 16_384, 1759512027, ("gpt-audio-mini-2025-12-15",), AUDIO_END),
    Model("gpt-audio-mini-2025-10-06", FORMER, 128_000, 16_384, 1759512137, (), JULY),
    Model("gpt-audio-1.5", FORMER, 128_000, 16_384, 1771891200),
    Model("o1", O_SERIES, 200_000, 100_000, 1734375816, ("o1-2024-12-17",), OCTOBER),
    Model("o3", O_SERIES, 200_000, 100_000, 1744225308, ("o3-2025-04-16",), DECEMBER),
    Model("o3-mini", O_SERIES, 200_000, 100_000, 1737146383, ("o3-mini-2025-01-31",), OCTOBER),
    Model("o4-mini", O_SERIES, 200_000, 100_000, 1744225351, ("o4-mini-2025-04-16",), OCTOBER),
    Model("gpt-5", GPT_5, 400_000, 128_000, 1754425777, ("gpt-5-2025-08-07",), DECEMBER),
    Model("gpt-5-mini", GPT_5, 400_000, 128_000, 1754425928, ("gpt-5-mini-2025-08-07",), DECEMBER),
    Model("gpt-5-nano", GPT_5, 400_000, 128_000, 1754426384, ("gpt-5-nano-2025-08-07",), DECEMBER),
    Model("gpt-5-search-api", SEARCH, 400_000, 128_000, 1759514629, ("gpt-5-search-api-2025-10-14",)),
    Model("gpt-5-chat-latest", CLASSIC, 128_000, 16_384, 1754073306, (), JULY),
    Model("gpt-5.1-chat-latest", CLASSIC, 128_000, 16_384, 1762547951, (), JULY),
    Model("gpt-5.2-chat-latest", CLASSIC, 128_000, 16_384, 1765344352, (), AUGUST),
    Model("gpt-5.3-chat-latest", CLASSIC, 128_000, 16_384, 1772496000, (), AUGUST),
    Model("chat-latest", INSTANT, 400_000, 128_000, 1777939200),
    Model("gpt-5.1", GPT_5_1, 400_000, 128_000, 1762800673, ("gpt-5.1-2025-11-13",), APRIL),
    Model("gpt-5.2", GPT_5_2, 400_000, 128_000, 1765313051, ("gpt-5.2-2025-12-11",)),
    Model("gpt-5.4", GPT_5_4, 1_050_000, 128_000, 1772654062),
    Model("gpt-5.4-mini", GPT_5_4, 400_000, 128_000, 1773705600, ("gpt-5.4-mini-2026-03-17",)),
    Model("gpt-5.4-nano", GPT_5_4, 400_000, 128_000, 1773705600, ("gpt-5.4-nano-2026-03-17",), APRIL),
    Model("gpt-5.5", GPT_5_5, 1_050_000, 128_000, 1776902400, ("gpt-5.5-2026-04-23",)),
    Model("gpt-5.6", GPT_5_5, 1_050_000, 128_000, 1782864000, ("gpt-5.6-sol",)),
    Model("gpt-5.6-terra", GPT_5_5, 1_050_000, 128_000, 1782864000),
    Model("gpt-5.6-luna", GPT_5_5, 1_050_000, 128_000, 1782864000),
    Model("gpt-6-sol", GPT_5_5, 1_050_000, 128_000, 1788220800),
    Model("gpt-6-luna", GPT_5_5, 1_050_000, 128_000, 1788220800),
    Model("gpt-6-astra", ALWAYS_REASONING, 1_050_000, 128_000, 1788220800),
    Model("gpt-6.1-sol", ALWAYS_REASONING, 1_050_000, 128_000, 1793491200),
    Model("gpt-6.1-terra", TERRA, 1_050_000, 128_000, 1793491200),
    Model("gpt-6.2-sol", ALWAYS_REASONING, 1_050_000, 128_000, 1794873600),
    Model("gpt-6.2-astra", ALWAYS_REASONING, 1_050_000, 128_000, 1794873600),
)

BY_NAME = {name: model for model in MODELS for name in (model.name, *model.snapshots)}


class Catalogue:
    """The models available on ``today``; without a date all models are, also those that have been shut down.

    ``deployments`` are additional names for models, as on Azure. Without ``shutdown_dates`` the list of models has no
    such member and omits models that have been shut down.
    """

    def __init__(
        self,
        today: date | None = None,
        *,
        shutdown_dates: bool = True,
        deployments: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.today = today
        self._shutdown_dates = shutdown_dates
        self._models = BY_NAME | {name: BY_NAME[model] for name, model in deployments.items()}

    def find(self, name: str) -> Model:
        """Return the model of this name.

        Raises:
            OpenAIError: 404 if the model is unknown or shut down.
        """
        model = self._models.get(name)
        if model is None:
            raise model_not_found(name)
        if self._has_ended(model):
            raise model_ended(name)
        return model

    def listed(self) -> list[dict[str, Any]]:
        """Return the models as ``GET /v1/models`` lists them."""
        return [self.entry(name) for name in self._listed_names()]

    def entry(self, name: str) -> dict[str, Any]:
        """Return the entry of a known model in ``GET /v1/models``."""
        model = self._models[name]
        ends = {"shutdown_date": model.ends and model.ends.isoformat()} if self._shutdown_dates else {}
        return {"id": name, "object": "model", "created": model.created, "owned_by": "system", **ends}

    def shown(self, name: str) -> dict[str, Any]:
        """Return the body of ``GET /v1/models/NAME``.

        Raises:
            OpenAIError: 404 if the model is unknown or shut down.
        """
        self.find(name)
        return self.entry(name)

    def _listed_names(self) -> Iterable[str]:
        return (name for name, model in self._models.items() if self._shutdown_dates or not self._has_ended(model))

    def _has_ended(self, model: Model) -> bool:
        return self.today is not None and model.ends is not None and self.today >= model.ends
