"""What this server uses of aiohttp beyond its public API, and nothing else (docs/decisions/0001).

Written against aiohttp 3.14.5; tests/unit/upstream/test_aiohttp_internals.py fails where an update changes a part.
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
"""Set on aiohttp's handler of a connection, which lives as long as the connection does."""


class ConnectionPool:
    """The connections of a session to one URL, through `proxy` if there is one.

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
        """Whether a connection carries one request only."""
        return self._connector.force_close

    async def connect(self, limits: aiohttp.ClientTimeout) -> Connection:
        """A connection on which nothing has arrived that no request asked for.

        Raises:
            TimeoutError: there was none within `limits`.
            aiohttp.ClientError: none can be made.
        """
        while True:
            connection = await self._connector.connect(self.request, [], limits)
            handler = connection.protocol
            if handler is None or not (getattr(handler, _USED, False) and handler.should_close):
                return connection
            # Unsolicited bytes arrived while it was idle; they would be parsed as the next response.
            connection.close()


class _PoolRequest(aiohttp.ClientRequest):
    """What a connector reads of a request: the same for all requests of a pool.

    A connector adds the credentials of a plain proxy to its headers.
    """

    @cached_property
    def connection_key(self) -> ConnectionKey:
        return super().connection_key


def connect_timeout(seconds: float) -> aiohttp.ClientTimeout:
    """A timeout for connecting alone, exact: aiohttp would round long ones up, and take 0 for no limit."""
    return aiohttp.ClientTimeout(total=None, connect=max(seconds, 0.001), ceil_threshold=math.inf)


class BorrowedTransport:
    """The transport of a pooled connection, driven by another protocol than aiohttp's until it is given back.

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
        """Whether the connection carried a response before."""
        setattr(handler, _USED, True)

    @property
    def early_bytes(self) -> bytes:
        """What the server sent before aiohttp's protocol was replaced, and so before the request."""
        return self._handler._tail

    def give_back(self) -> None:
        """Return the connection to the pool."""
        self._restore_protocol()
        self._connection.release()

    def drop(self) -> None:
        """Close the connection at once, without sending what is left of the request."""
        self._restore_protocol()
        # Closing would first send the rest and, over TLS, wait for the other side.
        self._handler.abort()
        self._connection.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell aiohttp that the connection is gone."""
        self._handler.connection_lost(exc)

    def _restore_protocol(self) -> None:
        if self._handler.transport is not None:
            self.transport.set_protocol(self._handler)
