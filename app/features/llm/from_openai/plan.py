"""How to translate the response to one request: envelopes to remove, and what OpenAI does not do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from app.core.tokenization import Encoding
from app.features.llm.from_openai.tokens import TokenOptions


class Envelope(Enum):
    """What is in the `value` of an envelope. OpenAI's schemas must be objects, vLLM's need not be."""

    TEXT = "a string that the client wants as plain text"
    JSON = "a JSON value"


@dataclass(frozen=True, slots=True)
class LengthLimit:
    """The maximum number of tokens of each choice's text that the client gets."""

    tokens: int
    encoding: Encoding


@dataclass(slots=True)
class ResponsePlan:
    """What to change in a response besides its shape."""

    envelope: Envelope | None = None
    stops: tuple[str, ...] = ()
    """Stop strings that this server looks for, because OpenAI did not get them."""
    stop_ids: Mapping[str, int] = field(default_factory=dict)
    """Stop strings that replace a token id of the request, with that id."""
    include_stop: bool = False
    echo: str = ""
    """Text to put before the response's text."""
    role: str = "assistant"
    one_tool_call: bool = False
    """Whether the client gets the first tool call only."""
    content_beside_calls: str | None = None
    """`content` of a message with tool calls. vLLM sends an empty string if the request forces a call."""
    finish_with_calls: str = "tool_calls"
    """The finish reason of a choice that ends with tool calls; "stop" if the request names the tool."""
    usage_details: bool = False
    length_limit: LengthLimit | None = None
    """Where to cut the text if OpenAI's own limit is higher."""
    tokens: TokenOptions | None = None
    """Token details to add and tokens to stop at; None if neither is needed."""
    prompt_ids: list[int] = field(default_factory=list)
    """The prompt's token ids, if the response needs them."""

    @property
    def stops_here(self) -> bool:
        """Whether this server looks for stop strings or stop tokens."""
        return bool(self.stops) or (self.tokens is not None and bool(self.tokens.stops))

    @property
    def edits_text(self) -> bool:
        """Whether the client's text can differ from OpenAI's."""
        return self.envelope is not None or self.length_limit is not None or self.stops_here
