"""A minimal OpenAI that sends prepared bytes at almost no cost: `python -m benchmarks.upstream PORT`.

Requests are not parsed: a word in the body selects the response (canned.py). Connections are kept alive.
"""

import asyncio
import sys
from typing import cast

import uvloop

from benchmarks import canned
from benchmarks.http1 import is_complete

_CHAT = b"POST /v1/chat/completions HTTP/1.1"


class Upstream(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._pending = b""
        self._events = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport (asyncio)."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the stream of a disconnected client (asyncio)."""
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Send the response once the request is complete (asyncio)."""
        self._pending += data
        if is_complete(self._pending):
            request, self._pending = self._pending, b""
            self._respond(request)

    def _respond(self, request: bytes) -> None:
        if not request.startswith(_CHAT):
            self._transport.write(canned.MODELS_RESPONSE if request.startswith(b"GET ") else canned.UNKNOWN)
        elif canned.PACED in request:
            self._start_paced()
        elif canned.BURST in request:
            self._transport.write(canned.WHOLE_STREAM)
        elif canned.IDLE in request:
            self._transport.write(canned.IDLE_STREAM)
        else:
            self._transport.write(canned.JSON_RESPONSE)

    def _start_paced(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events, self._started_at = 0, self._loop.time()
        self._transport.write(canned.STREAM_START)
        self._schedule()

    def _schedule(self) -> None:
        # Relative to the start, so that a late event does not delay the next ones.
        due = self._started_at + (self._events + 1) / canned.EVENTS_PER_S
        self._timer = self._loop.call_at(due, self._send_event)

    def _send_event(self) -> None:
        if self._events == canned.STREAM_EVENTS:
            self._transport.write(canned.STREAM_END)
            return
        self._transport.write(canned.CONTENT_EVENTS[self._events % 2])
        self._events += 1
        self._schedule()


async def serve(port: int) -> None:
    """Serve on `port` of 127.0.0.1 until the process ends."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
