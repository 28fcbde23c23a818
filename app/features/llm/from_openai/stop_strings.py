"""Find stop strings in a text while it streams."""

from collections.abc import Sequence


class StopFinder:
    """Passes on a text that comes in pieces, up to its first stop string.

    The stop string that ends first wins; if several end at the same character, the one listed first.
    """

    def __init__(self, stops: Sequence[str], *, include: bool) -> None:
        """`include`: the stop string stays in the text. Empty stop strings are ignored."""
        self.matched: str | None = None
        """The stop string that ended the text."""
        self._progress = [_Progress(stop) for stop in stops if stop]
        self._include = include
        self._held = ""

    def feed(self, text: str) -> str:
        """Return the newly visible text; none after a stop string has matched."""
        if self.matched is not None:
            return ""
        known = len(self._held)
        text = self._held + text
        for position in range(known, len(text)):
            if (stop := self._stop_ending_with(text[position])) is not None:
                return self._match(text, stop, end=position + 1)
        shown = len(text) - max((progress.length for progress in self._progress), default=0)
        self._held = text[shown:]
        return text[:shown]

    def finish(self) -> str:
        """Return the text held back, now that the text has ended and no stop string can match."""
        held, self._held = self._held, ""
        return held

    def _stop_ending_with(self, character: str) -> str | None:
        return next((progress.stop for progress in self._progress if progress.advance(character)), None)

    def _match(self, text: str, stop: str, *, end: int) -> str:
        self.matched, self._held = stop, ""
        return text[: end if self._include else end - len(stop)]


class _Progress:
    """How much of one stop string the text ends with (Knuth-Morris-Pratt: linear in the text).

    A search after every piece would take time proportional to the text times the stop string.
    """

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.length = 0
        """Length of the longest prefix of the stop string that the text ends with."""
        self._stop_borders = _borders(stop)

    def advance(self, character: str) -> bool:
        """Take the next character; True if it completes the stop string. Not to be called after that."""
        self.length = _extend(self.stop, self._stop_borders, self.length, character)
        return self.length == len(self.stop)


def _borders(stop: str) -> list[int]:
    """Return for each prefix of `stop` the length of its longest proper border (Knuth-Morris-Pratt)."""
    borders = [0]
    for character in stop[1:]:
        borders.append(_extend(stop, borders, borders[-1], character))
    return borders


def _extend(stop: str, borders: Sequence[int], length: int, character: str) -> int:
    while length and stop[length] != character:
        length = borders[length - 1]
    return length + (stop[length] == character)
