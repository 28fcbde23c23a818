"""Filter the text of one choice: remove its envelope, find its stop, cut its length."""

from codecs import getincrementaldecoder

from app.features.llm.from_openai.json_envelope import EnvelopeReader
from app.features.llm.from_openai.openai_chunks import LogprobEntry
from app.features.llm.from_openai.plan import Envelope, LengthLimit, ResponsePlan
from app.features.llm.from_openai.stop_strings import StopFinder
from app.features.llm.from_openai.tokens import StopTokenFinder


class TextFilter:
    """Filters the text of one choice as the response plan says."""

    def __init__(self, plan: ResponsePlan) -> None:
        self._envelope_reader = _envelope_reader(plan)
        self._finder = StopFinder(plan.stops, include=plan.include_stop)
        self._logprobs = _LogprobFilter(plan)
        self._stop_ids = plan.stop_ids
        self._token_finder = _token_finder(plan)
        self._cutter = _LengthCutter(plan.length_limit) if plan.length_limit else None

    @property
    def too_long(self) -> bool:
        """Whether the text was cut at its token limit."""
        return self._cutter is not None and self._cutter.has_cut

    @property
    def stop_reason(self) -> str | int | None:
        """The stop string or token id that ended the text; None: it has not stopped."""
        matched = self._finder.matched
        if matched is None and self._token_finder:
            return self._token_finder.matched
        return None if matched is None else self._stop_ids.get(matched, matched)

    @property
    def complete(self) -> bool:
        """Whether the value of an envelope has been read to its end."""
        return self._envelope_reader is not None and self._envelope_reader.complete

    def read(self, text: str, tokens: list[LogprobEntry]) -> tuple[str, list[LogprobEntry]]:
        """Return the newly visible text, and the visible ones of `tokens`.

        `tokens` are the entries of `logprobs.content` that came with the text. Their text is filtered too.
        """
        if self._token_finder:
            text, tokens = self._token_finder.cut(text, tokens)
        shown = self._finder.feed(self._envelope_reader.feed(text) if self._envelope_reader else text)
        if self._cutter:
            shown = self._cutter.cut(shown)
        return shown, [entry for token in tokens if (entry := self._logprobs.read(token))]

    def finish(self) -> str:
        """Return the text held back, after the text has ended."""
        held = self._finder.finish()
        return self._cutter.cut(held) if self._cutter else held


class _LengthCutter:
    """Cuts a text after a number of tokens. OpenAI sends whole tokens, so each piece is counted separately."""

    def __init__(self, limit: LengthLimit) -> None:
        self.has_cut = False
        self._left = limit.tokens
        self._encoding = limit.encoding

    def cut(self, text: str) -> str:
        ids = self._encoding.encode(text) if text and not self.has_cut else []
        if len(ids) > self._left:
            self.has_cut = True
            # A character that is cut in half is not shown.
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
    """Filters entries of `logprobs`. A token can be part of a character, so its bytes are read, not its text."""

    def __init__(self, plan: ResponsePlan) -> None:
        self._envelope_reader = _envelope_reader(plan)
        self._finder = StopFinder(plan.stops, include=True)
        self._characters = getincrementaldecoder("utf-8")("replace")

    def read(self, token: LogprobEntry) -> LogprobEntry | None:
        if self._finder.matched is not None:
            return None
        raw = token["bytes"]
        text = token["token"] if raw is None else self._characters.decode(bytes(raw))
        shown = self._envelope_reader.feed(text) if self._envelope_reader else text
        self._finder.feed(shown)
        if self._envelope_reader is None or shown == text != "":
            return token
        return {**token, "token": shown, "bytes": list(shown.encode())} if shown else None
