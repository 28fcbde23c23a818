"""A response from OpenAI whose body is being read, and the resources that it holds until it is closed."""

import asyncio
from collections.abc import Callable

import aiohttp

from app.core.metrics import UpstreamMetrics
from app.upstream.api_keys import ApiKey
from app.upstream.http1_protocol import ResponseProtocol
from app.upstream.sdk_errors import timeout_error, transport_error
from app.upstream.timeouts import Timeout


class InFlight:
    """One attempt, counted as in flight for its key and in the metrics until `end`."""

    def __init__(self, key: ApiKey, metrics: UpstreamMetrics) -> None:
        self._key = key
        self._metrics = metrics
        self._ended = False
        self.on_end: Callable[[], None] | None = None
        key.calls_in_flight += 1
        metrics.in_flight += 1

    def end(self) -> None:
        """Stop counting the attempt; further calls have no effect."""
        if self._ended:
            return
        self._ended = True
        self._key.calls_in_flight -= 1
        self._metrics.in_flight -= 1
        if self.on_end:
            self.on_end()


class UpstreamResponse:
    """A response whose headers have arrived. The caller must `close()` it.

    Each read takes at most `idle`. The whole body must arrive within `total`, if given, counted from `started_s` on
    the event loop's clock.

    Raises:
        openai.APITimeoutError: a read exceeded one of the timeouts.
        openai.APIConnectionError: the connection broke, and all that had arrived has been read.
    """

    def __init__(
        self,
        url: str,
        response: ResponseProtocol,
        *,
        in_flight: InFlight,
        idle: Timeout,
        total: Timeout | None,
        started_s: float,
    ) -> None:
        self.url = url
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._in_flight = in_flight
        self._idle = idle
        self._total = total
        self._started_s = started_s
        self._timer: _ReadTimer | None = None

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters."""
        return self.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()

    async def read(self) -> bytes:
        """Return the bytes of the body that have arrived, at least one; empty after the last."""
        try:
            if self._response.is_complete:
                return self._response.take()
            timer = self._timer = self._timer or self._new_timer()
            timer.start()
            return await self._response.read()
        except (aiohttp.ClientError, OSError) as exc:
            if self._timer and self._timer.expired:
                raise timeout_error(self.url, self._timer.expired.message) from exc
            raise transport_error(self.url, exc) from exc
        finally:
            if self._timer:
                self._timer.pause()

    async def read_all(self) -> bytes:
        """Return the rest of the body."""
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the response is closed."""
        self._in_flight.on_end = callback

    def close(self) -> None:
        """Close the connection if the body is incomplete, so that OpenAI stops; otherwise the pool already has it."""
        if self._timer:
            self._timer.stop()
        self._response.close()
        self._in_flight.end()

    def _new_timer(self) -> "_ReadTimer":
        return _ReadTimer(self._idle, self._total, self._started_s, self._response.close)


class _ReadTimer:
    """Calls `expire` if a read takes too long.

    One event loop timer serves many reads: a stream reads once for each of its events.
    """

    def __init__(self, idle: Timeout, total: Timeout | None, started_s: float, expire: Callable[[], None]) -> None:
        self.expired: Timeout | None = None
        """The timeout that was exceeded."""
        self._idle = idle
        self._total = total
        self._started_s = started_s
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._reading_since_s: float | None = None

    def start(self) -> None:
        """Start timing a read."""
        self._reading_since_s = self._loop.time()
        if self._handle is None:
            _, deadline_s = self._next_deadline(self._reading_since_s)
            self._handle = self._loop.call_at(deadline_s, self._check)

    def pause(self) -> None:
        """Stop timing the read; the event loop timer is kept for the next one."""
        self._reading_since_s = None

    def stop(self) -> None:
        """Cancel the event loop timer."""
        if self._handle:
            self._handle.cancel()

    def _check(self) -> None:
        self._handle = None
        if self._reading_since_s is None:
            return
        timeout, deadline_s = self._next_deadline(self._reading_since_s)
        if self._loop.time() < deadline_s:
            self._handle = self._loop.call_at(deadline_s, self._check)
            return
        self.expired = timeout
        self._expire()

    def _next_deadline(self, since_s: float) -> tuple[Timeout, float]:
        """Return the timeout that ends a read first, and when."""
        idle_deadline_s = since_s + self._idle.seconds
        if self._total is None or idle_deadline_s <= self._started_s + self._total.seconds:
            return self._idle, idle_deadline_s
        return self._total, self._started_s + self._total.seconds
