"""Tokens of o200k_base, which all but the oldest models use, and OpenAI's token count of a prompt.

The formula is from OpenAI's cookbook ("How to count tokens with tiktoken"). The server has its own implementation, so
that a test can compare the two.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import splintr

VOCABULARY = 199_998

TOKENS_PER_MESSAGE = 3
TOKENS_PER_NAME = 1
TOKENS_PER_ANSWER = 3
TOKENS_PER_FUNCTION = 7
TOKENS_OF_PROPERTIES = 3
TOKENS_PER_PROPERTY = 3
TOKENS_OF_ENUM = -3
TOKENS_PER_ENUM_ITEM = 3
TOKENS_AFTER_FUNCTIONS = 12


@dataclass(frozen=True, slots=True)
class Piece:
    """The smallest text that can be streamed: whole characters and their tokens."""

    text: str
    tokens: tuple[bytes, ...]


def token(number: int) -> bytes:
    """Return the bytes of an ordinary token; ``number`` is its id in ``[0, VOCABULARY)``."""
    return _vocabulary().decode_token_bytes(number)


def split(text: str) -> list[Piece]:
    """Return the pieces of ``text``; their texts joined are ``text``."""
    return grouped(map(token, _vocabulary().encode_ordinary(text)))


def count(text: str) -> int:
    """Return the number of tokens in ``text``."""
    return len(_vocabulary().encode_ordinary(text))


def total(pieces: Iterable[Piece]) -> int:
    """Return the number of tokens in ``pieces``."""
    return sum(len(piece.tokens) for piece in pieces)


def tokens_of(pieces: Iterable[Piece]) -> list[bytes]:
    """Return the tokens of ``pieces``, in order."""
    return list(chain.from_iterable(piece.tokens for piece in pieces))


def first(pieces: Sequence[Piece], limit: int) -> list[Piece]:
    """Return the first ``limit`` tokens; an incomplete character keeps its tokens and has no text."""
    return grouped(tokens_of(pieces)[:limit])


def grouped(tokens: Iterable[bytes]) -> list[Piece]:
    """Return ``tokens`` as pieces; invalid UTF-8 becomes U+FFFD, an incomplete last character has no text."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces: list[Piece] = []
    text, held = "", []
    for written in tokens:
        text += decoder.decode(written)
        held.append(written)
        if not decoder.getstate()[0]:
            pieces.append(Piece(text, tuple(held)))
            text, held = "", []
    return [*pieces, Piece(text, tuple(held))] if held else pieces


def text_of(message: dict[str, Any]) -> str:
    """Return all text of a valid chat message, one line per text part."""
    return "\n".join(_texts(message.get("content")))


def count_prompt(messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()) -> int:
    """Return the number of prompt tokens: all texts and the overhead of OpenAI's chat format."""
    return sum(map(_count_message, messages)) + TOKENS_PER_ANSWER + _count_tools(tools)


@cache
def _vocabulary() -> splintr.AnyTokenizer:
    # Loaded on first use: it takes about 30 ms.
    return splintr.Tokenizer.from_pretrained("o200k_base")


def _count_message(message: dict[str, Any]) -> int:
    spoken = TOKENS_PER_MESSAGE + count(message["role"])
    if message.get("name"):
        spoken += TOKENS_PER_NAME + count(message["name"])
    calls = [call[call["type"]] for call in message.get("tool_calls") or ()]
    calls += [message["function_call"]] if message.get("function_call") else []
    written = [text for call in calls for text in call.values()]
    return spoken + sum(map(count, [*_texts(message.get("content")), *written]))


def _count_tools(tools: Sequence[dict[str, Any]]) -> int:
    if not tools:
        return 0
    return sum(_count_tool(tool[tool["type"]]) for tool in tools) + TOKENS_AFTER_FUNCTIONS


def _count_tool(described: dict[str, Any]) -> int:
    named = f"{described['name']}:{described.get('description') or ''}"
    used = TOKENS_PER_FUNCTION + count(named.removesuffix("."))
    properties = (described.get("parameters") or {}).get("properties") or {}
    if properties:
        used += TOKENS_OF_PROPERTIES
    return used + sum(_count_property(name, schema) for name, schema in properties.items())


def _count_property(name: str, schema: Any) -> int:
    if not isinstance(schema, dict):
        return 0
    used = TOKENS_PER_PROPERTY
    if "enum" in schema:
        used += TOKENS_OF_ENUM + sum(TOKENS_PER_ENUM_ITEM + count(str(item)) for item in schema["enum"])
    line = f"{name}:{schema.get('type', '')}:{schema.get('description', '')}"
    return used + count(line.removesuffix("."))


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (part["text"] for part in content if part["type"] == "text")
