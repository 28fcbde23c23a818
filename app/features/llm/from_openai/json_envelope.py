"""Take the value out of the envelope ``{"value": …}`` while it streams."""

import json
import re
from collections.abc import Callable

_HEAD = '{"value":'
# Positions in the head where whitespace may occur; the last is before the value.
_WHITESPACE_BEFORE = frozenset({0, 1, len(_HEAD) - 1, len(_HEAD)})
_WHITESPACE = frozenset(" \t\n\r")
_STRING_START = frozenset('"')
_VALUE_START = frozenset('"{[-0123456789tfn')


class EnvelopeReader:
    """Reads ``{"value": X}`` in pieces and returns the text of X: the JSON, or with `bare` the decoded string.

    A text that is no such object, such as a refusal, is returned unchanged as soon as that is certain.
    """

    def __init__(self, *, bare: bool) -> None:
        self._value_start = _STRING_START if bare else _VALUE_START
        self._string = _StringText() if bare else None
        self._value = _ValueEnd()
        self._step: Callable[[str], str] = self._before_value
        self._head = ""
        self._matched = 0

    def feed(self, text: str) -> str:
        """Return the newly decoded part of X.

        Only an incomplete escape sequence is held back.
        """
        return self._step(text)

    @property
    def complete(self) -> bool:
        """Whether X has been read to its end."""
        return self._value.found

    def _before_value(self, text: str) -> str:
        for position, character in enumerate(text):
            if character in _WHITESPACE and self._matched in _WHITESPACE_BEFORE:
                continue
            if _HEAD.startswith(character, self._matched):
                self._matched += 1
            elif self._matched == len(_HEAD) and character in self._value_start:
                self._step = self._in_value
                return self._in_value(text[position:])
            else:
                self._step = _unchanged
                return self._head + text
        self._head += text
        return ""

    def _in_value(self, text: str) -> str:
        text = text[: self._value.find(text)]
        if self._value.found:
            self._step = _nothing
        return text if self._string is None else self._string.decode(text)


def _unchanged(text: str) -> str:
    return text


def _nothing(_text: str) -> str:
    return ""


class _ValueEnd:
    """Finds the end of the JSON value that a text starts with, while the text comes in pieces."""

    def __init__(self) -> None:
        self.found = False
        self._next: re.Pattern[str] | None = None
        self._depth = 0

    def find(self, text: str) -> int:
        """Return how many characters of this piece belong to the value."""
        if self._next is None and text:
            self._next = _NESTING if text[0] in _OPENS else _AFTER_PLAIN_VALUE
        position = 0
        while self._next and (match := self._next.search(text, position)):
            position = match.end()
            self._next = self._after(match[0])
            if self._next is None:
                self.found = True
                return position
        return len(text)

    def _after(self, character: str) -> re.Pattern[str] | None:
        """Return what to search for after this character; None: the value has ended."""
        if self._next is _ESCAPED:
            return _IN_STRING
        if self._next is _IN_STRING and character == "\\":
            return _ESCAPED
        if self._next is _NESTING and character == '"':
            return _IN_STRING
        if self._next is _NESTING:
            self._depth += 1 if character in _OPENS else -1
        return _NESTING if self._depth else None


_NESTING = re.compile(r'["{}\[\]]')
_IN_STRING = re.compile(r'["\\]')
_ESCAPED = re.compile(r".", re.DOTALL)
# Numbers and literals end before this character. Strings, arrays and objects end with their last one.
_AFTER_PLAIN_VALUE = re.compile(r"(?=[ \t\n\r,}\]])")
_OPENS = frozenset('"{[')


class _StringText:
    """Decodes a JSON string that comes in pieces, including its quotes."""

    def __init__(self) -> None:
        self._held = ""

    def decode(self, text: str) -> str:
        """Decode these characters, up to an incomplete escape sequence."""
        text, self._held = self._held + text, ""
        return _TOKEN.sub(self._decode_token, text)

    def _decode_token(self, token: re.Match[str]) -> str:
        if token["cut"] is not None:
            self._held = token[0]
            return ""
        if token[0] == '"':
            return ""
        decoded: str = json.loads(f'"{token[0]}"')
        return "\ufffd" if "\ud800" <= decoded <= "\udfff" else decoded


# A high surrogate is incomplete while a low surrogate may follow.
_HIGH_SURROGATE = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_TOKEN = re.compile(
    rf"""
      " | {_HIGH_SURROGATE}\\u[dD][c-fC-F][0-9a-fA-F]{{2}}
    | (?P<cut> {_HIGH_SURROGATE}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?\Z | \\(?:u[0-9a-fA-F]{{0,3}})?\Z )
    | \\u[0-9a-fA-F]{{4}} | \\["\\/bfnrt]
    """,
    re.VERBOSE,
)
