"""An answer's tokens by their ids, which OpenAI does not send: from the bytes of its log probabilities, or its text."""

from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from app.core.tokenization import Encoding
from app.features.llm.from_openai.openai_chunks import (
    ChunkChoice,
    CompletionChoice,
    Delta,
    LogprobEntry,
    ToolCallDelta,
    TopLogprobEntry,
    logprob_entries,
)
from app.features.llm.schema import JSONObject


@dataclass(slots=True)
class TokenOptions:
    """What the client is to see of an answer's tokens, and which of them end it."""

    encoding: Encoding
    stops: frozenset[int] = frozenset()
    """Ids that end a choice; OpenAI sends log probabilities, so that each can be told exactly."""
    shows_ids: bool = False
    """Whether answer and prompt have `token_ids`."""
    names_ids: bool = False
    """Whether `logprobs` show a token as `token_id:N`."""
    hides_logprobs: bool = False
    """Whether the log probabilities were asked for by this server alone."""
    counts_in_chunks: bool = False
    """Whether each chunk has the usage so far."""
    counts_at_stop: bool = False
    """Whether the usage up to a stop can be told here, so that nothing more of OpenAI's answer is needed."""

    @property
    def needs_prompt(self) -> bool:
        """Whether the prompt's ids are needed for the answer."""
        return self.shows_ids or self.counts_in_chunks or self.counts_at_stop

    @property
    def needs_index(self) -> bool:
        """Whether bytes will be looked up."""
        return bool(self.stops) or self.shows_ids or self.names_ids

    def entry_ids(self, entry: TopLogprobEntry) -> list[int]:
        """The id of an entry of `logprobs.content`; what is no token of the vocabulary has those of its text."""
        raw = entry["bytes"]
        if raw is None:
            return self.encoding.encode(entry["token"])
        token = self.encoding.id_of(bytes(raw))
        return self.encoding.encode(bytes(raw).decode(errors="replace")) if token is None else [token]

    def ids(self, entries: Iterable[LogprobEntry], text: str) -> list[int]:
        """The ids of a text: exactly those of its entries, or, where it has none, OpenAI's own way to cut the text."""
        exact = list(chain.from_iterable(map(self.entry_ids, entries)))
        return exact or (self.encoding.encode(text) if text else [])

    def named(self, entries: list[LogprobEntry]) -> list[LogprobEntry]:
        """Entries of `logprobs.content` as they are shown, `top_logprobs` included."""
        return [self._named(entry) for entry in entries] if self.names_ids else entries

    def _named(self, entry: LogprobEntry) -> LogprobEntry:
        others: list[TopLogprobEntry] = [{**other, "token": self._name(other)} for other in entry["top_logprobs"]]
        return {**entry, "token": self._name(entry), "top_logprobs": others}

    def _name(self, entry: TopLogprobEntry) -> str:
        return f"token_id:{next(iter(self.entry_ids(entry)), 0)}"


def show_tokens(choice: CompletionChoice, tokens: TokenOptions) -> None:
    """Give a whole answer's choice, whose text is what the client sees, its ids, but not where tools are called."""
    message, entries = choice["message"], logprob_entries(choice)
    if tokens.shows_ids and not message.get("tool_calls"):
        choice["token_ids"] = tokens.ids(entries, message.get("content") or "")
    if tokens.hides_logprobs:
        choice["logprobs"] = None
    elif entries:
        choice["logprobs"] = {"content": tokens.named(entries)}


class StreamTokens:
    """The tokens of a stream's choices, counted as they are shown."""

    def __init__(self, tokens: TokenOptions, prompt_ids: Sequence[int]) -> None:
        self._tokens = tokens
        self._counts: Counter[int] = Counter()
        self._prompt_ids = prompt_ids

    @property
    def prompt_ids(self) -> list[int] | None:
        """What the role's chunk shows of the prompt."""
        return list(self._prompt_ids) if self._tokens.shows_ids else None

    def show(self, index: int, choice: ChunkChoice, delta: Delta) -> None:
        """Give a chunk's choice, whose delta is what the client sees, its ids, and count them."""
        entries = logprob_entries(choice)
        ids = self._tokens.ids(entries, delta.get("content") or "")
        calls = delta.get("tool_calls") or []
        self._counts[index] += (len(entries) or len(ids)) + sum(map(self._called, calls))
        if self._tokens.shows_ids and not calls:
            choice["token_ids"] = ids
        is_shown = choice.get("logprobs") and not self._tokens.hides_logprobs
        choice["logprobs"] = {"content": self._tokens.named(entries)} if is_shown else None

    def running(self, index: int) -> JSONObject:
        """The keys that tell a choice's usage so far, where each chunk does."""
        if not self._tokens.counts_in_chunks:
            return {}
        return {"usage": {**self._usage(self._counts[index]), "completion_tokens_details": None}}

    def usage(self) -> JSONObject:
        """The usage of all choices so far."""
        return self._usage(self._counts.total())

    def _usage(self, completion: int) -> JSONObject:
        prompt = len(self._prompt_ids)
        return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}

    def _called(self, call: ToolCallDelta) -> int:
        function = call.get("function")
        texts = (function.get("name"), function.get("arguments")) if function else ()
        return sum(len(self._tokens.encoding.encode(text)) for text in texts if text)


class StopTokenFinder:
    """Ends a text at the first of some tokens, in whatever pieces text and tokens come."""

    def __init__(self, tokens: TokenOptions, *, include: bool) -> None:
        """`include`: the stop token's text stays in the text. Its entry stays in any case, as with vLLM."""
        self.matched: int | None = None
        """The id that ended the text."""
        self._tokens = tokens
        self._include = include
        self._characters = getincrementaldecoder("utf-8")("replace")
        self._ahead = 0
        """How many characters of the tokens so far are still to come in the text."""

    def cut(self, text: str, entries: list[LogprobEntry]) -> tuple[str, list[LogprobEntry]]:
        """What of the next text and of its entries stands before the end; nothing more once a token has matched."""
        if self.matched is not None:
            return "", []
        for place, entry in enumerate(entries):
            before = self._ahead
            self._ahead += len(self._decoded(entry))
            self.matched = next((token for token in self._tokens.entry_ids(entry) if token in self._tokens.stops), None)
            if self.matched is not None:
                return text[: max(0, self._ahead if self._include else before)], entries[: place + 1]
        self._ahead -= len(text)
        return text, entries

    def _decoded(self, entry: LogprobEntry) -> str:
        raw = entry["bytes"]
        return entry["token"] if raw is None else self._characters.decode(bytes(raw))
