"""Several streams merged into one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Stream(Protocol):
    """Encoded events as they arrive, each item one or more whole events. The owner must `aclose()` it."""

    async def __anext__(self) -> bytes:
        """Return the next events."""

    async def aclose(self) -> None:
        """Stop and release all resources."""


class Source:
    """A stream that is opened on first use and closed at its end."""

    def __init__(self, open_: Callable[[], Awaitable[Stream]]) -> None:
        self._open = open_
        self._stream: Stream | None = None

    async def open(self) -> Stream:
        """Open the stream, unless it is open, and return it."""
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
            # Release the connection while the other sources continue.
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the stream if it is open."""
        if self._stream is not None:
            await self._stream.aclose()


class MergedStream:
    """The events of several sources as they arrive, in order within each source; `at_once` sources are open at a time.

    The first failure ends it. Nothing is read ahead: at most one item of each source is pending.
    """

    def __init__(self, sources: Sequence[Source], *, at_once: int) -> None:
        self._sources = sources
        self._waiting = deque(sources[at_once:])
        self._initial = sources[:at_once]
        self._reads: dict[asyncio.Future[bytes], Source] = {}

    async def open(self) -> None:
        """Open the first sources; if one fails, close all.

        Raises:
            Exception: the first failure.
        """
        try:
            await gather_or_cancel([source.open() for source in self._initial])
        except BaseException:
            await self.aclose()
            raise
        for source in self._initial:
            self._start_read(source)

    def __aiter__(self) -> "MergedStream":
        return self

    async def __anext__(self) -> bytes:
        while self._reads:
            done, _ = await asyncio.wait(self._reads, return_when=asyncio.FIRST_COMPLETED)
            if events := b"".join([self._take(task) for task in done]):
                return events
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop reading and close every source."""
        for task in self._reads:
            task.cancel()
        await asyncio.gather(*self._reads, return_exceptions=True)
        await asyncio.gather(*(source.aclose() for source in self._sources))

    def _start_read(self, source: Source) -> None:
        self._reads[asyncio.ensure_future(source.__anext__())] = source

    def _take(self, task: asyncio.Future[bytes]) -> bytes:
        source = self._reads.pop(task)
        try:
            events = task.result()
        except StopAsyncIteration:
            if self._waiting:
                self._start_read(self._waiting.popleft())
            return b""
        self._start_read(source)
        return events


class StreamWithTrailer:
    """A stream followed by a trailer, which is computed after the stream has ended without an error."""

    def __init__(self, stream: Source | MergedStream, trailer: Callable[[], bytes]) -> None:
        self._stream = stream
        self._trailer: Callable[[], bytes] | None = trailer

    def __aiter__(self) -> "StreamWithTrailer":
        return self

    async def __anext__(self) -> bytes:
        if self._trailer is None:
            raise StopAsyncIteration
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            trailer, self._trailer = self._trailer(), None
            if not trailer:
                raise
            return trailer

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


async def gather_or_cancel(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all calls and return their results in order. The first exception cancels the others and is raised."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
