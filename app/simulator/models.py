"""The models the simulator has, their limits, and what each family takes on chat completions.

Limits and effort levels are those published for these models in November 2026.
"""

from dataclasses import dataclass
from typing import Any, Literal

ToolUse = Literal["always", "without reasoning", "never"]

NEVER_WITH_REASONING = frozenset({"presence_penalty", "frequency_penalty", "logit_bias", "stop"})
MEDIUM_REASONING_TOKENS = 64
REASONING_TOKENS = {"none": 0, "minimal": 16, "low": 32, "medium": MEDIUM_REASONING_TOKENS, "high": 128, "xhigh": 256}


@dataclass(frozen=True)
class Family:
    """What a group of models takes; without ``efforts`` it does not reason.

    ``refused`` names the parameters it never takes; ``tools`` says when it calls functions on this endpoint.
    """

    efforts: tuple[str, ...] = ()
    default_effort: str = "none"
    refused: frozenset[str] = frozenset()
    tools: ToolUse = "always"

    @property
    def reasons(self) -> bool:
        """Whether the models of this family reason at all."""
        return bool(self.efforts)


@dataclass(frozen=True)
class Model:
    """A model by the name people use; its first snapshot is what that name stands for."""

    name: str
    family: Family
    context_tokens: int
    output_tokens: int
    created: int
    snapshots: tuple[str, ...] = ()

    def answering_name(self, requested: str) -> str:
        """Return the name an answer carries: the dated snapshot, where one is published."""
        if requested == self.name and self.snapshots:
            return self.snapshots[0]
        return requested


CLASSIC = Family()
O_SERIES = Family(("low", "medium", "high"), "medium", NEVER_WITH_REASONING | {"parallel_tool_calls"})
GPT_5 = Family(("minimal", "low", "medium", "high"), "medium", NEVER_WITH_REASONING)
GPT_5_1 = Family(("none", "low", "medium", "high"), "none", NEVER_WITH_REASONING)
GPT_5_2 = Family(("none", "low", "medium", "high", "xhigh"), "none", NEVER_WITH_REASONING)
GPT_5_4 = Family(GPT_5_2.efforts, "none", NEVER_WITH_REASONING, "without reasoning")
GPT_5_5 = Family(GPT_5_2.efforts, "medium", NEVER_WITH_REASONING, "without reasoning")
ALWAYS_REASONING = Family(("low", "medium", "high", "xhigh"), "medium", NEVER_WITH_REASONING, "never")

MODELS = (
    Model("gpt-4o-mini", CLASSIC, 128_000, 16_384, 1721172741, ("gpt-4o-mini-2024-07-18",)),
    Model("gpt-4o", CLASSIC, 128_000, 16_384, 1715367049, ("gpt-4o-2024-08-06", "gpt-4o-2024-11-20")),
    Model("gpt-4.1", CLASSIC, 1_047_576, 32_768, 1744316542, ("gpt-4.1-2025-04-14",)),
    Model("gpt-4.1-mini", CLASSIC, 1_047_576, 32_768, 1744318173, ("gpt-4.1-mini-2025-04-14",)),
    Model("o3", O_SERIES, 200_000, 100_000, 1744225308, ("o3-2025-04-16",)),
    Model("gpt-5", GPT_5, 400_000, 128_000, 1754425777, ("gpt-5-2025-08-07",)),
    Model("gpt-5-mini", GPT_5, 400_000, 128_000, 1754425928, ("gpt-5-mini-2025-08-07",)),
    Model("gpt-5-nano", GPT_5, 400_000, 128_000, 1754426384, ("gpt-5-nano-2025-08-07",)),
    Model("gpt-5.1", GPT_5_1, 400_000, 128_000, 1762800673, ("gpt-5.1-2025-11-13",)),
    Model("gpt-5.2", GPT_5_2, 400_000, 128_000, 1765313051, ("gpt-5.2-2025-12-11",)),
    Model("gpt-5.4", GPT_5_4, 1_050_000, 128_000, 1772654062),
    Model("gpt-5.4-mini", GPT_5_4, 400_000, 128_000, 1773705600, ("gpt-5.4-mini-2026-03-17",)),
    Model("gpt-5.4-nano", GPT_5_4, 400_000, 128_000, 1773705600, ("gpt-5.4-nano-2026-03-17",)),
    Model("gpt-5.5", GPT_5_5, 1_050_000, 128_000, 1776902400, ("gpt-5.5-2026-04-23",)),
    Model("gpt-5.6-luna", GPT_5_5, 1_050_000, 128_000, 1782864000),
    Model("gpt-6-luna", GPT_5_5, 1_050_000, 128_000, 1788220800),
    Model("gpt-6.1-sol", ALWAYS_REASONING, 1_050_000, 128_000, 1793491200),
)

BY_NAME = {name: model for model in MODELS for name in (model.name, *model.snapshots)}


def entry(name: str) -> dict[str, Any]:
    """Return a known model as ``/v1/models`` lists it."""
    return {"id": name, "object": "model", "created": BY_NAME[name].created, "owned_by": "system"}
