"""uvicorn's connection with its own handling of upgrades, invalid requests, pipelining and shutdown.

docs/decisions/0008 has the reasons, and what this relies on in uvicorn and httptools.
"""

import json
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.core.errors.request_errors import ErrorResponse
from app.core.middleware.request_size import HEAD_TOO_LARGE, LINGER_S, MAX_HEAD_BYTES
from app.core.server.request_framing import (
    InvalidRequestError,
    check_head,
    check_trailer,
    head_with_framing_of,
    http10_keeps_alive,
    origin_form,
)
from app.core.server.response_framing import closing_if_unread, for_http10

IDLE_LINGER_S = 0.1
"""How long an idle connection stays open at shutdown, for a request that is on its way."""
UNCONFIRMED_S = 1.0
"""How long a TLS client may take to confirm a close at shutdown. Clients do not read idle connections of a pool."""
PIPELINED_REQUESTS = 16
"""Pipelined requests that may wait for their turn; then reading pauses."""

FRAMING_TOO_LARGE = ErrorResponse(
    400, f"A chunk's extension, a trailer or empty lines before a request have more than {MAX_HEAD_BYTES} bytes."
)


class HttpConnection(HttpToolsProtocol):
    """One client's connection. No byte of a request body is ever parsed as another request.

    - Upgrade offers are ignored: the request is handled like any other.
    - An invalid request, or one of ambiguous length, gets a 400 after the responses before it; then the connection
      closes. It also closes after a request with `Connection: close`. Nothing behind such a request is read.
    - A head that is too large is dropped, not kept in memory.
    - The current request sees a disconnect even while others wait behind it.
    - At shutdown each request that has arrived or is arriving gets a response, the last with `Connection: close`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._answering: RequestResponseCycle | None = None
        self._arriving = False
        """True while the head of a request arrives."""
        self._upgrade_offered = False
        """True if the parser skips the body of this request, because it expects another protocol."""
        self._declining = False
        self._last_request = False
        self._rejection: ErrorResponse | None = None
        self._draining = False
        self._response_begun = False
        self._pending_bytes = 0
        """Bytes received since the parser last reported a complete head or body data."""
        self._input_closed = False

    def data_received(self, data: bytes) -> None:
        """Parse what the client sends, up to the last request or the first error."""
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
            self._reject(HEAD_TOO_LARGE if self._arriving else FRAMING_TOO_LARGE)

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
        """Have a new parser read the body: without the upgrade it belongs to the request (RFC 9110, 7.8)."""
        self._upgrade_offered = False
        self.parser = httptools.HttpRequestParser(self)
        self._declining = True
        self.parser.feed_data(head_with_framing_of(self.headers))
        self._declining = False

    def _should_upgrade(self) -> bool:
        return False

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._declining:
            return
        if self._input_closed:
            raise InvalidRequestError("no request may follow")
        self._arriving = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header field. A trailer field is only checked: it is not a header."""
        name = name.lower()
        if not self._arriving:
            check_trailer(name)
            return
        if name == b"expect" and value.strip().lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the head; start the request, or queue it behind those before it."""
        if self._declining:
            return
        version = self.parser.get_http_version()
        check_head(version, self.headers)
        self._upgrade_offered = self.parser.should_upgrade()
        if self._upgrade_offered and self.parser.get_method() == b"CONNECT":
            raise InvalidRequestError("this server is not a proxy")
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
            # uvicorn paused reading; without it a disconnect would go unnoticed.
            self.flow.resume_reading()
        if self._draining:
            self._close_after(self.cycle, before)

    def on_body(self, body: bytes) -> None:
        """Pass on a chunk of the body."""
        self._pending_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request, unless its body is still to be parsed."""
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
        """Start the next request, or send the rejection that waited for this response."""
        super().on_response_complete()
        if self._rejection and not self._has_request():
            self._send_rejection(self._rejection)
        if self._draining and self.transport.is_closing():
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the disconnect to the current request, also while others wait."""
        super().connection_lost(exc)
        if self._answering and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _reject(self, error: ErrorResponse) -> None:
        """Stop reading and respond with `error`, after the responses before it."""
        client = "{}:{}".format(*self.client) if self.client else "a client"
        self.logger.warning("Rejected a request of %s: %s", client, error.message)
        self._input_closed = True
        in_body = not self._arriving and self.cycle is not None and self.cycle.more_body
        self._arriving = False
        if in_body and self.cycle.response_started:
            self._end_without_body(self.cycle)
            return
        if in_body:
            self._abandon(self.cycle)
        self._rejection = error
        if not self._has_request():
            self._send_rejection(error)

    def _end_without_body(self, cycle: RequestResponseCycle) -> None:
        """Close after the response that has started: the request stays incomplete and gets no second one."""
        cycle.more_body = cycle.keep_alive = False
        cycle.message_event.set()
        if cycle.response_complete:
            self._close_once_read()

    def _abandon(self, cycle: RequestResponseCycle) -> None:
        """Drop an incomplete request whose response has not started, so that it gets the rejection."""
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
        # Closing with unread bytes would reset the connection, and the response would be lost (RFC 9112, 9.6).
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def shutdown(self) -> None:
        """Close after the requests in flight; an idle connection closes after `IDLE_LINGER_S`."""
        self._draining = True
        if self._has_request():
            self._response_begun = self.cycle.response_started
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(IDLE_LINGER_S, self._close_if_idle)

    def _has_request(self) -> bool:
        cycle = self._answering
        return cycle is not None and not (cycle.response_complete or cycle.disconnected)

    def _close_if_idle(self) -> None:
        if not self._arriving and not self._has_request():
            self._close()

    def _close(self) -> None:
        self.transport.close()
        if self.scheme == "https":
            # Otherwise close() waits 30 s for the client's close_notify, which is not required (RFC 8446, 6.1).
            self.loop.call_later(UNCONFIRMED_S, self.transport.abort)

    def _close_after(self, cycle: RequestResponseCycle, before: RequestResponseCycle | None) -> None:
        """Close after `cycle` instead of `before`, unless its response has announced `Connection: close`."""
        cycle.keep_alive = False
        if before and not before.response_complete and (self._response_begun or not before.response_started):
            before.keep_alive = True


def _bad_request(exc: httptools.HttpParserError) -> ErrorResponse:
    invalid = exc.__context__
    reason = invalid if isinstance(invalid, InvalidRequestError) else exc
    return ErrorResponse(400, f"The request is not valid HTTP: {reason}.")
