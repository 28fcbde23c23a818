"""A chat request that has passed every check, in the terms an answer needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.simulator import directives, tokens
from app.simulator.directives import Directive
from app.simulator.json_text import JSONObject
from app.simulator.models import REASONING_TOKENS, Model


@dataclass(frozen=True)
class ChatRequest:
    """The accepted ``body``, the ``raw`` bytes it came from, what it asks of the simulator itself, and its model."""

    body: JSONObject
    raw: bytes
    directive: Directive
    model: Model

    @property
    def messages(self) -> Sequence[JSONObject]:
        """The conversation, oldest message first."""
        messages: Sequence[JSONObject] = self.body["messages"]
        return messages

    @property
    def last(self) -> JSONObject:
        """The message the answer answers."""
        return self.messages[-1]

    @cached_property
    def question(self) -> str:
        """The text of the last user message without directives, or an empty text."""
        for message in reversed(self.messages):
            if message["role"] == "user":
                return directives.without(tokens.text_of(message)).strip()
        return ""

    @cached_property
    def prompt_tokens(self) -> int:
        """The tokens of the conversation and of the tools."""
        return tokens.count_prompt(self.messages, self.body.get("tools", ()))

    @property
    def choices(self) -> int:
        """How many answers are wanted."""
        return self.body.get("n") or 1

    @property
    def streams(self) -> bool:
        """Whether the answer is wanted as events."""
        return bool(self.body.get("stream"))

    @property
    def effort(self) -> str:
        """How hard the model thinks: as asked, or as its family does by default."""
        return self.body.get("reasoning_effort") or self.model.family.default_effort

    @property
    def reasoning_tokens(self) -> int:
        """The tokens each answer spends on thinking before its text begins."""
        return REASONING_TOKENS[self.effort] if self.model.family.reasons else 0

    @property
    def limit(self) -> int:
        """The most tokens of one answer, thinking included."""
        return self.body.get("max_completion_tokens") or self.body.get("max_tokens") or self.model.output_tokens

    @property
    def stops(self) -> Sequence[str]:
        """The texts that end an answer."""
        stop = self.body.get("stop")
        return [stop] if isinstance(stop, str) else stop or []

    @property
    def bias(self) -> Mapping[str, int]:
        """The bias of tokens, by their ids in decimal digits."""
        return self.body.get("logit_bias") or {}

    @property
    def top_logprobs(self) -> int | None:
        """How many alternatives each token is shown with; None without log probabilities."""
        return self.body.get("top_logprobs") or 0 if self.body.get("logprobs") else None

    def stream_option(self, name: str, *, default: bool) -> bool:
        """Return one member of ``stream_options``."""
        options: dict[str, Any] = self.body.get("stream_options") or {}
        return bool(options.get(name, default))
