"""One answer on a connection of aiohttp's, parsed by httptools as it arrives (RFC 9112)."""

import asyncio
import zlib
from typing import Any

import aiohttp
import httptools
from aiohttp.connector import Connection

from app.upstream.aiohttp_internals import BorrowedTransport

MAX_HEAD_BYTES = 65_536
"""Far beyond any head of OpenAI's."""
MAX_UNREAD_BYTES = 262_144
"""Beyond so much that nobody has read yet, no more is taken from the network."""
READ_FIRST_BYTES = 65_536
"""So much of a request is read before it is refused; the connection is kept then."""
_UNPACKED_AT_ONCE = 1_048_576
_GZIP_OR_ZLIB = zlib.MAX_WBITS + 32
_COMPRESSED = frozenset({"gzip", "x-gzip", "deflate"})
_LENIENCIES = {
    "lenient_headers": True,
    "lenient_optional_cr_before_lf": True,
    "lenient_spaces_after_chunk_size": True,
}
"""What RFC 9112 forbids and aiohttp accepts from a server too."""


class StaleConnectionError(aiohttp.ClientConnectionError):
    """A connection that had been used before ended with nothing of an answer: it was closed while it was idle."""


class _MoreThanAsked(Exception):
    """Bytes after the end of the answer."""


class ResponseProtocol(asyncio.Protocol):
    """An answer that has a connection for itself until it is complete. Whoever has it must `close()` it.

    For so long it is the protocol of the connection's transport. aiohttp's own hands every chunk of a body from object
    to object, a dozen calls for each event of a stream, and parses heads into more than is asked of them.
    """

    def __init__(self, connection: Connection) -> None:
        borrowed = BorrowedTransport(connection)
        self.status = 0
        """0 until the head has come."""
        self.headers: dict[str, str] = {}
        """By name in lower case; of several of a name the first."""
        self.is_complete = False
        """Whether the body has come to its end; the connection is another call's then."""
        self._borrowed = borrowed
        self._has_connection = True
        self._transport = borrowed.transport
        self._is_reused = borrowed.is_reused
        self._asked_bytes = 0
        self._received = 0
        self._unread = 0
        self._reading_paused = False
        self._may_be_kept = False
        self._failure: Exception | None = None
        self._unpacker: Any = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        # httptools calls it for each chunk; the list's own method is no call of Python's.
        self.on_body = self._pieces.append
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(**_LENIENCIES)
        self._transport.set_protocol(self)

    def send(self, head: bytes, body: bytes | None) -> None:
        """Send the request."""
        self._asked_bytes = 0 if body is None else len(body)
        # Nothing is written after it, so there is nothing to hold back while the transport sends it.
        self._transport.writelines((head,) if body is None else (head, body))
        if early := self._borrowed.early_bytes:
            self.data_received(early)

    async def wait_for_headers(self) -> None:
        """Return once the head has come.

        Raises:
            StaleConnectionError: the connection had been used before, and ended with nothing of an answer.
            aiohttp.ClientError: it broke, or what came is no answer.
        """
        while not self.status:
            await self._more()

    async def read(self) -> bytes:
        """What has arrived of the body, as soon as it is at least a byte; none at the end.

        Raises:
            aiohttp.ClientError: the connection broke, or was closed here. What came before has been read.
        """
        while True:
            if (self._pieces or self._unpacker) and (data := self._taken()):
                return data
            if self.is_complete:
                return b""
            await self._more()

    def rest(self) -> bytes:
        """What is unread of a body that is complete."""
        return self._taken()

    def close(self) -> None:
        """Close the connection, unless the body is complete. Whoever reads is woken by a ClientError."""
        if self._has_connection:
            self.fail(aiohttp.ClientConnectionError("Connection closed"))

    def fail(self, failure: Exception) -> None:
        """End the answer, if it is not complete: whoever waits for more of it is told `failure`."""
        if self._failure is None and not self.is_complete:
            self._failure = failure
            self._let_go()
            self._wake()

    def data_received(self, data: bytes) -> None:
        """What comes over the network (asyncio)."""
        self._received += len(data)
        self._unread += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # What follows is of another protocol, for which nobody asked.
            self._may_be_kept = False
        except httptools.HttpParserError as exc:
            self._may_be_kept = False
            self.fail(aiohttp.ClientPayloadError(f"The answer cannot be understood: {exc}"))
        if self.is_complete:
            self._let_go()
        elif not self.status and self._received > MAX_HEAD_BYTES:
            self.fail(aiohttp.ClientPayloadError(f"The head of the answer is longer than {MAX_HEAD_BYTES} bytes"))
        elif self._unread > MAX_UNREAD_BYTES and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more (asyncio)."""
        self._borrowed.connection_lost(exc)
        if self.status and exc is None and not self.headers.keys() & {"content-length", "transfer-encoding"}:
            # The body was to be as long as the connection.
            self.is_complete = True
            self._let_go()
            self._wake()
        else:
            self.fail(self._broken(exc))

    def on_message_begin(self) -> None:
        """The first byte of a head, interim or not (httptools)."""
        if self.is_complete:
            raise _MoreThanAsked

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, of which none is asked for (httptools)."""
        if not self.status:
            self.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """The end of a head (httptools)."""
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            # The answer is yet to come (RFC 9110, 15.2).
            self.headers.clear()
            return
        self.status = status
        if (encoding := self.headers.get("content-encoding")) and encoding.lower() != "identity":
            self._unpacker = _unpacker(encoding)

    def on_message_complete(self) -> None:
        """The end of the answer, if it was no interim one (httptools)."""
        self.is_complete = self.status > 0
        self._may_be_kept = self._parser.should_keep_alive()

    def _more(self) -> asyncio.Future[None]:
        if self._failure:
            raise self._failure
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _taken(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._unread = 0
        if self._reading_paused and self._has_connection:
            self._reading_paused = False
            self._transport.resume_reading()
        return data if self._unpacker is None else self._unpacked(data)

    def _unpacked(self, data: bytes) -> bytes:
        try:
            unpacked: bytes = self._unpacker.decompress(self._unpacker.unconsumed_tail + data, _UNPACKED_AT_ONCE)
        except zlib.error as exc:
            raise aiohttp.ClientPayloadError(f"The answer is not compressed as it says: {exc}") from exc
        return unpacked

    def _let_go(self) -> None:
        """Give the connection back, or close it where it cannot be used again."""
        if not self._has_connection:
            return
        self._has_connection = False
        # Break the reference cycle, so that refcounting frees it.
        del self._parser
        if self.is_complete and self._may_be_kept and not self._may_be_unread():
            self._borrowed.give_back()
        else:
            self._borrowed.drop()

    def _may_be_unread(self) -> bool:
        # What refuses a large request may not read it to its end, and would take the rest for the next one.
        return self.status >= 400 and self._asked_bytes > READ_FIRST_BYTES

    def _broken(self, exc: Exception | None) -> Exception:
        if self.status:
            return aiohttp.ClientPayloadError("The answer was not complete when the connection ended")
        if self._received:
            return aiohttp.ServerDisconnectedError("The head of the answer was not complete")
        if self._is_reused:
            return StaleConnectionError(str(exc or "closed"))
        return aiohttp.ClientOSError(*exc.args) if isinstance(exc, OSError) else aiohttp.ServerDisconnectedError()


def _unpacker(encoding: str) -> Any:
    if encoding.lower() not in _COMPRESSED:
        raise ValueError(f"the content encoding {encoding!r} is not known")
    return zlib.decompressobj(_GZIP_OR_ZLIB)
