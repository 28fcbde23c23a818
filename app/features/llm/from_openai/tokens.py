"""Token ids of a response. OpenAI sends none, so they come from the bytes of its log probabilities or from its text."""

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
    """Which token details the client gets, and which tokens end the response."""

    encoding: Encoding
    stops: frozenset[int] = frozenset()
    """Ids that end a choice. They need log probabilities from OpenAI, which identify each token exactly."""
    shows_ids: bool = False
    """Whether the response has `token_ids` and `prompt_token_ids`."""
    names_ids: bool = False
    """Whether `logprobs` show a token as `token_id:N`."""
    hides_logprobs: bool = False
    """Whether only this server, not the client, requested the log probabilities."""
    counts_in_chunks: bool = False
    """Whether each chunk has the usage so far (vLLM: `continuous_usage_stats`)."""
    counts_at_stop: bool = False
    """Whether this server can count the usage up to a stop, without the rest of OpenAI's response."""

    @property
    def needs_prompt(self) -> bool:
        """Whether the response needs the prompt's ids."""
        return self.shows_ids or self.counts_in_chunks or self.counts_at_stop

    @property
    def needs_index(self) -> bool:
        """Whether token ids are looked up by their bytes."""
        return bool(self.stops) or self.shows_ids or self.names_ids

    def entry_ids(self, entry: TopLogprobEntry) -> list[int]:
        """Return the id of a `logprobs.content` entry, or if no token has its bytes, the ids of its encoded text."""
        raw = entry["bytes"]
        if raw is None:
            return self.encoding.encode(entry["token"])
        token = self.encoding.id_of(bytes(raw))
        return self.encoding.encode(bytes(raw).decode(errors="replace")) if token is None else [token]

    def ids(self, entries: Iterable[LogprobEntry], text: str) -> list[int]:
        """Return a text's ids: exactly those of its entries, or without entries those of the encoded text."""
        exact = list(chain.from_iterable(map(self.entry_ids, entries)))
        return exact or (self.encoding.encode(text) if text else [])

    def named(self, entries: list[LogprobEntry]) -> list[LogprobEntry]:
        """Return entries of `logprobs.content` as the client gets them, including `top_logprobs`."""
        return [self._named(entry) for entry in entries] if self.names_ids else entries

    def _named(self, entry: LogprobEntry) -> LogprobEntry:
        others: list[TopLogprobEntry] = [{**other, "token": self._name(other)} for other in entry["top_logprobs"]]
        return {**entry, "token": self._name(entry), "top_logprobs": others}

    def _name(self, entry: TopLogprobEntry) -> str:
        return f"token_id:{next(iter(self.entry_ids(entry)), 0)}"


def show_tokens(choice: CompletionChoice, tokens: TokenOptions) -> None:
    """Add ids to a choice whose text is filtered already, unless it calls tools."""
    message, entries = choice["message"], logprob_entries(choice)
    if tokens.shows_ids and not message.get("tool_calls"):
        choice["token_ids"] = tokens.ids(entries, message.get("content") or "")
    if tokens.hides_logprobs:
        choice["logprobs"] = None
    elif entries:
        choice["logprobs"] = {"content": tokens.named(entries)}


class StreamTokens:
    """Adds ids to a stream's choices and counts their tokens."""

    def __init__(self, tokens: TokenOptions, prompt_ids: Sequence[int]) -> None:
        self._tokens = tokens
        self._counts: Counter[int] = Counter()
        self._prompt_ids = prompt_ids

    @property
    def prompt_ids(self) -> list[int] | None:
        """`prompt_token_ids` of the role's chunk."""
        return list(self._prompt_ids) if self._tokens.shows_ids else None

    def show(self, index: int, choice: ChunkChoice, delta: Delta) -> None:
        """Add ids to a chunk's choice whose text is filtered already, and count its tokens."""
        entries = logprob_entries(choice)
        ids = self._tokens.ids(entries, delta.get("content") or "")
        calls = delta.get("tool_calls") or []
        self._counts[index] += (len(entries) or len(ids)) + sum(map(self._call_tokens, calls))
        if self._tokens.shows_ids and not calls:
            choice["token_ids"] = ids
        is_shown = choice.get("logprobs") and not self._tokens.hides_logprobs
        choice["logprobs"] = {"content": self._tokens.named(entries)} if is_shown else None

    def running(self, index: int) -> JSONObject:
        """Return the keys for a choice's usage so far, if each chunk has them."""
        if not self._tokens.counts_in_chunks:
            return {}
        return {"usage": {**self._usage(self._counts[index]), "completion_tokens_details": None}}

    def usage(self) -> JSONObject:
        """Return the usage of all choices so far."""
        return self._usage(self._counts.total())

    def _usage(self, completion: int) -> JSONObject:
        prompt = len(self._prompt_ids)
        return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}

    def _call_tokens(self, call: ToolCallDelta) -> int:
        function = call.get("function")
        texts = (function.get("name"), function.get("arguments")) if function else ()
        return sum(len(self._tokens.encoding.encode(text)) for text in texts if text)


class StopTokenFinder:
    """Ends a text at its first stop token, while text and tokens come in pieces."""

    def __init__(self, tokens: TokenOptions, *, include: bool) -> None:
        """`include`: the stop token's text stays in the text. Its entry always stays, as in vLLM."""
        self.matched: int | None = None
        """The id that ended the text."""
        self._tokens = tokens
        self._include = include
        self._characters = getincrementaldecoder("utf-8")("replace")
        self._ahead = 0
        """Characters of the tokens so far that the text does not have yet."""

    def cut(self, text: str, entries: list[LogprobEntry]) -> tuple[str, list[LogprobEntry]]:
        """Return the next text and entries up to the stop token; empty once it has matched."""
        if self.matched is not None:
            return "", []
        for index, entry in enumerate(entries):
            before = self._ahead
            self._ahead += len(self._text_of(entry))
            self.matched = next((token for token in self._tokens.entry_ids(entry) if token in self._tokens.stops), None)
            if self.matched is not None:
                return text[: max(0, self._ahead if self._include else before)], entries[: index + 1]
        self._ahead -= len(text)
        return text, entries

    def _text_of(self, entry: LogprobEntry) -> str:
        raw = entry["bytes"]
        return entry["token"] if raw is None else self._characters.decode(bytes(raw))
