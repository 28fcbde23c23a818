"""Limits the size of request heads and bodies, and decompresses bodies. Nothing too large is kept in memory."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors.request_errors import ErrorResponse
from app.core.http.error_response import BodyRejected, json_error_response
from app.core.request_record import MAX_REQUEST_ID_CHARACTERS

MAX_HEADERS = 256
"""Maximum number of header fields: vLLM's default where it counts them."""
MAX_HEAD_BYTES = 65_536
"""Maximum total size of header names and values, path and query."""
LINGER_S = 5.0
"""How long a rejected body is still read, so that a client that is sending it gets the response."""
_STEP_BYTES = 1_048_576
_GZIP_OR_ZLIB = zlib.MAX_WBITS + 32
_ENCODINGS = {"": False, "identity": False, "gzip": True, "x-gzip": True, "deflate": True}
"""Supported content encodings, and whether they compress. vLLM supports none."""

HEAD_TOO_LARGE = ErrorResponse(
    431, f"The request has more than {MAX_HEADERS} header fields, or more than {MAX_HEAD_BYTES} bytes of them."
)

REQUEST_ID_TOO_LONG = ErrorResponse(400, f"X-Request-Id is longer than {MAX_REQUEST_ID_CHARACTERS} characters.")
NOT_AS_ENCODED = ErrorResponse(400, "The request body does not match its Content-Encoding.")


class RequestSizeMiddleware:
    """Rejects heads and bodies that are too large; decompresses bodies, whose limit holds in both forms."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self._too_large = ErrorResponse(
            413,
            f"The request body is larger than the {max_body_bytes} bytes that this server accepts (MAX_BODY_BYTES).",
        )

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        headers = dict(reversed(scope["headers"]))  # the first of each name wins
        if rejection := self._rejection(scope, headers):
            body = self._rejected_body(receive, headers)
            return json_error_response(rejection)(scope, receive, _lingering(body, send))
        if b"content-length" in headers and b"content-encoding" not in headers:
            # No client can send more than Content-Length.
            return self.app(scope, receive, send)
        body = self._body(receive, compressed=_ENCODINGS[_encoding(scope)])
        return self.app(scope, body.receive, _lingering(body, send))

    def _body(self, receive: Receive, *, compressed: bool) -> "_Body":
        return _Body(receive, self._too_large, compressed=compressed, limit_bytes=self.max_body_bytes)

    def _rejected_body(self, receive: Receive, headers: Mapping[bytes, bytes]) -> "_Body":
        body = self._body(receive, compressed=False)
        body.rejected = True
        # A client that waits for 100 Continue does not send it.
        body.ended = b"expect" in headers
        return body

    def _rejection(self, scope: Scope, headers: Mapping[bytes, bytes]) -> ErrorResponse | None:
        if len(scope["headers"]) > MAX_HEADERS or _head_bytes(scope) > MAX_HEAD_BYTES:
            return HEAD_TOO_LARGE
        if len(headers.get(b"x-request-id", b"")) > MAX_REQUEST_ID_CHARACTERS:
            return REQUEST_ID_TOO_LONG
        if b"content-encoding" in headers and _encoding(scope) not in _ENCODINGS:
            message = "The request's Content-Encoding is neither gzip nor deflate."
            return ErrorResponse(415, message, headers={"accept-encoding": "gzip, deflate"})
        length = headers.get(b"content-length", b"")
        return self._too_large if length.isdigit() and _exceeds(length, self.max_body_bytes) else None


def _encoding(scope: Scope) -> str:
    return ",".join(Headers(scope=scope).getlist("content-encoding")).strip().lower()


def _exceeds(length: bytes, limit: int) -> bool:
    # int() raises on thousands of digits.
    return len(length.lstrip(b"0")) > len(str(limit)) or int(length) > limit


def _head_bytes(scope: Scope) -> int:
    fields = b"".join(chain.from_iterable(scope["headers"]))
    return len(fields) + len(scope["raw_path"]) + len(scope["query_string"])


def _lingering(body: "_Body", send: Send) -> Send:
    """Wrap `send`: a response that rejects a body ends only when the client has sent it all, or after `LINGER_S`.

    Closing a connection with unread bytes resets it, and the response is lost.
    """

    async def linger_before_the_end(message: Message) -> None:
        if body.rejected and message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        elif body.rejected and not message.get("more_body"):
            await send({**message, "more_body": True})
            await body.skip()
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return linger_before_the_end


class _Body:
    """A request's `receive`, with limit and decompression."""

    def __init__(self, receive: Receive, too_large: ErrorResponse, *, compressed: bool, limit_bytes: int) -> None:
        self.rejected = False
        self._receive = receive
        self._too_large = too_large
        self._limit_bytes = limit_bytes
        self.ended = False
        sent = self._limited(self._sent())
        self._messages = self._limited(_decompressed(sent)) if compressed else sent

    async def receive(self) -> Message:
        """The next chunk of the body; after its end, the messages that follow.

        Raises:
            BodyRejected: it is too large, or does not match its Content-Encoding.
        """
        try:
            message = await anext(self._messages, None)
        except zlib.error:
            raise self._reject(NOT_AS_ENCODED) from None
        return await self._receive() if message is None else message

    async def skip(self) -> None:
        """Read and drop the rest of the body, for at most `LINGER_S`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                async for _message in self._sent():
                    pass

    async def _sent(self) -> AsyncIterator[Message]:
        while not self.ended:
            message = await self._receive()
            self.ended = not message.get("more_body")
            yield message

    async def _limited(self, messages: AsyncIterator[Message]) -> AsyncIterator[Message]:
        count = 0
        async for message in messages:
            count += len(message.get("body", b""))
            if count > self._limit_bytes:
                raise self._reject(self._too_large)
            yield message

    def _reject(self, response: ErrorResponse) -> BodyRejected:
        self.rejected = True
        return BodyRejected(response)


async def _decompressed(messages: AsyncIterator[Message]) -> AsyncIterator[Message]:
    """Decompress the messages of a body.

    Raises:
        zlib.error: the compressed data is invalid or incomplete.
    """
    decompressor = _Decompressor()
    async for message in messages:
        for chunk in decompressor.chunks(message.get("body", b"")):
            yield {"type": "http.request", "body": chunk, "more_body": True}
            # A small body may decompress to a large one: let other requests run.
            await asyncio.sleep(0)
        if not message.get("more_body"):
            decompressor.end()
            yield {**message, "body": b""}


class _Decompressor:
    """Decompresses gzip, with one or several members, and the zlib format, which HTTP calls deflate."""

    def __init__(self) -> None:
        self._decompressor: Any = None

    def chunks(self, data: bytes) -> Iterator[bytes]:
        chunk = b""
        while data or len(chunk) == _STEP_BYTES:
            if self._decompressor is None or self._decompressor.eof:
                self._decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)
            chunk = self._decompressor.decompress(data, _STEP_BYTES)
            data = self._decompressor.unconsumed_tail or self._decompressor.unused_data
            yield chunk

    def end(self) -> None:
        if self._decompressor is not None and not self._decompressor.eof:
            raise zlib.error("incomplete data")
