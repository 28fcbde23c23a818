"""HTTP/1.1 requests over an aiohttp session's connections, without the work its client does for each request."""

import asyncio
import re
from collections.abc import Iterable, Mapping

import aiohttp
from aiohttp.connector import Connection

from app.upstream.aiohttp_internals import ConnectionPool, connect_timeout
from app.upstream.http1_protocol import ResponseProtocol

_NO_HEADER = re.compile("[\r\n\0]")
_PER_REQUEST = frozenset({"authorization", "content-length"})


class Endpoint:
    """Requests of one method to one URL, which differ in key and body only. Redirects are not followed.

    Compressed response bodies are decompressed. `headers` go with each request, on top of the session's own.
    Connecting takes at most `connect_s` seconds.
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

    async def send(self, key: str, body: bytes | None, *, begin_by_s: float) -> ResponseProtocol:
        """Send a request; return once the response's headers are there, by `begin_by_s` on the event loop's clock.

        Raises:
            aiohttp.ConnectionTimeoutError: there was no connection in time.
            TimeoutError: there were no headers in time.
            StaleConnectionError: a reused connection ended before the first byte of a response.
            aiohttp.ClientError: no connection, a broken one, or no valid HTTP response.
        """
        loop = asyncio.get_running_loop()
        connection = await self._connected(begin_by_s - loop.time())
        try:
            response = ResponseProtocol(connection)
        except BaseException:
            connection.close()
            raise
        # It wakes the wait below instead of cancelling it: no cancellation of this task is ever mistaken for it.
        limit = loop.call_at(begin_by_s, response.fail, TimeoutError())
        try:
            response.send(self._head(key, body), body)
            await response.wait_for_headers()
        except BaseException:
            response.close()
            raise
        finally:
            limit.cancel()
        return response

    async def _connected(self, left_s: float) -> Connection:
        is_enough = left_s >= self._connect_s
        try:
            return await self._pool.connect(self._connect_timeout if is_enough else connect_timeout(left_s))
        except TimeoutError as exc:
            if not is_enough:
                raise
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self._pool.request.url}") from exc

    def _head(self, key: str, body: bytes | None) -> bytes:
        head = self._heads.get(key) or self._new_head(key)
        return head + b"\r\n" if body is None else b"%bContent-Length: %d\r\n\r\n" % (head, len(body))

    def _new_head(self, key: str) -> bytes:
        request = self._pool.request
        target = str(request.url) if request.proxy and not request.is_ssl() else request.url.raw_path_qs
        fields = [(name, value) for name, value in request.headers.items() if name.lower() not in _PER_REQUEST]
        if self._pool.closes_connections:
            fields.append(("Connection", "close"))
        fields.append(("Authorization", f"Bearer {key}"))
        self._heads[key] = f"{request.method} {target} HTTP/1.1\r\n{_lines(fields)}".encode()
        return self._heads[key]


def _lines(fields: Iterable[tuple[str, str]]) -> str:
    return "".join([f"{name}: {_in_one_line(name, value)}\r\n" for name, value in fields])


def _in_one_line(name: str, value: str) -> str:
    if _NO_HEADER.search(name + value):
        # Not what it says: it may be a key.
        raise ValueError(f"the header {name!r} must be one line")
    return value
