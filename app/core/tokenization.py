"""OpenAI's tokenizers: text to token ids and back, exactly, without a download."""

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
"""A text of more characters is encoded beside the event loop: it may take longer than a millisecond."""

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
    """The ids around a message. OpenAI does not publish them; these are the ones commonly quoted for ChatML."""

    start: int
    end: int
    separator: int


_CHAT_MARKS: dict[EncodingName, ChatMarks] = {
    "o200k_base": ChatMarks(200264, 200265, 200266),
    "cl100k_base": ChatMarks(100264, 100265, 100266),
}
# The ordinary ids are 0 to N-1 (OpenAI's rank files, as tiktoken names them).
_ORDINARY: dict[EncodingName, int] = {"o200k_base": 199_998, "cl100k_base": 100_256}
_LONGEST_CHARACTERS: dict[EncodingName, int] = {"o200k_base": 128, "cl100k_base": 128}

# Between the punctuation that opens a special token and its name both encodings' patterns always split. Cut there, no
# piece spells a special token, and each is encoded as the plain text that it is.
_SPECIAL_TOKENS_NAME = re.compile(r"(?<=<\|)(?=[a-z])|(?<=<\|/)(?=[a-z])")

T = TypeVar("T")


class Encoding:
    """One of OpenAI's encodings. Whatever a text spells is text: `<|endoftext|>` in it is no special token.

    To load one takes some 30 ms and 30 MB; the index behind `id_of`, made when it is first asked for, 60 ms and 15 MB.
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
        self._ordinary = _ORDINARY[name]
        self._ids: dict[bytes, int] = {}

    @property
    def special_ids(self) -> frozenset[int]:
        """The published ids that stand for no text, such as the end of an answer."""
        return frozenset(_SPECIAL[self.name])

    @property
    def named_ids(self) -> tuple[int, ...]:
        """The ids that stand for their names: the special ones, and the marks of the chat format."""
        return tuple(sorted(self._named))

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Other threads run meanwhile."""
        pieces = _SPECIAL_TOKENS_NAME.split(text) if "<|" in text else [text]
        # Of splintr's ways to encode only this one lets go of the interpreter's lock.
        encode_json = self._tokenizer.encode_batch(pieces)
        return encode_json[0] if len(encode_json) == 1 else list(chain.from_iterable(encode_json))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD, an unknown id nothing."""
        if ids and min(ids) >= 0 and max(ids) < self._ordinary:
            # Ten times as fast, for lists that are long.
            return self._tokenizer.decode_bytes(list(ids)).decode(errors="replace")
        return b"".join(self.token_bytes(token) or b"" for token in ids).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes | None:
        """The bytes an id stands for, its name for a special one; None: there is no such id."""
        if 0 <= token < self._ordinary:
            return self._tokenizer.decode_token_bytes(token)
        return self._named.get(token)

    @property
    def indexed(self) -> bool:
        """Whether `id_of` has its index."""
        return bool(self._ids)

    def id_of(self, token: bytes) -> int | None:
        """The ordinary id whose bytes these are."""
        if not self._ids:
            bytes_of = self._tokenizer.decode_token_bytes
            self._ids = {bytes_of(number): number for number in range(self._ordinary)}
        return self._ids.get(token)


def vocabulary_size(name: EncodingName) -> int:
    """One more than an encoding's highest published id; between ordinary and special ids a few are unused."""
    return max(_SPECIAL[name]) + 1


def longest_token(name: EncodingName) -> int:
    """The most characters that one id stands for."""
    return _LONGEST_CHARACTERS[name]


def is_ordinary(name: EncodingName, token: int) -> bool:
    """Whether an id stands for text; the others end or structure an answer."""
    return 0 <= token < _ORDINARY[name]


@cache
def encoding(name: EncodingName) -> Encoding:
    """The encoding of this name, loaded when it is first asked for and kept."""
    return Encoding(name)


async def to_thread_if_large(characters: int, work: Callable[[], T]) -> T:
    """The result of `work` on a text of so many characters; a long one does not keep the event loop waiting."""
    return await asyncio.to_thread(work) if characters > OFFLOAD_ABOVE_CHARACTERS else work()
