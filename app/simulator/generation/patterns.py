"""Generates text that matches a regular expression."""

import re
import string

# Python's own regex parser is private, but a second one would be 150 lines and could disagree with it.
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

from app.simulator.seeded_random import SeededRandom

PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " "
WORD = string.ascii_letters + string.digits + "_"
MAX_EXTRA_REPEATS = 3
MAX_REPEATS = 1_000
FALLBACK = "text"

CATEGORIES = {
    _constants.CATEGORY_DIGIT: string.digits,
    _constants.CATEGORY_WORD: WORD,
    _constants.CATEGORY_SPACE: " ",
    _constants.CATEGORY_NOT_DIGIT: string.ascii_letters,
    _constants.CATEGORY_NOT_WORD: "-. ",
    _constants.CATEGORY_NOT_SPACE: string.ascii_letters + string.digits,
}


def matching_text(pattern: str, rng: SeededRandom) -> str:
    """Return text that contains a match of ``pattern``, or "text" if the pattern is not supported.

    Supported are literals, classes, escapes, quantifiers, groups, alternation, anchors and back-references.
    """
    try:
        found = _Writer(rng).sequence(_parser.parse(pattern))
    except (re.error, KeyError, OverflowError, RecursionError):
        return FALLBACK
    return found if re.search(pattern, found) else FALLBACK


class _Writer:
    """Renders one parsed pattern; ``groups`` holds the text of groups for back-references."""

    def __init__(self, rng: SeededRandom) -> None:
        self._rng = rng
        self._groups: dict[int | None, str] = {}
        self._writers = {
            _constants.LITERAL: chr,
            _constants.NOT_LITERAL: self._other_than,
            _constants.ANY: self._any,
            _constants.IN: self._member,
            _constants.MAX_REPEAT: self._repeated,
            _constants.MIN_REPEAT: self._repeated,
            _constants.POSSESSIVE_REPEAT: self._repeated,
            _constants.SUBPATTERN: self._group,
            _constants.ATOMIC_GROUP: self.sequence,
            _constants.BRANCH: self._branch,
            _constants.GROUPREF: self._groups.__getitem__,
            _constants.AT: self._nothing,
        }

    def sequence(self, nodes: Any) -> str:
        return "".join(self._writers[kind](argument) for kind, argument in nodes)

    def _nothing(self, _: Any) -> str:
        return ""

    def _any(self, _: Any) -> str:
        return self._rng.choose(string.ascii_lowercase)

    def _other_than(self, code: int) -> str:
        return self._rng.choose(PRINTABLE.replace(chr(code), ""))

    def _member(self, items: Any) -> str:
        negated = items[0][0] is _constants.NEGATE
        members = "".join(self._members(kind, argument) for kind, argument in items[negated:])
        return self._rng.choose([char for char in PRINTABLE if char not in members] if negated else members)

    def _members(self, kind: Any, argument: Any) -> str:
        if kind is _constants.LITERAL:
            return chr(argument)
        if kind is _constants.RANGE:
            first, last = argument
            return "".join(map(chr, range(first, min(last, first + len(PRINTABLE)) + 1)))
        return CATEGORIES[argument]

    def _repeated(self, argument: Any) -> str:
        minimum, maximum, nodes = argument
        extra = self._rng.below(min(maximum - minimum, MAX_EXTRA_REPEATS) + 1)
        return "".join(self.sequence(nodes) for _ in range(min(minimum + extra, MAX_REPEATS)))

    def _group(self, argument: Any) -> str:
        number, *_, nodes = argument
        self._groups[number] = self.sequence(nodes)
        return self._groups[number]

    def _branch(self, argument: Any) -> str:
        return self.sequence(self._rng.choose(argument[1]))
