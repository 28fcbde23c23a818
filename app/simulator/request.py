"""A valid chat request, with its values and their defaults."""

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
    """The valid ``body``, its ``raw`` bytes, its directives to the simulator, and its model."""

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
        """The last message."""
        return self.messages[-1]

    @cached_property
    def question(self) -> str:
        """The text of the last user message without directives; empty without a user message."""
        for message in reversed(self.messages):
            if message["role"] == "user":
                return directives.remove_from(tokens.text_of(message)).strip()
        return ""

    @cached_property
    def prompt_tokens(self) -> int:
        """The number of tokens in the messages and tools."""
        return tokens.count_prompt(self.messages, self.body.get("tools", ()))

    @property
    def choices(self) -> int:
        """The number of choices (``n``)."""
        return self.body.get("n") or 1

    @property
    def streams(self) -> bool:
        """True if the response is streamed."""
        return bool(self.body.get("stream"))

    @property
    def effort(self) -> str:
        """The reasoning effort: as requested, or the family's default."""
        return self.body.get("reasoning_effort") or self.model.family.default_effort

    @property
    def reasoning_tokens(self) -> int:
        """The reasoning tokens of each choice."""
        return REASONING_TOKENS[self.effort] if self.model.family.reasons else 0

    @property
    def limit(self) -> int:
        """The maximum number of tokens of a choice, including reasoning."""
        return self.body.get("max_completion_tokens") or self.body.get("max_tokens") or self.model.output_tokens

    @property
    def stops(self) -> Sequence[str]:
        """The stop sequences."""
        stop = self.body.get("stop")
        return [stop] if isinstance(stop, str) else stop or []

    @property
    def bias(self) -> Mapping[str, int]:
        """``logit_bias``: by token id in decimal digits."""
        return self.body.get("logit_bias") or {}

    @property
    def top_logprobs(self) -> int | None:
        """The number of alternatives for each token; None without log probabilities."""
        return self.body.get("top_logprobs") or 0 if self.body.get("logprobs") else None

    def stream_option(self, name: str, *, default: bool) -> bool:
        """Return one member of ``stream_options``."""
        options: dict[str, Any] = self.body.get("stream_options") or {}
        return bool(options.get(name, default))
