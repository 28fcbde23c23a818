"""Every use of aiohttp beyond its public API (docs/decisions/0001).

Written against aiohttp 3.14.5; tests/unit/upstream/test_aiohttp_internals.py fails if an update changes a part.
"""

import asyncio
import math
from collections.abc import Mapping
from functools import cached_property

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from yarl import URL

_USED = "_carried_a_response"
"""An attribute set on a connection's aiohttp protocol, which lives as long as the connection."""


class ConnectionPool:
    """A session's connections to one URL, through `proxy` if given.

    Raises:
        RuntimeError: the session is closed.
    """

    def __init__(
        self, session: aiohttp.ClientSession, method: str, url: str, headers: Mapping[str, str], proxy: str | None
    ) -> None:
        if session.connector is None:
            raise RuntimeError("The session is closed")
        self._connector = session.connector
        all_headers = session.headers.copy()
        all_headers.update(headers)
        self.request = _PoolRequest(
            method,
            URL(url),
            headers=all_headers,
            proxy=URL(proxy) if proxy else None,
            loop=asyncio.get_running_loop(),
        )

    @property
    def closes_connections(self) -> bool:
        """Whether each connection carries only one request."""
        return self._connector.force_close

    async def connect(self, client_timeout: aiohttp.ClientTimeout) -> Connection:
        """Return a connection, pooled or new, on which no unsolicited bytes have arrived.

        Raises:
            TimeoutError: no connection was available within `client_timeout`.
            aiohttp.ClientError: the connection failed.
        """
        while True:
            connection = await self._connector.connect(self.request, [], client_timeout)
            handler = connection.protocol
            if handler is None or not (getattr(handler, _USED, False) and handler.should_close):
                return connection
            # Unsolicited bytes arrived while it was idle; they would be parsed as the next response.
            connection.close()


class _PoolRequest(aiohttp.ClientRequest):
    """The request that the connector reads host, proxy and TLS from; one for all requests of a pool.

    The connector adds the credentials of a plain HTTP proxy to its headers.
    """

    @cached_property
    def connection_key(self) -> ConnectionKey:
        return super().connection_key


def connect_timeout(seconds: float) -> aiohttp.ClientTimeout:
    """Return an exact timeout for connecting alone: aiohttp rounds long timeouts up and takes 0 for no timeout."""
    return aiohttp.ClientTimeout(total=None, connect=max(seconds, 0.001), ceil_threshold=math.inf)


class BorrowedTransport:
    """The transport of a pooled connection, lent to another protocol until `release` or `abort`.

    Raises:
        aiohttp.ClientConnectionResetError: the connection is closed.
    """

    __slots__ = ("_connection", "_handler", "is_reused", "transport")

    def __init__(self, connection: Connection) -> None:
        handler = connection.protocol
        if handler is None or handler.transport is None or handler.transport.is_closing():
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
        self._connection = connection
        self._handler = handler
        self.transport: asyncio.Transport = handler.transport
        self.is_reused: bool = getattr(handler, _USED, False)
        """Whether the connection has carried a response before."""
        setattr(handler, _USED, True)

    @property
    def early_bytes(self) -> bytes:
        """Bytes that arrived before aiohttp's protocol was replaced, and so before the request."""
        return self._handler._tail

    def release(self) -> None:
        """Return the connection to the pool."""
        self._restore_protocol()
        self._connection.release()

    def abort(self) -> None:
        """Close the connection at once and discard unsent data."""
        self._restore_protocol()
        # A plain close would first send the rest and, over TLS, wait for the peer.
        self._handler.abort()
        self._connection.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the lost connection to aiohttp."""
        self._handler.connection_lost(exc)

    def _restore_protocol(self) -> None:
        if self._handler.transport is not None:
            self.transport.set_protocol(self._handler)
