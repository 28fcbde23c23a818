"""The text of one choice, as it arrives and as the client sees it."""

from codecs import getincrementaldecoder

from app.features.llm.from_openai.json_envelope import EnvelopeReader
from app.features.llm.from_openai.openai_chunks import LogprobEntry
from app.features.llm.from_openai.plan import Envelope, LengthLimit, ResponsePlan
from app.features.llm.from_openai.stop_strings import StopFinder
from app.features.llm.from_openai.tokens import StopTokenFinder


class TextFilter:
    """The text of one choice, as it arrives and as the client is to see it."""

    def __init__(self, plan: ResponsePlan) -> None:
        self._envelope_reader = _envelope_reader(plan)
        self._finder = StopFinder(plan.stops, include=plan.include_stop)
        self._tokens = _LogprobFilter(plan)
        self._stop_ids = plan.stop_ids
        self._token_finder = _token_finder(plan)
        self._cutter = _LengthCutter(plan.length_limit) if plan.length_limit else None

    @property
    def too_long(self) -> bool:
        """Whether the text was cut at its limit of tokens."""
        return self._cutter is not None and self._cutter.has_cut

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
        return self._envelope_reader is not None and self._envelope_reader.complete

    def read(self, text: str, tokens: list[LogprobEntry]) -> tuple[str, list[LogprobEntry]]:
        """What of the text so far can be seen now and was not seen before.

        And of `tokens`, the entries of `logprobs.content` that came with the text, those whose text can be seen, as it
        is seen.
        """
        if self._token_finder:
            text, tokens = self._token_finder.cut(text, tokens)
        shown = self._finder.feed(self._envelope_reader.feed(text) if self._envelope_reader else text)
        if self._cutter:
            shown = self._cutter.cut(shown)
        return shown, [seen for token in tokens if (seen := self._tokens.seen(token))]

    def finish(self) -> str:
        """What was held back when the text has ended."""
        held = self._finder.finish()
        return self._cutter.cut(held) if self._cutter else held


class _LengthCutter:
    """Gives a text up to a number of tokens. OpenAI's pieces are whole tokens, so that each is counted by itself."""

    def __init__(self, limit: LengthLimit) -> None:
        self.has_cut = False
        self._left = limit.tokens
        self._encoding = limit.encoding

    def cut(self, text: str) -> str:
        ids = self._encoding.encode(text) if text and not self.has_cut else []
        if len(ids) > self._left:
            self.has_cut = True
            # Of a character that is cut in two nothing is shown.
            text = self._encoding.decode(ids[: self._left]).rstrip("\N{REPLACEMENT CHARACTER}")
        elif self.has_cut:
            return ""
        self._left -= min(len(ids), self._left)
        return text


def _token_finder(plan: ResponsePlan) -> StopTokenFinder | None:
    tokens = plan.tokens
    return StopTokenFinder(tokens, include=plan.include_stop) if tokens and tokens.stops else None


def _envelope_reader(plan: ResponsePlan) -> EnvelopeReader | None:
    return EnvelopeReader(bare=plan.envelope is Envelope.TEXT) if plan.envelope else None


class _LogprobFilter:
    """The same for the tokens of `logprobs`, which may be parts of characters and so are read by their bytes."""

    def __init__(self, plan: ResponsePlan) -> None:
        self._envelope_reader = _envelope_reader(plan)
        self._finder = StopFinder(plan.stops, include=True)
        self._characters = getincrementaldecoder("utf-8")("replace")

    def seen(self, token: LogprobEntry) -> LogprobEntry | None:
        if self._finder.matched is not None:
            return None
        raw = token["bytes"]
        text = token["token"] if raw is None else self._characters.decode(bytes(raw))
        shown = self._envelope_reader.feed(text) if self._envelope_reader else text
        self._finder.feed(shown)
        if self._envelope_reader is None or shown == text != "":
            return token
        return {**token, "token": shown, "bytes": list(shown.encode())} if shown else None
