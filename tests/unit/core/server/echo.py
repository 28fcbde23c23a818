"""An application that reports each request, and a client whose segments arrive separately."""

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
    """The report of one request."""
    return b"%b %b %d %b" % (method, target, len(body), hashlib.sha256(body).hexdigest()[:16].encode())


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the report in a header field once the body is complete."""
    assert scope["type"] == "http"
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    line = report(scope["method"].encode(), scope["raw_path"] + query, bytes(body))
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"x-report", line), (b"content-length", b"0")]}
    )
    await send({"type": "http.response.body"})


def reports(response: bytes) -> list[bytes]:
    """The reports in a response, in order."""
    return re.findall(rb"^x-report: ([^\r]*)\r$", response, re.MULTILINE)


def statuses(response: bytes) -> list[int]:
    """The statuses of the final responses, in order."""
    return [int(status) for status in re.findall(rb"^HTTP/1\.1 ([2-5]\d\d) ", response, re.MULTILINE)]


class Acknowledging(HttpConnection):
    """Counts the bytes it has read, so that a client can send the next segment only after that."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.read_bytes = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.read_bytes += len(data)

    @property
    def waits_for_the_client(self) -> bool:
        """True if nothing more happens until the client acts."""
        cycle = self._answering
        return self.transport.is_closing() or cycle is None or cycle.response_complete or cycle.more_body


@asynccontextmanager
async def echoing(app: ASGIApp = echo) -> AsyncIterator[ReadyServer]:
    """A server of `echo`, or of another application, to which segments arrive separately."""
    async with serving(app, http=Acknowledging) as server:
        yield server


class Client:
    """One connection to a server of this process."""

    def __init__(self, client: socket.socket, connection: Acknowledging) -> None:
        self._socket = client
        self._connection = connection
        self._sent_bytes = 0

    async def send(self, segments: Iterable[bytes]) -> None:
        """Send each segment once the server has read the one before; stop if it closes the connection."""
        loop = asyncio.get_running_loop()
        for segment in segments:
            try:
                await loop.sock_sendall(self._socket, segment)
            except ConnectionError:
                return
            self._sent_bytes += len(segment)
            while not self._is_read():  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0)

    def _is_read(self) -> bool:
        return self._connection.read_bytes >= self._sent_bytes or self.is_closing

    async def quiet(self) -> None:
        """Wait until the server has handled what was sent."""
        while not self._connection.waits_for_the_client:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0)

    @property
    def is_open(self) -> bool:
        """True if the server would read more."""
        return not (self.is_closing or self._connection._input_closed)

    @property
    def is_closing(self) -> bool:
        """True if the server has closed the connection, apart from what is still to be sent."""
        return self._connection.transport.is_closing()

    def close_input(self) -> None:
        """Close the sending side."""
        self._socket.shutdown(socket.SHUT_WR)

    async def until(self, end: bytes) -> bytes:
        """What the server sends, up to and including `end`."""
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
        while not (accepted := _accepted(server, address)):  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0)
        yield Client(client, accepted)


def _accepted(server: ReadyServer, address: object) -> Acknowledging | None:
    connections = server.server_state.connections
    return next((each for each in connections if isinstance(each, Acknowledging) and each.client == address), None)


async def response_to(server: ReadyServer, *segments: bytes) -> bytes:
    """Send on a new connection and return all that the server sends until it closes it."""
    async with client_of(server) as client:
        await client.send(segments)
        return await client.rest()
