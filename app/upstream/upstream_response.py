"""An answer of OpenAI's while it is read, and what it holds until it is closed."""

import asyncio
from collections.abc import Callable

import aiohttp

from app.core.metrics import UpstreamMetrics
from app.upstream.api_keys import ApiKey
from app.upstream.http1_protocol import ResponseProtocol
from app.upstream.sdk_errors import timeout_error, transport_error
from app.upstream.timeouts import Timeout


class InFlight:
    """One attempt's hold on a key, counted until `end`."""

    def __init__(self, key: ApiKey, metrics: UpstreamMetrics) -> None:
        self._key = key
        self._metrics = metrics
        self._over = False
        self.at_end: Callable[[], None] | None = None
        key.calls += 1
        metrics.in_flight += 1

    def end(self) -> None:
        """Give the key back; a second time does nothing."""
        if self._over:
            return
        self._over = True
        self._key.calls -= 1
        self._metrics.in_flight -= 1
        if self.at_end:
            self.at_end()


class UpstreamResponse:
    """An answer whose body is unread. Whoever has it must `close()` it.

    It falls silent for `idle` at most, and is complete within `whole`, where there is such a limit, counted from
    `began_s` by the event loop's clock.

    Raises:
        openai.APITimeoutError: a read waited too long, or the whole answer took too long.
        openai.APIConnectionError: the connection broke; what came before the break has been read.
    """

    def __init__(
        self,
        url: str,
        response: ResponseProtocol,
        *,
        in_flight: InFlight,
        idle: Timeout,
        whole: Timeout | None,
        began_s: float,
    ) -> None:
        self.url = url
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._in_flight = in_flight
        self._idle = idle
        self._whole = whole
        self._began_s = began_s
        self._watch: _Watch | None = None

    @property
    def content_type(self) -> str:
        """In lower case and without parameters."""
        return self.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()

    async def read(self) -> bytes:
        """What has arrived, as soon as it is at least a byte; none at the end."""
        try:
            if self._response.is_complete:
                return self._response.rest()
            watch = self._watch = self._watch or self._new_watch()
            watch.begin()
            return await self._response.read()
        except (aiohttp.ClientError, OSError) as exc:
            if self._watch and self._watch.expired:
                raise timeout_error(self.url, self._watch.expired.complaint) from exc
            raise transport_error(self.url, exc) from exc
        finally:
            if self._watch:
                self._watch.pause()

    async def read_all(self) -> bytes:
        """What is left of the body."""
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)

    def at_close(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when it is closed, once."""
        self._in_flight.at_end = callback

    def close(self) -> None:
        """Give the connection back if the body has been read to its end; close it otherwise, which stops OpenAI."""
        if self._watch:
            self._watch.end()
        self._response.close()
        self._in_flight.end()

    def _new_watch(self) -> "_Watch":
        return _Watch(self._idle, self._whole, self._began_s, self._response.close)


class _Watch:
    """Ends a wait that is too long. One timer serves many waits, for a stream waits once for each of its events."""

    def __init__(self, idle: Timeout, whole: Timeout | None, began_s: float, expire: Callable[[], None]) -> None:
        self.expired: Timeout | None = None
        """The limit that was reached."""
        self._idle = idle
        self._whole = whole
        self._began_s = began_s
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since: float | None = None

    def begin(self) -> None:
        """A wait begins."""
        self._waiting_since = self._loop.time()
        if self._timer is None:
            _, at_s = self._deadline(self._waiting_since)
            self._timer = self._loop.call_at(at_s, self._check)

    def pause(self) -> None:
        """The wait is over; the timer goes on for the next one."""
        self._waiting_since = None

    def end(self) -> None:
        """There will be no further wait."""
        if self._timer:
            self._timer.cancel()

    def _check(self) -> None:
        self._timer = None
        if self._waiting_since is None:
            return
        limit, at_s = self._deadline(self._waiting_since)
        if self._loop.time() < at_s:
            self._timer = self._loop.call_at(at_s, self._check)
            return
        self.expired = limit
        # Whoever waits is woken by it.
        self._expire()

    def _deadline(self, since_s: float) -> tuple[Timeout, float]:
        """What a wait is ended by, and when."""
        idle_s = since_s + self._idle.seconds
        if self._whole is None or idle_s <= self._began_s + self._whole.seconds:
            return self._idle, idle_s
        return self._whole, self._began_s + self._whole.seconds
