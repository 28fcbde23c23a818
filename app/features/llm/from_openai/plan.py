"""How the answer to one request is to be read: what was wrapped on the way out, and what OpenAI leaves to us."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from app.core.tokenization import Encoding
from app.features.llm.from_openai.tokens import TokenOptions


class Envelope(Enum):
    """What stands in the `value` of a wrapped answer. OpenAI's schemas must be objects, vLLM's need not be."""

    TEXT = "a string, asked for as bare text"
    JSON = "a JSON value"


@dataclass(frozen=True, slots=True)
class LengthLimit:
    """The most tokens of each choice's text that the client is to see."""

    tokens: int
    encoding: Encoding


@dataclass(slots=True)
class ResponsePlan:
    """What to do to an answer beside giving it vLLM's shape."""

    envelope: Envelope | None = None
    stops: tuple[str, ...] = ()
    """Stop strings that OpenAI was not told of."""
    stop_ids: Mapping[str, int] = field(default_factory=dict)
    """Those of them that stand for a token, which is what the client asked for."""
    include_stop: bool = False
    echo: str = ""
    """What stands before the answer's text."""
    role: str = "assistant"
    one_tool_call: bool = False
    """Only the first tool call is to be seen."""
    content_beside_calls: str | None = None
    """`content` where tools are called; vLLM has an empty string where it had to call one."""
    usage_details: bool = False
    length_limit: LengthLimit | None = None
    """Where the text ends, if OpenAI may write more."""
    tokens: TokenOptions | None = None
    """What to do about tokens; None: nothing."""
    prompt_ids: list[int] = field(default_factory=list)
    """The prompt, where the answer needs it."""

    @property
    def stops_here(self) -> bool:
        """Whether this server is to find where the text stops."""
        return bool(self.stops) or (self.tokens is not None and bool(self.tokens.stops))

    @property
    def edits_text(self) -> bool:
        """Whether the text that OpenAI sends is not yet the answer's."""
        return self.envelope is not None or self.length_limit is not None or self.stops_here
