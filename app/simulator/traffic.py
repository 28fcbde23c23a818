"""The requests of a simulator: a record of them, and counters that can be awaited."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

REMEMBERED_EXCHANGES = 100
MASKED = "***"


@dataclass(frozen=True)
class Exchange:
    """One request as it arrived; ``body`` is None if ``raw`` is not JSON."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    raw: bytes

    def to_json(self) -> dict[str, Any]:
        """Return the exchange as JSON data with the authorization header masked."""
        shown = {name: MASKED if name.lower() == "authorization" else text for name, text in self.headers.items()}
        return {"method": self.method, "path": self.path, "headers": shown, "body": self.body}


@dataclass
class Traffic:
    """Counters of one simulator.

    ``live`` requests are in flight (at most ``most_live`` at the same time so far). ``answered`` requests
    got their response, even if the simulator cut it short on purpose. ``abandoned`` ones lost their client first.
    """

    live: int = 0
    most_live: int = 0
    answered: int = 0
    abandoned: int = 0
    exchanges: deque[Exchange] = field(default_factory=lambda: deque(maxlen=REMEMBERED_EXCHANGES))
    _changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    async def wait_for(self, condition: Callable[["Traffic"], bool], *, timeout_s: float = 60.0) -> None:
        """Return as soon as ``condition`` holds; it is evaluated after each change.

        Raises:
            TimeoutError: it did not hold within ``timeout_s``.
        """
        async with asyncio.timeout(timeout_s):
            while not condition(self):
                await self._changed.wait()

    def record(self, exchange: Exchange) -> None:
        """Record a request; only the last ``REMEMBERED_EXCHANGES`` are kept."""
        self.exchanges.append(exchange)
        self._notify()

    def seen(self, exchange: Exchange) -> int:
        """Return the number of recorded requests other than ``exchange`` that have the same body."""
        return sum(1 for other in self.exchanges if other is not exchange and other.raw == exchange.raw)

    @contextmanager
    def count_request(self) -> Iterator[None]:
        """Count a request as live during the block, then as answered or abandoned."""
        self.live += 1
        self.most_live = max(self.most_live, self.live)
        self._notify()
        try:
            yield
        except (asyncio.CancelledError, ConnectionError):
            self.abandoned += 1
            raise
        else:
            self.answered += 1
        finally:
            self.live -= 1
            self._notify()

    def to_json(self) -> dict[str, int]:
        """Return the three counters."""
        return {"live": self.live, "answered": self.answered, "abandoned": self.abandoned}

    def _notify(self) -> None:
        # Waiters hold the old event; a new one makes the next wait block again.
        self._changed.set()
        self._changed = asyncio.Event()
