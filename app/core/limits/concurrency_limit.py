"""How many calls to OpenAI are made at the same time, and how many may wait for their turn."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.core.errors.errors import Overloaded


class ConcurrencyLimiter:
    """Places for calls, given in the order in which they were asked for.

    Whoever enters must `leave`, once for each place. Outside of a queue it costs a comparison and an addition.
    """

    def __init__(self, *, max_calls: int, max_queued: int, queue_timeout_s: float) -> None:
        self.max_calls = max_calls
        self.running = 0
        """Places that are taken; never more than `max_calls`."""
        self._max_queued = max_queued
        self._queue_timeout_s = queue_timeout_s
        # How many places each waits for; in order.
        self._queue: dict[asyncio.Future[None], int] = {}

    @property
    def waiting(self) -> int:
        """How many wait for a place; never more than the queue is long."""
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """Whether a call that came now could neither be made nor wait."""
        return (self.running >= self.max_calls or bool(self._queue)) and len(self._queue) >= self._max_queued

    async def acquire(self, permits: int = 1) -> None:
        """Take places, all at once, so that nobody holds some while it waits for others.

        Raises:
            Overloaded: there is no room in the queue either, or no place in time.
        """
        if not permits or (not self._queue and self.running + permits <= self.max_calls):
            self.running += permits
            return
        if len(self._queue) >= self._max_queued:
            raise self.overloaded()
        await self._wait(permits)

    def overloaded(self) -> Overloaded:
        """What is told while there is no room in the queue."""
        return Overloaded(f"MAX_NUM_QUEUED_REQS={self._max_queued}")

    def release(self, permits: int = 1) -> None:
        """Give places back; whoever waits first has them at once."""
        self.running -= permits
        self._admit()

    @asynccontextmanager
    async def reserve(self, permits: int) -> AsyncIterator["Permits"]:
        """Acquire up to `permits` for calls to come, all at once, and release those that no call took.

        Raises:
            Overloaded: there is no room in the queue either, or no permit in time.
        """
        reservation = Permits(min(permits, self.max_calls))
        await self.acquire(reservation.total)
        try:
            yield reservation
        finally:
            self.release(reservation.take_all())

    async def _wait(self, permits: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._queue[turn] = permits
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await turn
        except BaseException as exc:
            self._forget(turn, permits)
            if isinstance(exc, TimeoutError):
                raise Overloaded(f"QUEUE_TIMEOUT_S={self._queue_timeout_s:g}") from None
            raise

    def _forget(self, turn: asyncio.Future[None], permits: int) -> None:
        if self._queue.pop(turn, None) is None:
            # Its turn had come, and nobody is there to take it.
            self.running -= permits
        # Behind it may be somebody who needs fewer.
        self._admit()

    def _admit(self) -> None:
        while self._queue:
            turn, permits = next(iter(self._queue.items()))
            if self.running + permits > self.max_calls:
                return
            del self._queue[turn]
            self.running += permits
            if not turn.done():
                turn.set_result(None)


class Permits:
    """Permits of one request, of which each of its calls takes one."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._left = total

    def take(self) -> bool:
        """Take one permit; False if none is left."""
        if not self._left:
            return False
        self._left -= 1
        return True

    def take_all(self) -> int:
        """Take all remaining permits and return their number."""
        left, self._left = self._left, 0
        return left
