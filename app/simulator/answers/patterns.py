"""Text that matches a regular expression."""

import re
import string

# ``re`` has a parser that it does not publish. A second one would be 150 lines and would disagree with the first.
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

from app.simulator.dice import Dice

PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " "
WORD = string.ascii_letters + string.digits + "_"
MOST_EXTRA_REPEATS = 3
MOST_REPEATS = 1_000
FALLBACK = "text"

CATEGORIES = {
    _constants.CATEGORY_DIGIT: string.digits,
    _constants.CATEGORY_WORD: WORD,
    _constants.CATEGORY_SPACE: " ",
    _constants.CATEGORY_NOT_DIGIT: string.ascii_letters,
    _constants.CATEGORY_NOT_WORD: "-. ",
    _constants.CATEGORY_NOT_SPACE: string.ascii_letters + string.digits,
}


def matching_text(pattern: str, dice: Dice) -> str:
    """Return text in which ``pattern`` is found, or "text" where it is too unusual to be followed.

    Understood are literals, classes, escapes, quantifiers, groups, alternation, anchors and back-references.
    """
    try:
        found = _Writer(dice).sequence(_parser.parse(pattern))
    except (re.error, KeyError, OverflowError, RecursionError):
        return FALLBACK
    return found if re.search(pattern, found) else FALLBACK


class _Writer:
    """One walk through a parsed pattern; ``groups`` holds what back-references repeat."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
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
        return self._dice.choose(string.ascii_lowercase)

    def _other_than(self, code: int) -> str:
        return self._dice.choose(PRINTABLE.replace(chr(code), ""))

    def _member(self, items: Any) -> str:
        negated = items[0][0] is _constants.NEGATE
        members = "".join(self._members(kind, argument) for kind, argument in items[negated:])
        return self._dice.choose([char for char in PRINTABLE if char not in members] if negated else members)

    def _members(self, kind: Any, argument: Any) -> str:
        if kind is _constants.LITERAL:
            return chr(argument)
        if kind is _constants.RANGE:
            first, last = argument
            return "".join(map(chr, range(first, min(last, first + len(PRINTABLE)) + 1)))
        return CATEGORIES[argument]

    def _repeated(self, argument: Any) -> str:
        least, most, nodes = argument
        extra = self._dice.below(min(most - least, MOST_EXTRA_REPEATS) + 1)
        return "".join(self.sequence(nodes) for _ in range(min(least + extra, MOST_REPEATS)))

    def _group(self, argument: Any) -> str:
        number, *_, nodes = argument
        self._groups[number] = self.sequence(nodes)
        return self._groups[number]

    def _branch(self, argument: Any) -> str:
        return self.sequence(self._dice.choose(argument[1]))
