"""The simulator's tokens: one fixed splitter, at most eight characters a token.

A token is a run of ASCII letters and digits or of ASCII punctuation (with one blank before it), a run of white space,
or one other character. A character of four UTF-8 bytes (an emoji) is two tokens of two bytes each, as it often is in
OpenAI's vocabularies, so that ``bytes`` of log probabilities are not always whole characters.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

PIECE = re.compile(r" ?[A-Za-z0-9_]{1,7}| ?[!-/:-@\[-^`{-~]{1,7}|\s{1,8}|.", re.DOTALL)
FOUR_BYTES = re.compile(r"[\U00010000-\U0010ffff]")

# The overhead of OpenAI's chat format: each message, and the start of the answer.
TOKENS_PER_MESSAGE = 3
TOKENS_PER_ANSWER = 3


@dataclass(frozen=True, slots=True)
class Piece:
    """The least text that can be streamed: whole characters, and the one or two tokens they are made of."""

    text: str
    tokens: tuple[bytes, ...]


def split(text: str) -> list[Piece]:
    """Return the pieces of ``text``; their texts joined are ``text``."""
    return [_piece(found) for found in PIECE.findall(text)]


def count(text: str) -> int:
    """Return how many tokens ``text`` has."""
    return len(PIECE.findall(text)) + len(FOUR_BYTES.findall(text))


def total(pieces: Iterable[Piece]) -> int:
    """Return how many tokens ``pieces`` have together."""
    return sum(len(piece.tokens) for piece in pieces)


def first(pieces: Sequence[Piece], limit: int) -> list[Piece]:
    """Return the first ``limit`` tokens; half a character keeps its token and loses its text."""
    kept: list[Piece] = []
    left = limit
    for piece in pieces:
        if left < len(piece.tokens):
            return kept + [Piece("", piece.tokens[:left])] * bool(left)
        kept.append(piece)
        left -= len(piece.tokens)
    return kept


def text_of(message: dict[str, Any]) -> str:
    """Return all text of a valid chat message, one line per text part."""
    return "\n".join(_texts(message.get("content")))


def count_prompt(messages: Sequence[dict[str, Any]]) -> int:
    """Return the tokens of a prompt: those of all text, and the overhead of OpenAI's chat format."""
    return sum(count(text_of(message)) + TOKENS_PER_MESSAGE for message in messages) + TOKENS_PER_ANSWER


def _piece(text: str) -> Piece:
    encoded = text.encode()
    if len(text) == 1 and len(encoded) == 4:
        return Piece(text, (encoded[:2], encoded[2:]))
    return Piece(text, (encoded,))


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (part["text"] for part in content if part["type"] == "text")
