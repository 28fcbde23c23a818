"""HTTP/1.1 requests over the connections of an aiohttp session, without the per-request work of aiohttp's client."""

import asyncio
import re
from collections.abc import Iterable, Mapping

import aiohttp
from aiohttp.connector import Connection

from app.upstream.aiohttp_internals import ConnectionPool, connect_timeout
from app.upstream.http1_protocol import ResponseProtocol

_FORBIDDEN_IN_HEADERS = re.compile("[\r\n\0]")
_PER_REQUEST_HEADERS = frozenset({"authorization", "content-length"})


class Endpoint:
    """Sends requests of one method to one URL. They differ only in API key and body.

    Redirects are not followed; compressed response bodies are decompressed. `headers` are sent with each request, on
    top of the session's own. Connecting takes at most `connect_s` seconds.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        proxy: str | None,
        connect_s: float,
    ) -> None:
        self._pool = ConnectionPool(session, method, url, headers, proxy)
        self._connect_s = connect_s
        self._connect_timeout = aiohttp.ClientTimeout(total=None, connect=connect_s)
        self._heads: dict[str, bytes] = {}

    async def send(self, key: str, body: bytes | None, *, headers_deadline_s: float) -> ResponseProtocol:
        """Send a request and return once the response headers have arrived.

        `headers_deadline_s` is a time on the event loop's clock. The caller must `close()` the response.

        Raises:
            aiohttp.ConnectionTimeoutError: no connection within `connect_s`.
            TimeoutError: no response headers by the deadline.
            StaleConnectionError: a reused connection ended before the first byte of the response.
            aiohttp.ClientError: no connection, a broken connection, or no valid HTTP response.
        """
        loop = asyncio.get_running_loop()
        connection = await self._connect(headers_deadline_s - loop.time())
        try:
            response = ResponseProtocol(connection)
        except BaseException:
            connection.close()
            raise
        # The timer wakes the wait instead of cancelling it, so that a cancellation of this task stays one.
        timer = loop.call_at(headers_deadline_s, response.fail, TimeoutError())
        try:
            response.send(self._request_head(key, body), body)
            await response.wait_for_headers()
        except BaseException:
            response.close()
            raise
        finally:
            timer.cancel()
        return response

    async def _connect(self, remaining_s: float) -> Connection:
        if remaining_s < self._connect_s:
            return await self._pool.connect(connect_timeout(remaining_s))
        try:
            return await self._pool.connect(self._connect_timeout)
        except TimeoutError as exc:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self._pool.request.url}") from exc

    def _request_head(self, key: str, body: bytes | None) -> bytes:
        head = self._heads.get(key) or self._build_head(key)
        return head + b"\r\n" if body is None else b"%bContent-Length: %d\r\n\r\n" % (head, len(body))

    def _build_head(self, key: str) -> bytes:
        request = self._pool.request
        target = str(request.url) if request.proxy and not request.is_ssl() else request.url.raw_path_qs
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _PER_REQUEST_HEADERS]
        if self._pool.closes_connections:
            headers.append(("Connection", "close"))
        headers.append(("Authorization", f"Bearer {key}"))
        self._heads[key] = f"{request.method} {target} HTTP/1.1\r\n{_header_lines(headers)}".encode()
        return self._heads[key]


def _header_lines(headers: Iterable[tuple[str, str]]) -> str:
    return "".join([_header_line(name, value) for name, value in headers])


def _header_line(name: str, value: str) -> str:
    if _FORBIDDEN_IN_HEADERS.search(name + value):
        # Without the value: it may be a key.
        raise ValueError(f"the header {name!r} must be one line")
    return f"{name}: {value}\r\n"
