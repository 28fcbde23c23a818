"""Several streams as one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Stream(Protocol):
    """Events as bytes, in whole ones, as they arrive. Its owner must `aclose()` it."""

    async def __anext__(self) -> bytes:
        """The next events."""

    async def aclose(self) -> None:
        """Stop and release everything behind it."""


class Source:
    """A stream that is yet to be opened."""

    def __init__(self, open_: Callable[[], Awaitable[Stream]]) -> None:
        self._open = open_
        self._stream: Stream | None = None

    async def open(self) -> Stream:
        """The stream behind it, opened if it was not."""
        if self._stream is None:
            self._stream = await self._open()
        return self._stream

    def __aiter__(self) -> "Source":
        return self

    async def __anext__(self) -> bytes:
        stream = await self.open()
        try:
            return await stream.__anext__()
        except StopAsyncIteration:
            # The connection is another's to use while the other sources go on.
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close what is open."""
        if self._stream is not None:
            await self._stream.aclose()


class MergedStream:
    """The events of several sources as they come, those of each in order; only so many are open at once.

    The first failure ends it. Nothing is read ahead: of each source at most one piece waits to be taken.
    """

    def __init__(self, sources: Sequence[Source], *, at_once: int) -> None:
        self._sources = sources
        self._waiting = deque(sources[at_once:])
        self._first = sources[:at_once]
        self._plan: dict[asyncio.Future[bytes], Source] = {}

    async def open(self) -> None:
        """Return once the first sources are open; if one cannot be, none is.

        Raises:
            Exception: whatever the first failure was.
        """
        try:
            await gather_or_cancel([source.open() for source in self._first])
        except BaseException:
            await self.aclose()
            raise
        for source in self._first:
            self._read(source)

    def __aiter__(self) -> "MergedStream":
        return self

    async def __anext__(self) -> bytes:
        while self._plan:
            done, _ = await asyncio.wait(self._plan, return_when=asyncio.FIRST_COMPLETED)
            if events := b"".join([self._taken(task) for task in done]):
                return events
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop reading and close every source."""
        for task in self._plan:
            task.cancel()
        await asyncio.gather(*self._plan, return_exceptions=True)
        await asyncio.gather(*(source.aclose() for source in self._sources))

    def _read(self, source: Source) -> None:
        self._plan[asyncio.ensure_future(source.__anext__())] = source

    def _taken(self, task: asyncio.Future[bytes]) -> bytes:
        source = self._plan.pop(task)
        try:
            events = task.result()
        except StopAsyncIteration:
            if self._waiting:
                self._read(self._waiting.popleft())
            return b""
        self._read(source)
        return events


class StreamWithTrailer:
    """A stream, and what is to be said when it has ended well."""

    def __init__(self, stream: Source | MergedStream, trailer: Callable[[], bytes]) -> None:
        self._stream = stream
        self._conclusion: Callable[[], bytes] | None = trailer

    def __aiter__(self) -> "StreamWithTrailer":
        return self

    async def __anext__(self) -> bytes:
        if self._conclusion is None:
            raise StopAsyncIteration
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            last, self._conclusion = self._conclusion(), None
            if not last:
                raise
            return last

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


async def gather_or_cancel(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order; the first exception cancels what still runs and is raised as it is."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
