"""uvicorn's connection, but for upgrades, what is no HTTP, pipelined requests, and how it ends.

docs/decisions/0008 says why, and what it relies on in uvicorn and httptools.
"""

import json
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.core.errors.errors import ErrorResponse
from app.core.middleware.request_size import HEAD_TOO_LARGE, LINGER_S, MAX_HEAD_BYTES
from app.core.server.request_framing import (
    InvalidRequestError,
    check_head,
    check_trailer,
    head_with_body_of,
    http10_keeps_alive,
    origin_form,
)
from app.core.server.response_framing import closing_if_unread, for_http10

IDLE_LINGER_S = 0.1
"""How long an idle connection is kept at the end, for a request that is on its way."""
PIPELINED_REQUESTS = 16
"""Requests that may wait behind the one being answered before no more is read from the connection."""

FILLING_TOO_LARGE = ErrorResponse(
    400, f"A chunk's extension, a trailer or empty lines before a request have more than {MAX_HEAD_BYTES} bytes."
)


class HttpConnection(HttpToolsProtocol):
    """One client's connection, on which no byte of a request's body is ever taken for another request.

    It takes up no offer to upgrade: such a request is like any other. What is no valid request, or has no certain end,
    is answered with 400 after the responses before it, and the connection closes; so it does after a request that
    asks for that, and nothing behind it is read. A head that is too large is not kept. The request being answered
    learns that the client left, also while others wait behind it. At the end of the process each request that has
    arrived or is arriving is answered, the last with `Connection: close`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._answering: RequestResponseCycle | None = None
        self._arriving = False
        """Whether a request's head is."""
        self._upgrade_offered = False
        """Whether the parser skips the body of this request for another protocol's sake."""
        self._declining = False
        self._last_request = False
        self._rejection: ErrorResponse | None = None
        self._draining = False
        self._begun_open = False
        self._pending_bytes = 0
        """Received since the parser last made something of it."""
        self._input_closed = False

    def data_received(self, data: bytes) -> None:
        """What the client sends, up to the last request or the first error."""
        if self._input_closed:
            return
        self._unset_keepalive_if_required()
        self._pending_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as exc:
            if not self._input_closed:
                self._reject(_bad_request(exc))
            return
        if self._pending_bytes > MAX_HEAD_BYTES:
            self._reject(HEAD_TOO_LARGE if self._arriving else FILLING_TOO_LARGE)

    def _parse(self, data: bytes | memoryview) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = memoryview(data)[offer.args[0] :]
                self._decline_upgrade()
            else:
                return

    def _decline_upgrade(self) -> None:
        """Have the body read that the parser skips: without the upgrade it is the request's (RFC 9110, 7.8)."""
        self._upgrade_offered = False
        self.parser = httptools.HttpRequestParser(self)
        self._declining = True
        self.parser.feed_data(head_with_body_of(self.headers))
        self._declining = False

    def _should_upgrade(self) -> bool:
        return False

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._declining:
            return
        if self._input_closed:
            raise InvalidRequestError("no request may follow")
        self._arriving = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. A trailer is none: it comes when the head has long been checked."""
        name = name.lower()
        if not self._arriving:
            check_trailer(name)
            return
        if name == b"expect" and value.strip().lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """A request that can be answered, at once or after those before it."""
        if self._declining:
            return
        version = self.parser.get_http_version()
        check_head(version, self.headers)
        self._upgrade_offered = self.parser.should_upgrade()
        if self._upgrade_offered and self.parser.get_method() == b"CONNECT":
            raise InvalidRequestError("this server is no proxy")
        if self.url[:1] != b"/":
            self.url = origin_form(self.url)
        if version == "1.0":
            self.expect_100_continue = False
        before = self.cycle
        super().on_headers_complete()
        if version == "1.0":
            self.cycle.keep_alive = self.parser.should_keep_alive() and http10_keeps_alive(self.headers)
        self._last_request = not self.cycle.keep_alive
        self._arriving = False
        self._pending_bytes = 0
        if len(self.pipeline) in range(1, PIPELINED_REQUESTS):
            # Otherwise nobody would notice that the client leaves.
            self.flow.resume_reading()
        if self._draining:
            self._close_after(self.cycle, before)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._pending_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request, unless its body is still to be read."""
        if self._upgrade_offered:
            return
        super().on_message_complete()
        self._input_closed = self._last_request

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        if cycle.scope["http_version"] == "1.0":
            app = for_http10(app, cycle)
        elif cycle.waiting_for_100_continue:
            app = closing_if_unread(app, cycle)
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """The next response, if there is one."""
        super().on_response_complete()
        if self._rejection and not self._has_request():
            self._send_rejection(self._rejection)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left, or the process did."""
        super().connection_lost(exc)
        if self._answering and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _reject(self, error: ErrorResponse) -> None:
        """Read nothing more. What could not be read is answered with `error`, after the responses before it."""
        client = "{}:{}".format(*self.client) if self.client else "a client"
        self.logger.warning("Rejected a request of %s: %s", client, error.message)
        self._input_closed = True
        in_body = not self._arriving and self.cycle is not None and self.cycle.more_body
        self._arriving = False
        if in_body and self.cycle.response_started:
            self._end_without_body(self.cycle)
            return
        if in_body:
            self._give_up(self.cycle)
        self._rejection = error
        if not self._has_request():
            self._send_rejection(error)

    def _end_without_body(self, cycle: RequestResponseCycle) -> None:
        """Close after the response to a request that will not be whole, and has no second response."""
        cycle.more_body = cycle.keep_alive = False
        cycle.message_event.set()
        if cycle.response_complete:
            self._close_once_read()

    def _give_up(self, cycle: RequestResponseCycle) -> None:
        """Have nobody respond to a request that will not be whole, so that its rejection does."""
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
            return
        cycle.disconnected = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()

    def _send_rejection(self, error: ErrorResponse) -> None:
        if self.transport.is_closing():
            return
        body = json.dumps(error.body()).encode()
        fields = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[error.status] + fields + body)
        self._close_once_read()

    def _close_once_read(self) -> None:
        # Closed upon bytes that nobody read, the connection would be reset, and the response lost (RFC 9112, 9.6).
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def shutdown(self) -> None:
        """Close after what is being answered, or after a moment if that is nothing."""
        self._draining = True
        if self._has_request():
            self._begun_open = self.cycle.response_started
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(IDLE_LINGER_S, self._close_if_idle)

    def _has_request(self) -> bool:
        cycle = self._answering
        return cycle is not None and not (cycle.response_complete or cycle.disconnected)

    def _close_if_idle(self) -> None:
        if not self._arriving and not self._has_request():
            self.transport.close()

    def _close_after(self, cycle: RequestResponseCycle, before: RequestResponseCycle | None) -> None:
        """Close after `cycle` and not before it, unless the client has been told that `before` is the last."""
        cycle.keep_alive = False
        if before and not before.response_complete and (self._begun_open or not before.response_started):
            before.keep_alive = True


def _bad_request(exc: httptools.HttpParserError) -> ErrorResponse:
    invalid = exc.__context__
    reason = invalid if isinstance(invalid, InvalidRequestError) else exc
    return ErrorResponse(400, f"The request is not valid HTTP: {reason}.")
