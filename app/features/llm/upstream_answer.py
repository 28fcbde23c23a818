"""An answer of OpenAI's while it is read, and what it holds until it is closed."""

import asyncio
from collections.abc import Callable

import aiohttp

from app.core.metrics import UpstreamMetrics
from app.features.llm.keys import Key
from app.features.llm.sdk_errors import sdk_errors, timeout_error
from app.features.llm.timeouts import Deadline, Limit


class Lease:
    """One attempt's hold on a key, counted until `end`."""

    def __init__(self, key: Key, metrics: UpstreamMetrics) -> None:
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


class Answer:
    """An answer whose body is unread. Whoever has it must `close()` it.

    Raises:
        openai.APITimeoutError: a read waited too long, or the whole answer took too long.
        openai.APIConnectionError: the connection broke; what came before the break has been read.
    """

    def __init__(
        self, response: aiohttp.ClientResponse, lease: Lease, idle: Limit, complete_by: Deadline | None
    ) -> None:
        self.url = str(response.url)
        self.status = response.status
        self.headers = response.headers
        self.content_type = response.content_type
        self._response = response
        self._lease = lease
        self._watch = _Watch(idle, complete_by, response.close)

    async def read(self) -> bytes:
        """What has arrived, as soon as it is at least a byte; none at the end."""
        content = self._response.content
        if content.is_eof() and content.exception() is None:
            return content.read_nowait()
        self._watch.begin()
        try:
            return await _arrived(content)
        except (aiohttp.ClientError, OSError) as exc:
            if self._watch.expired:
                raise timeout_error(self.url, self._watch.expired.complaint) from exc
            with sdk_errors(self.url):
                raise
        finally:
            self._watch.pause()

    async def read_all(self) -> bytes:
        """What is left of the body."""
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)

    def at_close(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when it is closed, once."""
        self._lease.at_end = callback

    def close(self) -> None:
        """Give the connection back if the body has been read to its end; close it otherwise, which stops OpenAI."""
        self._watch.end()
        self._response.close()
        self._lease.end()


class _Watch:
    """Ends a wait that is too long. One timer serves many waits, for a stream waits once for each of its events."""

    def __init__(self, idle: Limit, complete_by: Deadline | None, expire: Callable[[], None]) -> None:
        self.expired: Limit | None = None
        """The limit that was reached."""
        self._idle = idle
        self._complete_by = complete_by
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since: float | None = None

    def begin(self) -> None:
        """A wait begins."""
        self._waiting_since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline(self._waiting_since).at_s, self._check)

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
        deadline = self._deadline(self._waiting_since)
        if self._loop.time() < deadline.at_s:
            self._timer = self._loop.call_at(deadline.at_s, self._check)
            return
        self.expired = deadline.limit
        # Whoever waits is woken by it.
        self._expire()

    def _deadline(self, since_s: float) -> Deadline:
        return Deadline(self._idle, since_s + self._idle.seconds).or_earlier(self._complete_by)


async def _arrived(content: aiohttp.StreamReader) -> bytes:
    try:
        return await content.readany()
    except aiohttp.ClientError:
        # aiohttp raises before it hands out what arrived just before the break, and only this gives it.
        data = content._read_nowait(-1)
        if not data:
            raise
        return data
