"""The value out of an answer that is ``{"value": …}``, while it streams."""

import json
import re
from collections.abc import Callable

_HEAD = '{"value":'
# Characters of the head that whitespace may stand before; after the last one it may stand before the value.
_SPACED = frozenset({0, 1, len(_HEAD) - 1, len(_HEAD)})
_WHITESPACE = frozenset(" \t\n\r")
_BEGINS_STRING = frozenset('"')
_BEGINS_VALUE = frozenset('"{[-0123456789tfn')


class EnvelopeReader:
    """Takes the text of ``{"value": X}`` in whatever pieces and gives the text of X.

    As it stands or, for a string asked for as bare text, decoded. A text that is no such object (a refusal, say) is
    given unchanged, from where that is certain.
    """

    def __init__(self, *, bare: bool) -> None:
        self._begins = _BEGINS_STRING if bare else _BEGINS_VALUE
        self._string = _StringText() if bare else None
        self._value = _ValueEnd()
        self._step: Callable[[str], str] = self._before_value
        self._head = ""
        self._matched = 0

    def feed(self, text: str) -> str:
        """What is known of X now and was not given before.

        Nothing of X is held back but the beginning of an escape, which stands for no character until it is whole.
        """
        return self._step(text)

    @property
    def complete(self) -> bool:
        """Whether all of X is known."""
        return self._value.found

    def _before_value(self, text: str) -> str:
        for position, character in enumerate(text):
            if character in _WHITESPACE and self._matched in _SPACED:
                continue
            if _HEAD.startswith(character, self._matched):
                self._matched += 1
            elif self._matched == len(_HEAD) and character in self._begins:
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
    """Finds where a JSON value ends, in text that begins with it and comes in pieces."""

    def __init__(self) -> None:
        self.found = False
        self._next: re.Pattern[str] | None = None
        self._depth = 0

    def find(self, text: str) -> int:
        """How many characters of this piece are of the value."""
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
        """What to look for after this character; None where the value has ended."""
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
# A number or a word ends before this character, all else with it.
_AFTER_PLAIN_VALUE = re.compile(r"(?=[ \t\n\r,}\]])")
_OPENS = frozenset('"{[')


class _StringText:
    """Decodes a JSON string that comes in pieces, its quotes included."""

    def __init__(self) -> None:
        self._held = ""

    def decode(self, text: str) -> str:
        """What these characters stand for, up to an escape that is not whole."""
        text, self._held = self._held + text, ""
        return _TOKEN.sub(self._decoded, text)

    def _decoded(self, token: re.Match[str]) -> str:
        if token["cut"] is not None:
            self._held = token[0]
            return ""
        if token[0] == '"':
            return ""
        decoded: str = json.loads(f'"{token[0]}"')
        return "\ufffd" if "\ud800" <= decoded <= "\udfff" else decoded


# A first half of a surrogate pair is cut for as long as its second half may follow.
_FIRST_HALF = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_TOKEN = re.compile(
    rf"""
      " | {_FIRST_HALF}\\u[dD][c-fC-F][0-9a-fA-F]{{2}}
    | (?P<cut> {_FIRST_HALF}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?\Z | \\(?:u[0-9a-fA-F]{{0,3}})?\Z )
    | \\u[0-9a-fA-F]{{4}} | \\["\\/bfnrt]
    """,
    re.VERBOSE,
)
