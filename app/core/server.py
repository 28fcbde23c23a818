"""uvicorn's server, but for how it ends and for clients that pipeline their requests."""

import asyncio
import json
import logging
import math
import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.core.lifecycle import Lifecycle
from app.core.middleware.request_size import HEAD_TOO_LARGE, LINGER_S, MAX_HEAD_BYTES

logger = logging.getLogger("uvicorn.error")

IDLE_LINGER_S = 0.1
"""How long an idle connection is kept at the end, for a request that is on its way."""
ABORT_S = 2.0
"""How long the last words to clients may take."""
TICK_S = 0.02
PIPELINED_REQUESTS = 16
"""Requests that may wait behind the one being answered before no more is read from the connection."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection, without three of its flaws.

    It keeps no head of a request that is too large, while uvicorn would keep any. It tells the request being answered
    that the client left, also while others wait behind it. And at the end of the process it cuts off no request that
    has arrived or is arriving: each is answered, the last with `Connection: close`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._answering: RequestResponseCycle | None = None
        self._arriving = False
        self._draining = False
        self._begun_open = False
        self._pending_bytes = 0
        """Received since the parser last made something of it."""
        self._deaf = False

    def data_received(self, data: bytes) -> None:
        """What the client sends, until a head, a chunk's extension or a trailer in it is too large."""
        if self._deaf:
            return
        self._pending_bytes += len(data)
        super().data_received(data)
        if self._pending_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head()

    def _refuse_head(self) -> None:
        self._deaf = True
        if self._has_request() or not self._arriving:
            self.transport.close()
            return
        body = json.dumps(HEAD_TOO_LARGE.body()).encode()
        fields = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\n%b%b" % (fields, body))
        # Closed upon bytes that nobody read, the connection would be reset, and the answer lost.
        self.loop.call_later(LINGER_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left, or the process did."""
        super().connection_lost(exc)
        if self._answering and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._arriving = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. uvicorn would take a trailer for one, after whoever checked the head has done so."""
        if self._arriving:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._pending_bytes = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """A request that can be answered, at once or after those before it."""
        before = self.cycle
        super().on_headers_complete()
        self._arriving = False
        self._pending_bytes = 0
        if len(self.pipeline) in range(1, PIPELINED_REQUESTS):
            # Otherwise nobody would notice that the client leaves.
            self.flow.resume_reading()
        if self._draining:
            self._make_last(self.cycle, before)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def shutdown(self) -> None:
        """Close after what is being answered, or after a moment if that is nothing."""
        self._draining = True
        if self._has_request():
            self._begun_open = self.cycle.response_started
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(IDLE_LINGER_S, self._close_if_idle)

    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _close_if_idle(self) -> None:
        if not self._arriving and not self._has_request():
            self.transport.close()

    def _make_last(self, cycle: RequestResponseCycle, before: RequestResponseCycle | None) -> None:
        """Close after `cycle` and not before it, unless the client has been told that `before` is the last."""
        cycle.keep_alive = False
        if before and not before.response_complete and (self._begun_open or not before.response_started):
            before.keep_alive = True


class Server(uvicorn.Server):
    """Ends cleanly on a signal: the first lets requests in flight finish, the second ends at once.

    uvicorn's own would raise the signal again after that, so that the process never ends with status 0, and would end
    what takes longer than the configuration's `timeout_graceful_shutdown`, in seconds, with a traceback.
    """

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._starting_in: asyncio.AbstractEventLoop | None = None

    @property
    def refused_to_start(self) -> bool:
        """Whether the application said, before it listened, that it cannot; the log says why."""
        return not self.started and self.lifespan.should_exit

    def handle_exit(self, _signal: int, _frame: FrameType | None) -> None:
        """Note a signal. One that comes before the start is complete also ends what that waits for."""
        self.force_exit = self.should_exit
        self.should_exit = True
        if self._starting_in:
            self._starting_in.call_soon_threadsafe(self._lifecycle.abort)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and listen on `sockets`."""
        self._starting_in = asyncio.get_running_loop()
        await super().startup(sockets)
        self._starting_in = None
        if sockets and not self.should_exit:
            self._log_started_message(sockets)

    async def shutdown(self, sockets: Any = None) -> None:
        """Accept nothing, finish what is in flight or give it up, and close."""
        logger.info("Shutting down")
        for server in self.servers:
            server.close()
        self._lifecycle.drain()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._finish()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self._wait_until_idle(ABORT_S)
        await self.lifespan.shutdown()

    async def _finish(self) -> None:
        limit_s = self.config.timeout_graceful_shutdown
        await self._wait_until_idle(math.inf if limit_s is None else limit_s, or_signal=True)
        if self.force_exit or not self._busy():
            return
        logger.warning("Giving up %d requests that were still being answered", len(self.server_state.tasks))
        self._lifecycle.abort()
        await self._wait_until_idle(ABORT_S, or_signal=True)

    def _busy(self) -> bool:
        return bool(self.server_state.connections or self.server_state.tasks)

    async def _wait_until_idle(self, limit_s: float, *, or_signal: bool = False) -> None:
        now = asyncio.get_running_loop().time
        end = now() + limit_s
        while self._busy() and now() < end and not (or_signal and self.force_exit):  # noqa: ASYNC110 - uvicorn's sets are no events
            await asyncio.sleep(TICK_S)
