"""Stop strings found in a text while it streams."""

from collections.abc import Sequence


class StopFinder:
    """Takes a text in whatever pieces and gives it up to the first stop string.

    The stop string that ends first wins; where several end at the same character, the one that is listed first.
    """

    def __init__(self, stops: Sequence[str], *, include: bool) -> None:
        """`include`: the stop string stays in the text. An empty stop string stops nothing."""
        self.matched: str | None = None
        """The stop string that ended the text."""
        self._progress = [_Progress(stop) for stop in stops if stop]
        self._include = include
        self._held = ""

    def feed(self, text: str) -> str:
        """What can be shown now; nothing more once a stop string has matched."""
        if self.matched is not None:
            return ""
        known = len(self._held)
        text = self._held + text
        for position in range(known, len(text)):
            if (stop := self._stop_that_ends_with(text[position])) is not None:
                return self._ended(text, stop, end=position + 1)
        shown = len(text) - max((progress.length for progress in self._progress), default=0)
        self._held = text[shown:]
        return text[:shown]

    def finish(self) -> str:
        """What was held back, for the text ended and no stop string can come of it any more."""
        held, self._held = self._held, ""
        return held

    def _stop_that_ends_with(self, character: str) -> str | None:
        return next((progress.stop for progress in self._progress if progress.advance(character)), None)

    def _ended(self, text: str, stop: str, *, end: int) -> str:
        self.matched, self._held = stop, ""
        return text[: end if self._include else end - len(stop)]


class _Progress:
    """How much of one stop string the text ends with (Knuth, Morris, Pratt: no character is looked at twice).

    A search in the text with every piece would take the product of their lengths where a stop string is long.
    """

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.length = 0
        """The longest beginning of the stop string that the text ends with."""
        self._shorter = _borders(stop)

    def advance(self, character: str) -> bool:
        """Whether the stop string ends with this character, the next one of the text; it is the last one if so."""
        self.length = _extended(self.stop, self._shorter, self.length, character)
        return self.length == len(self.stop)


def _borders(stop: str) -> list[int]:
    """For each beginning of `stop`, the length of the longest shorter beginning that it ends with."""
    borders = [0]
    for character in stop[1:]:
        borders.append(_extended(stop, borders, borders[-1], character))
    return borders


def _extended(stop: str, borders: Sequence[int], length: int, character: str) -> int:
    while length and stop[length] != character:
        length = borders[length - 1]
    return length + (stop[length] == character)
