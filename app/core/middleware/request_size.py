"""How large a request may be. Pure ASGI: what is too large is refused before it is in memory."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors.errors import ErrorResponse
from app.core.http.error_response import BodyRejected, json_error_response
from app.core.request_record import MAX_REQUEST_ID_CHARACTERS

MAX_HEADERS = 256
"""Header fields of a request: as many as vLLM takes by default where it counts them."""
MAX_HEAD_BYTES = 65_536
"""Names and values of them together, with the path and the query."""
LINGER_S = 5.0
"""How long a client that is still sending what was refused is listened to, so that it reads the answer."""
_STEP_BYTES = 1_048_576
_GZIP_OR_ZLIB = zlib.MAX_WBITS + 32
_ENCODINGS = {"": False, "identity": False, "gzip": True, "x-gzip": True, "deflate": True}
"""Content encodings, and whether they are compressed. vLLM knows none."""

HEAD_TOO_LARGE = ErrorResponse(
    431, f"The request has more than {MAX_HEADERS} header fields, or more than {MAX_HEAD_BYTES} bytes of them."
)

REQUEST_ID_TOO_LONG = ErrorResponse(400, f"X-Request-Id is longer than {MAX_REQUEST_ID_CHARACTERS} characters.")
NOT_AS_ENCODED = ErrorResponse(400, "The request's body is not what its Content-Encoding says.")


class RequestSizeMiddleware:
    """Refuses heads and bodies that are too large, and unpacks compressed bodies, which count in both forms."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self._too_large = ErrorResponse(
            413,
            f"The request's body is larger than the {max_body_bytes} bytes that this server takes (MAX_BODY_BYTES).",
        )

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The answer, or the refusal."""
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        headers = dict(reversed(scope["headers"]))  # of several of a name the first
        if refusal := self._refusal(scope, headers):
            return json_error_response(refusal)(scope, receive, _listening(self._refused_body(receive, headers), send))
        if b"content-length" in headers and b"content-encoding" not in headers:
            # Nobody can send more than was announced.
            return self.app(scope, receive, send)
        body = self._body(receive, compressed=_ENCODINGS[_encoding(scope)])
        return self.app(scope, body.receive, _listening(body, send))

    def _body(self, receive: Receive, *, compressed: bool) -> "_Body":
        return _Body(receive, self._too_large, compressed=compressed, limit_bytes=self.max_body_bytes)

    def _refused_body(self, receive: Receive, headers: Mapping[bytes, bytes]) -> "_Body":
        body = self._body(receive, compressed=False)
        body.refused = True
        # Who asked before sending it does not send it now.
        body.ended = b"expect" in headers
        return body

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes]) -> ErrorResponse | None:
        if len(scope["headers"]) > MAX_HEADERS or _head_bytes(scope) > MAX_HEAD_BYTES:
            return HEAD_TOO_LARGE
        if len(headers.get(b"x-request-id", b"")) > MAX_REQUEST_ID_CHARACTERS:
            return REQUEST_ID_TOO_LONG
        if b"content-encoding" in headers and _encoding(scope) not in _ENCODINGS:
            message = "The request's Content-Encoding is none of gzip and deflate."
            return ErrorResponse(415, message, headers={"accept-encoding": "gzip, deflate"})
        length = headers.get(b"content-length", b"")
        return self._too_large if length.isdigit() and _exceeds(length, self.max_body_bytes) else None


def _encoding(scope: Scope) -> str:
    return ",".join(Headers(scope=scope).getlist("content-encoding")).strip().lower()


def _exceeds(length: bytes, limit: int) -> bool:
    # Python makes no number of very many digits.
    return len(length.lstrip(b"0")) > len(str(limit)) or int(length) > limit


def _head_bytes(scope: Scope) -> int:
    fields = b"".join(chain.from_iterable(scope["headers"]))
    return len(fields) + len(scope["raw_path"]) + len(scope["query_string"])


def _listening(body: "_Body", send: Send) -> Send:
    """`send`, but an answer that refuses a body ends only when the client has sent it, or after `LINGER_S`.

    A connection closed upon bytes that nobody read is reset, and the answer lost.
    """

    async def listen_before_the_end(message: Message) -> None:
        if body.refused and message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        elif body.refused and not message.get("more_body"):
            await send({**message, "more_body": True})
            await body.skip()
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return listen_before_the_end


class _Body:
    """The receiving side of one request."""

    def __init__(self, receive: Receive, too_large: ErrorResponse, *, compressed: bool, limit_bytes: int) -> None:
        self.refused = False
        self._receive = receive
        self._too_large = too_large
        self._limit_bytes = limit_bytes
        self.ended = False
        sent = self._counted(self._sent())
        self._messages = self._counted(_unpacked(sent)) if compressed else sent

    async def receive(self) -> Message:
        """The next piece of the body; after its end, what comes then.

        Raises:
            BodyRejected: it is too large, or not what its encoding says.
        """
        try:
            message = await anext(self._messages, None)
        except zlib.error:
            raise self._refuse(NOT_AS_ENCODED) from None
        return await self._receive() if message is None else message

    async def skip(self) -> None:
        """Take what is left of it, for as long as a client may need to send it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                async for _message in self._sent():
                    pass

    async def _sent(self) -> AsyncIterator[Message]:
        while not self.ended:
            message = await self._receive()
            self.ended = not message.get("more_body")
            yield message

    async def _counted(self, messages: AsyncIterator[Message]) -> AsyncIterator[Message]:
        count = 0
        async for message in messages:
            count += len(message.get("body", b""))
            if count > self._limit_bytes:
                raise self._refuse(self._too_large)
            yield message

    def _refuse(self, response: ErrorResponse) -> BodyRejected:
        self.refused = True
        return BodyRejected(response)


async def _unpacked(messages: AsyncIterator[Message]) -> AsyncIterator[Message]:
    """The messages of a compressed body, unpacked.

    Raises:
        zlib.error: it is not compressed as it should be, or ends too early.
    """
    unpacker = _Unpacker()
    async for message in messages:
        for piece in unpacker.pieces(message.get("body", b"")):
            yield {"type": "http.request", "body": piece, "more_body": True}
            # A small body may be unpacked to a large one, and others wait.
            await asyncio.sleep(0)
        if not message.get("more_body"):
            unpacker.end()
            yield {**message, "body": b""}


class _Unpacker:
    """gzip, with one member or several, or zlib's form, which HTTP calls deflate."""

    def __init__(self) -> None:
        self._decompressor: Any = None

    def pieces(self, data: bytes) -> Iterator[bytes]:
        piece = b""
        while data or len(piece) == _STEP_BYTES:
            if self._decompressor is None or self._decompressor.eof:
                self._decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)
            piece = self._decompressor.decompress(data, _STEP_BYTES)
            data = self._decompressor.unconsumed_tail or self._decompressor.unused_data
            yield piece

    def end(self) -> None:
        if self._decompressor is not None and not self._decompressor.eof:
            raise zlib.error("it ends too early")
