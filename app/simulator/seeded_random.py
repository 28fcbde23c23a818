"""Pseudo-random values that depend only on a seed."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
BYTES_PER_DRAW = 8


class SeededRandom:
    """A pseudo-random sequence. Equal seeds give equal sequences on every machine and Python version."""

    def __init__(self, *seed: object) -> None:
        self._block = hashlib.sha256(repr(seed).encode()).digest()
        self._used = 0

    def below(self, limit: int) -> int:
        """Return an integer in ``[0, limit)``."""
        return self._draw() % limit

    def fraction(self) -> float:
        """Return a number in ``[0, 1)`` with six decimals."""
        return self.below(1_000_000) / 1_000_000

    def choose(self, options: Sequence[T]) -> T:
        """Return one of ``options``, which must not be empty."""
        return options[self.below(len(options))]

    def letters(self, count: int) -> str:
        """Return ``count`` ASCII letters and digits, as in OpenAI's ids."""
        return "".join(self.choose(ALPHANUMERIC) for _ in range(count))

    def _draw(self) -> int:
        if self._used == len(self._block):
            self._block = hashlib.sha256(self._block).digest()
            self._used = 0
        start = self._used
        self._used += BYTES_PER_DRAW
        return int.from_bytes(self._block[start : self._used], "big")
