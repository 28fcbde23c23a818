"""Reading of one HTTP/1.1 response from an aiohttp connection, parsed by httptools as it arrives (RFC 9112)."""

import asyncio
import zlib
from typing import Any

import aiohttp
import httptools
from aiohttp.connector import Connection

from app.upstream.aiohttp_internals import BorrowedTransport

MAX_HEAD_BYTES = 65_536
"""Limit on the status line and headers: far more than OpenAI sends."""
MAX_UNREAD_BYTES = 262_144
"""Reading from the network pauses above this many unread bytes."""
MAX_REUSABLE_REQUEST_BYTES = 65_536
"""A connection is closed after an error response to a longer request: the server may not have read all of it."""
_MAX_DECOMPRESSED_BYTES = 1_048_576
"""Limit on the bytes that one read returns from a compressed body."""
_GZIP_OR_ZLIB = zlib.MAX_WBITS + 32
_CONTENT_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})
_LENIENCIES = {
    "lenient_headers": True,
    "lenient_optional_cr_before_lf": True,
    "lenient_spaces_after_chunk_size": True,
}
"""Deviations from RFC 9112 that are accepted from a server, as aiohttp does."""


class StaleConnectionError(aiohttp.ClientConnectionError):
    """A reused connection ended before the first byte of a response: the server had closed it while it was idle."""


class _UnsolicitedResponse(Exception):
    """Another message followed the response."""


class ResponseProtocol(asyncio.Protocol):
    """One response, and the request before it, on a connection of its own until it is complete.

    The caller must `close()` it. Until then, or until the response is complete, it is the protocol of the connection's
    transport. aiohttp's own protocol takes a dozen calls to hand over each chunk of a body, and parses more of the
    headers than is needed.
    """

    def __init__(self, connection: Connection) -> None:
        borrowed = BorrowedTransport(connection)
        self.status = 0
        """0 until the headers have arrived."""
        self.headers: dict[str, str] = {}
        """By lower-case name; the first of several with the same name."""
        self.is_complete = False
        """Whether the whole body has arrived; the connection is back in the pool or closed then."""
        self._borrowed = borrowed
        self._has_connection = True
        self._transport = borrowed.transport
        self._is_reused = borrowed.is_reused
        self._request_body_bytes = 0
        self._received_bytes = 0
        self._unread_bytes = 0
        self._reading_paused = False
        self._keep_alive = False
        self._failure: Exception | None = None
        self._decompressor: Any = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []
        # httptools calls this for each chunk; a list's method saves a Python call.
        self.on_body = self._parts.append
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(**_LENIENCIES)
        self._transport.set_protocol(self)

    def send(self, head: bytes, body: bytes | None) -> None:
        """Send the request."""
        self._request_body_bytes = 0 if body is None else len(body)
        # Without flow control: this is the only write.
        self._transport.writelines((head,) if body is None else (head, body))
        if early := self._borrowed.early_bytes:
            self.data_received(early)

    async def wait_for_headers(self) -> None:
        """Return once the response headers have arrived.

        Raises:
            StaleConnectionError: a reused connection ended before the first byte of the response.
            aiohttp.ClientError: the connection broke, or the bytes are no valid HTTP response.
        """
        while not self.status:
            await self._wait_for_data()

    async def read(self) -> bytes:
        """Return the bytes of the body that have arrived, at least one; empty after the last.

        Raises:
            aiohttp.ClientError: the connection broke or was closed here, and all that had arrived has been read.
        """
        while True:
            if (self._parts or self._decompressor) and (data := self.take()):
                return data
            if self.is_complete:
                return b""
            await self._wait_for_data()

    def take(self) -> bytes:
        """Return what has arrived of the body without waiting.

        Raises:
            aiohttp.ClientPayloadError: the body is not compressed as its headers say.
        """
        data = b"".join(self._parts)
        self._parts.clear()
        self._unread_bytes = 0
        if self._reading_paused and self._has_connection:
            self._reading_paused = False
            self._transport.resume_reading()
        return data if self._decompressor is None else self._decompress(data)

    def close(self) -> None:
        """Close the connection if the response is not complete. A pending read raises ClientConnectionError."""
        if self._has_connection:
            self.fail(aiohttp.ClientConnectionError("Connection closed"))

    def fail(self, failure: Exception) -> None:
        """Close the connection if the response is not complete. A pending wait or read raises `failure`."""
        if self._failure is None and not self.is_complete:
            self._failure = failure
            self._detach()
            self._wake()

    def data_received(self, data: bytes) -> None:
        """Parse bytes from the network (asyncio)."""
        self._received_bytes += len(data)
        self._unread_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The bytes after the head belong to a protocol that the request did not ask for.
            self._keep_alive = False
        except httptools.HttpParserError as exc:
            self._keep_alive = False
            self.fail(aiohttp.ClientPayloadError(f"Invalid HTTP response: {exc}"))
        if self.is_complete:
            self._detach()
        elif not self.status and self._received_bytes > MAX_HEAD_BYTES:
            self.fail(aiohttp.ClientPayloadError(f"The response headers are longer than {MAX_HEAD_BYTES} bytes"))
        elif self._unread_bytes > MAX_UNREAD_BYTES and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the response with the connection (asyncio)."""
        self._borrowed.connection_lost(exc)
        if exc is None and self._body_ends_with_connection():
            self.is_complete = True
            self._detach()
            self._wake()
        else:
            self.fail(self._error_for_lost_connection(exc))

    def on_message_begin(self) -> None:
        """Handle the first byte of a head, interim or final (httptools)."""
        if self.is_complete:
            raise _UnsolicitedResponse

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; ignore trailers (httptools)."""
        if not self.status:
            self.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """Handle the end of a head (httptools)."""
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            # An interim response; the final one follows (RFC 9110, 15.2).
            self.headers.clear()
            return
        self.status = status
        if (encoding := self.headers.get("content-encoding")) and encoding.lower() != "identity":
            self._decompressor = _new_decompressor(encoding)

    def on_message_complete(self) -> None:
        """Handle the end of a response, interim or final (httptools)."""
        self.is_complete = self.status > 0
        self._keep_alive = self._parser.should_keep_alive()

    def _wait_for_data(self) -> asyncio.Future[None]:
        if self._failure:
            raise self._failure
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _decompress(self, data: bytes) -> bytes:
        try:
            decompressed: bytes = self._decompressor.decompress(
                self._decompressor.unconsumed_tail + data, _MAX_DECOMPRESSED_BYTES
            )
        except zlib.error as exc:
            raise aiohttp.ClientPayloadError(f"The response body cannot be decompressed: {exc}") from exc
        return decompressed

    def _detach(self) -> None:
        """Return the connection to the pool, or close it if it cannot be reused."""
        if not self._has_connection:
            return
        self._has_connection = False
        # Break the reference cycle, so that refcounting frees it.
        del self._parser
        if self.is_complete and self._keep_alive and not self._request_may_be_unread():
            self._borrowed.release()
        else:
            self._borrowed.abort()

    def _request_may_be_unread(self) -> bool:
        # A server that rejects a large request may not read all of it, and parse the rest as the next request.
        return self.status >= 400 and self._request_body_bytes > MAX_REUSABLE_REQUEST_BYTES

    def _body_ends_with_connection(self) -> bool:
        return self.status > 0 and not self.headers.keys() & {"content-length", "transfer-encoding"}

    def _error_for_lost_connection(self, exc: Exception | None) -> Exception:
        if self.status:
            return aiohttp.ClientPayloadError("The connection ended before the response was complete")
        if self._received_bytes:
            return aiohttp.ServerDisconnectedError("The connection ended before the response headers were complete")
        if self._is_reused:
            return StaleConnectionError(str(exc or "closed"))
        return aiohttp.ClientOSError(*exc.args) if isinstance(exc, OSError) else aiohttp.ServerDisconnectedError()


def _new_decompressor(encoding: str) -> Any:
    if encoding.lower() not in _CONTENT_ENCODINGS:
        raise ValueError(f"the content encoding {encoding!r} is not known")
    return zlib.decompressobj(_GZIP_OR_ZLIB)
