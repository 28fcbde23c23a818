"""How the answer to one request is to be read: what was wrapped on the way out, and what OpenAI leaves to us."""

from codecs import getincrementaldecoder
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from app.features.llm.from_openai.json_envelope import Unwrapper
from app.features.llm.from_openai.stop_strings import StopFinder
from app.features.llm.from_openai.tokens import StopTokenFinder, TokenReading
from app.features.llm.schema import JSONObject


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
    tokens: TokenReading | None = None
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
        return self.wrapping is not None or self.stops_here


class TextReader:
    """The text of one choice, as it arrives and as the client is to see it."""

    def __init__(self, reading: Reading) -> None:
        self._unwrapper = _unwrapper(reading)
        self._finder = StopFinder(reading.stops, include=reading.include_stop)
        self._tokens = _TokenReader(reading)
        self._stop_ids = reading.stop_ids
        self._token_finder = _token_finder(reading)

    @property
    def stop_reason(self) -> str | int | None:
        """The stop string or the token that ended the text."""
        matched = self._finder.matched
        if matched is None and self._token_finder:
            return self._token_finder.matched
        return None if matched is None else self._stop_ids.get(matched, matched)

    @property
    def complete(self) -> bool:
        """Whether the value of a wrapped answer is whole; what may follow is the wrapper."""
        return self._unwrapper is not None and self._unwrapper.complete

    def read(self, text: str, tokens: list[JSONObject]) -> tuple[str, list[JSONObject]]:
        """What of the text so far can be seen now and was not seen before.

        And of `tokens`, the entries of `logprobs.content` that came with the text, those whose text can be seen, as it
        is seen.
        """
        if self._token_finder:
            text, tokens = self._token_finder.cut(text, tokens)
        shown = self._finder.feed(self._unwrapper.feed(text) if self._unwrapper else text)
        return shown, [seen for token in tokens if (seen := self._tokens.seen(token))]

    def finish(self) -> str:
        """What was held back when the text has ended."""
        return self._finder.finish()


def _token_finder(reading: Reading) -> StopTokenFinder | None:
    tokens = reading.tokens
    return StopTokenFinder(tokens, include=reading.include_stop) if tokens and tokens.stops else None


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
