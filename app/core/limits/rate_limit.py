"""How much each client's key may ask for: requests and tokens a minute, requests at the same time."""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable

from app.core.errors.errors import RateLimitReached

MINUTE_S = 60.0
BUSY_RETRY_AFTER_S = 1.0


class RateLimiter:
    """The limits of every key, and what each has used. A limit of 0 is none.

    The minute is any 60 seconds, not one of the clock's. Whatever `begin` let in has to `end`, however it does.
    """

    def __init__(
        self,
        *,
        requests_per_minute: int = 0,
        tokens_per_minute: int = 0,
        concurrent_requests: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits: list[tuple[str, int, Callable[[_Use, int, float], float]]] = [
            ("KEY_CONCURRENT_REQUESTS", concurrent_requests, _Use.wait_for_another_s),
            ("KEY_REQUESTS_PER_MINUTE", requests_per_minute, lambda use, *asked: use.requests.wait_s(*asked)),
            ("KEY_TOKENS_PER_MINUTE", tokens_per_minute, lambda use, *asked: use.tokens.wait_s(*asked)),
        ]
        self._limits = [limit for limit in limits if limit[1]]
        self._counts_requests = requests_per_minute > 0
        self._counts_tokens = tokens_per_minute > 0
        self._clock = clock
        self._use: defaultdict[int | None, _Use] = defaultdict(_Use)

    def running(self, key: int | None) -> int:
        """Requests of a key that are being answered."""
        return self._use[key].running

    def begin(self, key: int | None) -> None:
        """Count one more request of a key.

        Raises:
            RateLimitReached: one is; nothing is counted.
        """
        use, now_s = self._use[key], self._clock()
        for name, limit, wait_s in self._limits:
            if seconds := wait_s(use, limit, now_s):
                raise RateLimitReached(f"{name}={limit}", retry_after_s=math.ceil(seconds))
        use.running += 1
        if self._counts_requests:
            use.requests.add(1, now_s)

    def end(self, key: int | None, tokens: int) -> None:
        """A request is over and has cost so many tokens."""
        use = self._use[key]
        use.running -= 1
        if self._counts_tokens and tokens > 0:
            use.tokens.add(tokens, self._clock())


class _LastMinute:
    """Amounts that were counted in the last 60 seconds."""

    def __init__(self) -> None:
        self._entries: deque[tuple[float, int]] = deque()
        self._total = 0

    def add(self, amount: int, now_s: float) -> None:
        self._entries.append((now_s, amount))
        self._total += amount

    def wait_s(self, limit: int, now_s: float) -> float:
        """How long it takes until less than `limit` is left of them, in seconds."""
        while self._entries and now_s >= self._entries[0][0] + MINUTE_S:
            self._total -= self._entries.popleft()[1]
        left, until_s = self._total, now_s
        for counted_s, amount in self._entries:
            if left < limit:
                break
            left, until_s = left - amount, counted_s + MINUTE_S
        return until_s - now_s


class _Use:
    """What one key has used."""

    def __init__(self) -> None:
        self.running = 0
        self.requests = _LastMinute()
        self.tokens = _LastMinute()

    def wait_for_another_s(self, limit: int, _now_s: float) -> float:
        return BUSY_RETRY_AFTER_S if self.running >= limit else 0.0
