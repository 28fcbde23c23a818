"""An application that reports each request it gets, and a client whose segments arrive apart."""

import asyncio
import hashlib
import re
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.server.connection import HttpConnection
from tests.serving import ReadyServer, serving

RESPONDED_WITHIN_S = 10


def report(method: bytes, target: bytes, body: bytes) -> bytes:
    """What is said of one request."""
    return b"%b %b %d %b" % (method, target, len(body), hashlib.sha256(body).hexdigest()[:16].encode())


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Responds with the report, once the body is whole, as one header field."""
    assert scope["type"] == "http"
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    said = report(scope["method"].encode(), scope["raw_path"] + query, bytes(body))
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"x-report", said), (b"content-length", b"0")]}
    )
    await send({"type": "http.response.body"})


def reports(response: bytes) -> list[bytes]:
    """What was reported, in order."""
    return re.findall(rb"^x-report: ([^\r]*)\r$", response, re.MULTILINE)


def statuses(response: bytes) -> list[int]:
    """Of the final responses, in order."""
    return [int(status) for status in re.findall(rb"^HTTP/1\.1 ([2-5]\d\d) ", response, re.MULTILINE)]


class Acknowledging(HttpConnection):
    """Says how much it has read: what is sent after that arrives in a segment of its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.read_bytes = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.read_bytes += len(data)

    @property
    def waits_for_the_client(self) -> bool:
        """Whether nothing more happens until the client does something."""
        cycle = self._answering
        return self.transport.is_closing() or cycle is None or cycle.response_complete or cycle.more_body


@asynccontextmanager
async def echoing(app: ASGIApp = echo) -> AsyncIterator[ReadyServer]:
    """A server of `echo`, or of another application, whose clients' segments arrive apart."""
    async with serving(app, http=Acknowledging) as server:
        yield server


class Client:
    """One connection to a server of this process."""

    def __init__(self, client: socket.socket, connection: Acknowledging) -> None:
        self._socket = client
        self._connection = connection
        self._sent_bytes = 0

    async def send(self, segments: Iterable[bytes]) -> None:
        """Each when the server has read the one before, until it closes the connection."""
        loop = asyncio.get_running_loop()
        for segment in segments:
            try:
                await loop.sock_sendall(self._socket, segment)
            except ConnectionError:
                return
            self._sent_bytes += len(segment)
            while not self._is_read():  # noqa: ASYNC110 - uvicorn's state is no event
                await asyncio.sleep(0)

    def _is_read(self) -> bool:
        return self._connection.read_bytes >= self._sent_bytes or self.is_closing

    async def quiet(self) -> None:
        """Once the server has nothing left to do with what was sent."""
        while not self._connection.waits_for_the_client:  # noqa: ASYNC110 - uvicorn's state is no event
            await asyncio.sleep(0)

    @property
    def is_open(self) -> bool:
        """Whether the server would read more."""
        return not (self.is_closing or self._connection._input_closed)

    @property
    def is_closing(self) -> bool:
        """Whether the server has closed the connection, but for what is still to be sent."""
        return self._connection.transport.is_closing()

    def close_input(self) -> None:
        """Say that nothing more will be sent."""
        self._socket.shutdown(socket.SHUT_WR)

    async def until(self, end: bytes) -> bytes:
        """What the server sends, up to one that ends so."""
        loop, received = asyncio.get_running_loop(), bytearray()
        async with asyncio.timeout(RESPONDED_WITHIN_S):
            while not received.endswith(end):
                received += await loop.sock_recv(self._socket, 65_536)
        return bytes(received)

    async def rest(self) -> bytes:
        """All that the server sends until it closes its side, or resets a connection on which it read to the end."""
        loop, received = asyncio.get_running_loop(), bytearray()
        async with asyncio.timeout(RESPONDED_WITHIN_S):
            with suppress(ConnectionResetError):
                while data := await loop.sock_recv(self._socket, 65_536):
                    received += data
        return bytes(received)


@asynccontextmanager
async def client_of(server: ReadyServer) -> AsyncIterator[Client]:
    """A new connection, which the server has accepted."""
    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", server.port))
        address = client.getsockname()
        while not (accepted := _accepted(server, address)):  # noqa: ASYNC110 - uvicorn's set is no event
            await asyncio.sleep(0)
        yield Client(client, accepted)


def _accepted(server: ReadyServer, address: object) -> Acknowledging | None:
    connections = server.server_state.connections
    return next((each for each in connections if isinstance(each, Acknowledging) and each.client == address), None)


async def response_to(server: ReadyServer, *segments: bytes) -> bytes:
    """All that comes back on one connection until the server closes it."""
    async with client_of(server) as client:
        await client.send(segments)
        return await client.rest()
