"""The limit on concurrent calls to OpenAI, and the queue of requests that wait for a permit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.core.errors.request_errors import Overloaded


class ConcurrencyLimiter:
    """Permits for calls, granted first come, first served.

    Every acquired permit must be released. Without a queue, acquiring costs a comparison and an addition.
    """

    def __init__(self, *, max_calls: int, max_queued: int, queue_timeout_s: float) -> None:
        self.max_calls = max_calls
        self.running = 0
        """Acquired permits; at most `max_calls`."""
        self._max_queued = max_queued
        self._queue_timeout_s = queue_timeout_s
        # Waiters in order, each with the number of permits that it needs.
        self._queue: dict[asyncio.Future[None], int] = {}

    @property
    def waiting(self) -> int:
        """The length of the queue; at most `max_queued`."""
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """Whether a new call would get neither a permit nor a place in the queue."""
        return (self.running >= self.max_calls or bool(self._queue)) and len(self._queue) >= self._max_queued

    async def acquire(self, permits: int = 1) -> None:
        """Acquire permits, all at once: requests that held some while waiting for others could deadlock.

        Raises:
            Overloaded: the queue is full, or the permits were not available in time.
        """
        if not permits or (not self._queue and self.running + permits <= self.max_calls):
            self.running += permits
            return
        if len(self._queue) >= self._max_queued:
            raise self.overloaded()
        await self._wait(permits)

    def overloaded(self) -> Overloaded:
        """Return the error for a full queue."""
        return Overloaded(f"MAX_NUM_QUEUED_REQS={self._max_queued}")

    def release(self, permits: int = 1) -> None:
        """Release permits and grant them to the first in the queue."""
        self.running -= permits
        self._grant()

    @asynccontextmanager
    async def reserve(self, permits: int) -> AsyncIterator["Permits"]:
        """Acquire up to `permits` for the calls of one request, all at once; release those that no call took.

        Raises:
            Overloaded: the queue is full, or the permits were not available in time.
        """
        reservation = Permits(min(permits, self.max_calls))
        await self.acquire(reservation.total)
        try:
            yield reservation
        finally:
            self.release(reservation.take_all())

    async def _wait(self, permits: int) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._queue[waiter] = permits
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await waiter
        except BaseException as exc:
            self._give_up(waiter, permits)
            if isinstance(exc, TimeoutError):
                raise Overloaded(f"QUEUE_TIMEOUT_S={self._queue_timeout_s:g}") from None
            raise

    def _give_up(self, waiter: asyncio.Future[None], permits: int) -> None:
        if self._queue.pop(waiter, None) is None:
            # The permits had been granted in the same step of the event loop.
            self.running -= permits
        # The next in the queue may need fewer permits.
        self._grant()

    def _grant(self) -> None:
        while self._queue:
            waiter, permits = next(iter(self._queue.items()))
            if self.running + permits > self.max_calls:
                return
            del self._queue[waiter]
            self.running += permits
            if not waiter.done():
                waiter.set_result(None)


class Permits:
    """The permits reserved for one request; each of its calls takes one."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._remaining = total

    def take(self) -> bool:
        """Take one permit; False if none is left."""
        if not self._remaining:
            return False
        self._remaining -= 1
        return True

    def take_all(self) -> int:
        """Take all remaining permits and return their number."""
        remaining, self._remaining = self._remaining, 0
        return remaining
