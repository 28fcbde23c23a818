"""HTTP/1.1 over an aiohttp session's connections, without what its client does for each request and ours never need.

The pool, names, TLS and proxies are aiohttp's; what is used of its inside is told in docs/decisions/0001.
"""

import asyncio
import math
import re
from collections.abc import Iterable, Mapping
from functools import cached_property

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from yarl import URL

from app.upstream.http1_protocol import ResponseProtocol, was_used

_NO_HEADER = re.compile("[\r\n\0]")
_MADE_FOR_EACH = frozenset({"authorization", "content-length"})


class Endpoint:
    """Requests of one method to one URL, all alike but for their key and their body. No redirect is followed.

    Bodies that come compressed are decompressed. `headers` go with each request, on top of the session's own.
    A connection has to be there after `connect_s`.
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
        if session.connector is None:
            raise RuntimeError("The session is closed")
        self._connector = session.connector
        self._connect_s = connect_s
        self._connecting = aiohttp.ClientTimeout(total=None, connect=connect_s)
        all_headers = session.headers.copy()
        all_headers.update(headers)
        self._alike = _AlikeRequest(
            method,
            URL(url),
            headers=all_headers,
            proxy=URL(proxy) if proxy else None,
            loop=asyncio.get_running_loop(),
        )
        self._heads: dict[str, bytes] = {}

    async def send(self, key: str, body: bytes | None, *, begin_by_s: float) -> ResponseProtocol:
        """The beginning of the answer, which has to be there at `begin_by_s` by the event loop's clock.

        Raises:
            aiohttp.ConnectionTimeoutError: there was no connection in time.
            TimeoutError: there was no answer in time.
            StaleConnectionError: the connection had been used before, and ended with nothing of an answer.
            aiohttp.ClientError: there is no connection, it broke, or what came is no answer.
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
        connecting = self._connecting if is_enough else _at_most(left_s)
        while True:
            try:
                connection = await self._connector.connect(self._alike, [], connecting)
            except TimeoutError as exc:
                if not is_enough:
                    raise
                raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self._alike.url}") from exc
            protocol = connection.protocol
            if protocol is None or not (was_used(protocol) and protocol.should_close):
                return connection
            # Something came while nothing was asked: it would be taken for the answer.
            connection.close()

    def _head(self, key: str, body: bytes | None) -> bytes:
        head = self._heads.get(key) or self._new_head(key)
        return head + b"\r\n" if body is None else b"%bContent-Length: %d\r\n\r\n" % (head, len(body))

    def _new_head(self, key: str) -> bytes:
        alike = self._alike
        target = str(alike.url) if alike.proxy and not alike.is_ssl() else alike.url.raw_path_qs
        fields = [(name, value) for name, value in alike.headers.items() if name.lower() not in _MADE_FOR_EACH]
        if self._connector.force_close:
            fields.append(("Connection", "close"))
        fields.append(("Authorization", f"Bearer {key}"))
        self._heads[key] = f"{alike.method} {target} HTTP/1.1\r\n{_lines(fields)}".encode()
        return self._heads[key]


class _AlikeRequest(aiohttp.ClientRequest):
    """What a connector wants to know of a request: it is the same for all of an endpoint's.

    A connector adds the credentials of a plain proxy to its headers.
    """

    @cached_property
    def connection_key(self) -> ConnectionKey:
        return super().connection_key


def _at_most(seconds: float) -> aiohttp.ClientTimeout:
    # aiohttp takes none for no limit, and rounds long ones up.
    return aiohttp.ClientTimeout(total=None, connect=max(seconds, 0.001), ceil_threshold=math.inf)


def _lines(fields: Iterable[tuple[str, str]]) -> str:
    return "".join([f"{name}: {_in_one_line(name, value)}\r\n" for name, value in fields])


def _in_one_line(name: str, value: str) -> str:
    if _NO_HEADER.search(name + value):
        # Not what it says: it may be a key.
        raise ValueError(f"the header {name!r} must be one line")
    return value
