"""The text of one choice, as it arrives and as the client sees it."""

from codecs import getincrementaldecoder

from app.features.llm.from_openai.json_envelope import Unwrapper
from app.features.llm.from_openai.plan import Reading, Wrapping
from app.features.llm.from_openai.stop_strings import StopFinder
from app.features.llm.from_openai.tokens import StopTokenFinder
from app.features.llm.schema import JSONObject


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
