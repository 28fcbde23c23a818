"""Rate limits for each client key: requests and tokens per minute, and concurrent requests."""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable

from app.core.errors.request_errors import RateLimitReached

WINDOW_S = 60.0
CONCURRENCY_RETRY_AFTER_S = 1.0


class RateLimiter:
    """The limits, the same for every key, and the usage of each key. A limit of 0 is not applied.

    A minute is a sliding window of 60 seconds. Every request that `begin` admits must `end`, however it ends.
    """

    def __init__(
        self,
        *,
        requests_per_minute: int = 0,
        tokens_per_minute: int = 0,
        concurrent_requests: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits: list[tuple[str, int, Callable[[_Usage, int, float], float]]] = [
            ("KEY_CONCURRENT_REQUESTS", concurrent_requests, _Usage.concurrency_wait_s),
            ("KEY_REQUESTS_PER_MINUTE", requests_per_minute, lambda usage, *limit: usage.requests.wait_s(*limit)),
            ("KEY_TOKENS_PER_MINUTE", tokens_per_minute, lambda usage, *limit: usage.tokens.wait_s(*limit)),
        ]
        self._limits = [limit for limit in limits if limit[1]]
        self._counts_requests = requests_per_minute > 0
        self._counts_tokens = tokens_per_minute > 0
        self._clock = clock
        self._usage: defaultdict[int | None, _Usage] = defaultdict(_Usage)

    def running(self, key: int | None) -> int:
        """Return the number of requests of a key in progress."""
        return self._usage[key].running

    def begin(self, key: int | None) -> None:
        """Admit and count a request of a key.

        Raises:
            RateLimitReached: a limit is reached; the request is not counted.
        """
        usage, now_s = self._usage[key], self._clock()
        for setting, limit, wait_s in self._limits:
            if seconds := wait_s(usage, limit, now_s):
                raise RateLimitReached(f"{setting}={limit}", retry_after_s=math.ceil(seconds))
        usage.running += 1
        if self._counts_requests:
            usage.requests.add(1, now_s)

    def end(self, key: int | None, tokens: int) -> None:
        """End a request of a key and count the tokens that it used."""
        usage = self._usage[key]
        usage.running -= 1
        if self._counts_tokens and tokens > 0:
            usage.tokens.add(tokens, self._clock())


class _SlidingWindow:
    """The sum of the amounts added in the last 60 seconds."""

    def __init__(self) -> None:
        self._entries: deque[tuple[float, int]] = deque()
        self._total = 0

    def add(self, amount: int, now_s: float) -> None:
        self._entries.append((now_s, amount))
        self._total += amount

    def wait_s(self, limit: int, now_s: float) -> float:
        """Return the seconds until the sum is below `limit`; 0 if it is."""
        while self._entries and now_s >= self._entries[0][0] + WINDOW_S:
            self._total -= self._entries.popleft()[1]
        total, below_at_s = self._total, now_s
        for added_s, amount in self._entries:
            if total < limit:
                break
            total, below_at_s = total - amount, added_s + WINDOW_S
        return below_at_s - now_s


class _Usage:
    """The usage of one key."""

    def __init__(self) -> None:
        self.running = 0
        self.requests = _SlidingWindow()
        self.tokens = _SlidingWindow()

    def concurrency_wait_s(self, limit: int, _now_s: float) -> float:
        return CONCURRENCY_RETRY_AFTER_S if self.running >= limit else 0.0
