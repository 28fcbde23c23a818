"""How the answer to one request is to be read: what was wrapped on the way out, and what OpenAI leaves to us."""

from codecs import getincrementaldecoder
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
        self._unwrapper = _unwrapper(reading)
        self._finder = StopFinder(reading.stops, include=reading.include_stop)
        self._tokens = _TokenReader(reading)

    @property
    def stop_reason(self) -> str | None:
        """The stop string that ended the text."""
        return self._finder.matched

    @property
    def complete(self) -> bool:
        """Whether the value of a wrapped answer is whole; what may follow is the wrapper."""
        return self._unwrapper is not None and self._unwrapper.complete

    def feed(self, text: str) -> str:
        """What of the text so far can be seen now and was not seen before."""
        return self._finder.feed(self._unwrapper.feed(text) if self._unwrapper else text)

    def finish(self) -> str:
        """What was held back when the text has ended."""
        return self._finder.finish()

    def seen_tokens(self, tokens: Iterable[JSONObject]) -> list[JSONObject]:
        """Of these entries of `logprobs.content`, the next in order, those whose text can be seen, as it is seen."""
        return [seen for token in tokens if (seen := self._tokens.seen(token))]


def _unwrapper(reading: Reading) -> Unwrapper | None:
    return Unwrapper(bare=reading.wrapping is Wrapping.TEXT) if reading.wrapping else None


class _TokenReader:
    """The same for the tokens of `logprobs`, which may be parts of characters and so are read by their bytes."""

    def __init__(self, reading: Reading) -> None:
        self._unwrapper = _unwrapper(reading)
        self._finder = StopFinder(reading.stops, include=True)
        self._characters = getincrementaldecoder("utf-8")("replace")

    def seen(self, token: JSONObject) -> JSONObject | None:
        if self._finder.matched is not None:
            return None
        raw = token.get("bytes")
        text = token["token"] if raw is None else self._characters.decode(bytes(raw))
        shown = self._unwrapper.feed(text) if self._unwrapper else text
        self._finder.feed(shown)
        if self._unwrapper is None or shown == text != "":
            return token
        return {**token, "token": shown, "bytes": list(shown.encode())} if shown else None
