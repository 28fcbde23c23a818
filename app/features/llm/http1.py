"""HTTP/1.1 over an aiohttp session's connections, without what its client does for each request and ours never need.

The pool, names, TLS, proxies and the parser are aiohttp's; what is used of its inside is told in docs/decisions/0001.
"""

import asyncio
import math
import re
from collections.abc import Iterable, Mapping
from functools import cached_property

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage
from yarl import URL

READ_FIRST_BYTES = 2**16
"""So much of a request is read before it is refused; the connection is kept then."""

_NO_HEADER = re.compile("[\r\n\0]")
_MADE_FOR_EACH = frozenset({"authorization", "content-length"})


class StaleConnectionError(aiohttp.ClientConnectionError):
    """A connection that had been used before ended with nothing of an answer: it was closed while it was idle."""


class Response:
    """An answer whose body is unread. Whoever has it must `close()` it."""

    def __init__(
        self, connection: Connection, message: RawResponseMessage, content: aiohttp.StreamReader, *, is_last: bool
    ) -> None:
        self.status = message.code
        self.headers: Mapping[str, str] = message.headers
        self.content = content
        self.is_complete = False
        """Whether the body has come to its end; the connection is another call's then."""
        self._connection: Connection | None = connection
        self._is_last = is_last
        content.on_eof(self._give_back)

    async def read(self) -> bytes:
        """What has arrived of the body, as soon as it is at least a byte; none at the end.

        Raises:
            aiohttp.ClientError: the connection broke, or was closed here. What came before has been read.
        """
        try:
            return await self.content.readany()
        except aiohttp.ClientError:
            # aiohttp raises before it hands out what arrived just before the break.
            data = self._arrived()
            if not data:
                raise
            return data

    def rest(self) -> bytes:
        """What is unread of a body that is complete."""
        # aiohttp's own way to it would go on to tell the connection, which is not ours any more, to read.
        return b"" if self.content.at_eof() else self._arrived()

    def close(self) -> None:
        """Close the connection, unless the body is complete. Whoever reads is woken by a ClientError."""
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        if self.content.exception() is None:
            self.content.set_exception(aiohttp.ClientConnectionError("Connection closed"))
        _end(connection)

    def _arrived(self) -> bytes:
        data = b"".join(self.content._buffer)
        self.content._buffer.clear()
        return data

    def _give_back(self) -> None:
        self.is_complete = True
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        if self._is_last:
            _end(connection)
        else:
            connection.release()


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
        self._auto_decompress = session.auto_decompress
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

    async def send(self, key: str, body: bytes | None, *, begin_by_s: float) -> Response:
        """The beginning of the answer, which has to be there at `begin_by_s` by the event loop's clock.

        Raises:
            aiohttp.ConnectionTimeoutError: there was no connection in time.
            TimeoutError: there was no answer in time.
            StaleConnectionError: the connection had been used before, and ended with nothing of an answer.
            aiohttp.ClientError: there is no connection, it broke, or what came is no answer.
        """
        loop = asyncio.get_running_loop()
        connection = await self._connected(begin_by_s - loop.time())
        protocol = _protocol(connection)
        was_used = _was_used(protocol)
        # It wakes the wait below instead of cancelling it: no cancellation of this task is ever mistaken for it.
        limit = loop.call_at(begin_by_s, protocol.set_exception, TimeoutError())
        try:
            protocol.set_response_params(read_until_eof=True, auto_decompress=self._auto_decompress)
            self._write(protocol, key, body)
            while True:
                message, content = await protocol.read()
                if message.code >= 200 or message.code == 101:
                    return Response(connection, message, content, is_last=_may_be_unread(body, message.code))
        except BaseException as exc:
            _end(connection)
            failure = self._failure(exc, was_used=was_used)
            if failure is None:
                raise
            raise failure from exc
        finally:
            limit.cancel()

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
            protocol = _protocol(connection)
            if not (_was_used(protocol) and protocol.should_close):
                return connection
            # Something came while nothing was asked: it would be taken for the answer.
            connection.close()

    def _write(self, protocol: ResponseHandler, key: str, body: bytes | None) -> None:
        if protocol.transport is None:
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
        head = self._heads.get(key) or self._new_head(key)
        if body is None:
            protocol.transport.write(head + b"\r\n")
        else:
            # Nothing is written after it, so there is nothing to hold back while the transport sends it.
            protocol.transport.writelines((b"%bContent-Length: %d\r\n\r\n" % (head, len(body)), body))

    def _new_head(self, key: str) -> bytes:
        alike = self._alike
        target = str(alike.url) if alike.proxy and not alike.is_ssl() else alike.url.raw_path_qs
        fields = [(name, value) for name, value in alike.headers.items() if name.lower() not in _MADE_FOR_EACH]
        if self._connector.force_close:
            fields.append(("Connection", "close"))
        fields.append(("Authorization", f"Bearer {key}"))
        self._heads[key] = f"{alike.method} {target} HTTP/1.1\r\n{_lines(fields)}".encode()
        return self._heads[key]

    def _failure(self, failure: BaseException, *, was_used: bool) -> aiohttp.ClientError | None:
        """What is raised in the place of `failure`."""
        if isinstance(failure, HttpProcessingError):
            return aiohttp.ClientResponseError(
                self._alike.request_info, (), status=failure.code, message=failure.message, headers=failure.headers
            )
        return StaleConnectionError(str(failure)) if was_used and _nothing_came(failure) else None


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


def _protocol(connection: Connection) -> ResponseHandler:
    protocol = connection.protocol
    if protocol is None:
        raise aiohttp.ClientConnectionError("Connection closed")
    return protocol


def _was_used(protocol: ResponseHandler) -> bool:
    return protocol._parser is not None


def _may_be_unread(body: bytes | None, status: int) -> bool:
    """Whether the request may have been refused before it had been read, and the rest of it may never be."""
    return status >= 400 and body is not None and len(body) > READ_FIRST_BYTES


def _nothing_came(failure: BaseException) -> bool:
    """Whether a connection ended before a byte of the answer. After a reset aiohttp does not tell."""
    if isinstance(failure, aiohttp.ServerDisconnectedError):
        # Else it is the beginning of the answer.
        return isinstance(failure.message, str)
    return isinstance(failure, aiohttp.ClientOSError)


def _end(connection: Connection) -> None:
    protocol = connection.protocol
    # Not by its truth: it has a length, and is false while it holds no message.
    if protocol is not None:
        # Closing would first send what is left of the request, and over TLS wait for the other side.
        protocol.abort()
    connection.close()


def _lines(fields: Iterable[tuple[str, str]]) -> str:
    fields = list(fields)
    if any(_NO_HEADER.search(name + value) for name, value in fields):
        raise ValueError("a header must be one line")
    return "".join(f"{name}: {value}\r\n" for name, value in fields)
