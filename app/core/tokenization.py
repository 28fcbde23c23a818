"""OpenAI's tokenizers, exact and without a download."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Literal, TypeVar

import splintr

EncodingName = Literal["o200k_base", "cl100k_base"]

OFFLOAD_ABOVE_CHARACTERS = 4096
"""Longer texts are encoded in a thread: they may take more than a millisecond."""

_SPECIAL: dict[EncodingName, dict[int, bytes]] = {
    "o200k_base": {199999: b"<|endoftext|>", 200018: b"<|endofprompt|>"},
    "cl100k_base": {
        100257: b"<|endoftext|>",
        100258: b"<|fim_prefix|>",
        100259: b"<|fim_middle|>",
        100260: b"<|fim_suffix|>",
        100276: b"<|endofprompt|>",
    },
}


@dataclass(frozen=True, slots=True)
class ChatMarks:
    """The ids that delimit a message. OpenAI does not publish them; these are commonly quoted for ChatML."""

    start: int
    end: int
    separator: int


_CHAT_MARKS: dict[EncodingName, ChatMarks] = {
    "o200k_base": ChatMarks(200264, 200265, 200266),
    "cl100k_base": ChatMarks(100264, 100265, 100266),
}
# Ids 0 to N-1 stand for text; N is the length of OpenAI's rank file (tiktoken).
_ORDINARY_COUNT: dict[EncodingName, int] = {"o200k_base": 199_998, "cl100k_base": 100_256}
_LONGEST_CHARACTERS: dict[EncodingName, int] = {"o200k_base": 128, "cl100k_base": 128}

# Where the name of a special token begins. Both encodings always split there, so a text may be cut there before it is
# encoded; no piece then contains a special token, and each is encoded as plain text.
_SPECIAL_TOKEN_NAME = re.compile(r"(?<=<\|)(?=[a-z])|(?<=<\|/)(?=[a-z])")

T = TypeVar("T")


class Encoding:
    """One of OpenAI's encodings. Input is always plain text: `<|endoftext|>` in it is not a special token.

    Loading takes about 30 ms and 30 MB. The first `id_of` builds an index in about 60 ms and 15 MB.
    """

    def __init__(self, name: EncodingName) -> None:
        self.name = name
        self.chat_marks = marks = _CHAT_MARKS[name]
        self._tokenizer = splintr.Tokenizer.from_pretrained(name)
        self._named = {
            **_SPECIAL[name],
            marks.start: b"<|im_start|>",
            marks.end: b"<|im_end|>",
            marks.separator: b"<|im_sep|>",
        }
        self._ordinary_count = _ORDINARY_COUNT[name]
        self._ids: dict[bytes, int] = {}

    @property
    def special_ids(self) -> frozenset[int]:
        """The published ids of special tokens, such as the end of a text."""
        return frozenset(_SPECIAL[self.name])

    @property
    def named_ids(self) -> tuple[int, ...]:
        """All ids that decode to a name: special tokens and the marks of the chat format."""
        return tuple(sorted(self._named))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text. Releases the interpreter lock."""
        pieces = _SPECIAL_TOKEN_NAME.split(text) if "<|" in text else [text]
        # The only encoding method of splintr that releases the lock.
        encoded = self._tokenizer.encode_batch(pieces)
        return encoded[0] if len(encoded) == 1 else list(chain.from_iterable(encoded))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids. Invalid UTF-8 becomes U+FFFD; unknown ids are dropped."""
        if ids and min(ids) >= 0 and max(ids) < self._ordinary_count:
            # Ten times as fast for long lists.
            return self._tokenizer.decode_bytes(list(ids)).decode(errors="replace")
        return b"".join(self.token_bytes(token) or b"" for token in ids).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes | None:
        """Return the bytes of an id, or its name if it is special; None for an unknown id."""
        if 0 <= token < self._ordinary_count:
            return self._tokenizer.decode_token_bytes(token)
        return self._named.get(token)

    @property
    def indexed(self) -> bool:
        """Whether the index of `id_of` is built."""
        return bool(self._ids)

    def id_of(self, token: bytes) -> int | None:
        """Return the ordinary id with these bytes, or None."""
        if not self._ids:
            bytes_of = self._tokenizer.decode_token_bytes
            self._ids = {bytes_of(number): number for number in range(self._ordinary_count)}
        return self._ids.get(token)


def vocabulary_size(name: EncodingName) -> int:
    """Return the highest published id plus one; a few ids between ordinary and special ones are unused."""
    return max(_SPECIAL[name]) + 1


def longest_token(name: EncodingName) -> int:
    """Return the most characters that one id decodes to."""
    return _LONGEST_CHARACTERS[name]


def is_ordinary(name: EncodingName, token: int) -> bool:
    """Return whether an id is an ordinary token: neither a special nor an unused id."""
    return 0 <= token < _ORDINARY_COUNT[name]


@cache
def encoding(name: EncodingName) -> Encoding:
    """Return an encoding; it is loaded on first use and kept."""
    return Encoding(name)


async def to_thread_if_large(characters: int, work: Callable[[], T]) -> T:
    """Run `work` on a text of `characters` length, in a thread if it is long, and return its result."""
    return await asyncio.to_thread(work) if characters > OFFLOAD_ABOVE_CHARACTERS else work()
