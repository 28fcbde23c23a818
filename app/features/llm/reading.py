"""How the answer to one request is to be read: what was wrapped on the way out, and what OpenAI leaves to us."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from app.features.llm.schema import JSONObject
from app.features.llm.stops import StopFinder
from app.features.llm.unwrapping import Unwrapper


class Wrapping(Enum):
    """What stands in the `value` of a wrapped answer. OpenAI's schemas must be objects, vLLM's need not be."""

    TEXT = "a string, asked for as bare text"
    JSON = "a JSON value"


@dataclass(slots=True)
class Reading:
    """What to do to an answer beside giving it vLLM's shape."""

    wrapping: Wrapping | None = None
    stops: tuple[str, ...] = ()
    """Stop strings that OpenAI was not told of."""
    include_stop: bool = False
    echo: str = ""
    """What stands before the answer's text."""
    role: str = "assistant"
    one_tool_call: bool = False
    """Only the first tool call is to be seen."""
    content_beside_calls: str | None = None
    """`content` where tools are called; vLLM has an empty string where it had to call one."""
    usage_details: bool = False

    @property
    def edits_text(self) -> bool:
        """Whether the text that OpenAI sends is not yet the answer's."""
        return self.wrapping is not None or bool(self.stops)


class TextReader:
    """The text of one choice, as it arrives and as the client is to see it."""

    def __init__(self, reading: Reading) -> None:
        bare = reading.wrapping is Wrapping.TEXT
        self._unwrapper = Unwrapper(bare=bare) if reading.wrapping else None
        self._tokens = Unwrapper(bare=bare) if reading.wrapping else None
        self._finder = StopFinder(reading.stops, include=reading.include_stop)
        self._token_finder = StopFinder(reading.stops, include=True)

    @property
    def stop_reason(self) -> str | None:
        """The stop string that ended the text."""
        return self._finder.matched

    def feed(self, text: str) -> str:
        """What of the text so far can be seen now and was not seen before."""
        return self._finder.feed(self._unwrapper.feed(text) if self._unwrapper else text)

    def finish(self) -> str:
        """What was held back when the text has ended."""
        rest = self._finder.feed(self._unwrapper.finish()) if self._unwrapper else ""
        return rest + self._finder.finish()

    def seen_tokens(self, tokens: Iterable[JSONObject]) -> list[JSONObject]:
        """Of these entries of `logprobs.content`, the next in order, those whose text can be seen."""
        return [token for token in tokens if self._sees(token["token"])]

    def _sees(self, token: str) -> bool:
        text = self._tokens.feed(token) if self._tokens else token
        if not text or self._token_finder.matched is not None:
            return False
        self._token_finder.feed(text)
        return True
