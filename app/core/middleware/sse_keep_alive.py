"""Keeps silent event streams alive with comments, as vLLM does."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: clients skip it, and whatever is between sees that the stream lives."""


class SSEKeepAliveMiddleware:
    """Sends a comment into a stream of events whenever it was silent for `interval_s`, as vLLM does."""

    def __init__(self, app: ASGIApp, interval_s: float) -> None:
        self.app = app
        self.interval_s = interval_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        stream = _KeepAliveSender(send, self.interval_s)
        try:
            await self.app(scope, receive, stream.send)
        finally:
            stream.end()


class _KeepAliveSender:
    """The sending side of one answer; a task beside it watches for silence if it is a stream of events."""

    def __init__(self, send: Send, interval_s: float) -> None:
        self._send = send
        self._interval_s = interval_s
        self._sent_at = 0.0
        self._watching: asyncio.Task[None] | None = None

    async def send(self, message: Message) -> None:
        if self._watching:
            self._sent_at = self._watching.get_loop().time()
            if not message.get("more_body"):
                self.end()
        await self._send(message)
        if message["type"] == "http.response.start" and _is_event_stream(message):
            self._watching = asyncio.create_task(self._watch())

    def end(self) -> None:
        """Send no more comments. Raises what the last one failed with."""
        watching, self._watching = self._watching, None
        if watching and not watching.cancel():
            watching.result()

    async def _watch(self) -> None:
        now = asyncio.get_running_loop().time
        self._sent_at = now()
        while True:
            silent_s = now() - self._sent_at
            if silent_s < self._interval_s:
                await asyncio.sleep(self._interval_s - silent_s)
            else:
                self._sent_at = now()
                await self._send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})


def _is_event_stream(message: Message) -> bool:
    return Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
