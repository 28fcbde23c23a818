"""Comments in silent event streams (vLLM's `--sse-keep-alive-interval`)."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: clients skip it, and proxies see traffic and keep the connection open."""


class SSEKeepAliveMiddleware:
    """Sends a comment whenever an event stream has been silent for `interval_s`, as vLLM does."""

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
    """Wraps one response's `send`; a task watches for silence if it is an event stream."""

    def __init__(self, send: Send, interval_s: float) -> None:
        self._send = send
        self._interval_s = interval_s
        self._sent_at = 0.0
        self._watcher: asyncio.Task[None] | None = None

    async def send(self, message: Message) -> None:
        if self._watcher:
            self._sent_at = self._watcher.get_loop().time()
            if not message.get("more_body"):
                self.end()
        await self._send(message)
        if message["type"] == "http.response.start" and _is_event_stream(message):
            self._watcher = asyncio.create_task(self._watch())

    def end(self) -> None:
        """Stop sending comments. Raises the error of a comment that could not be sent."""
        watcher, self._watcher = self._watcher, None
        if watcher and not watcher.cancel():
            watcher.result()

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
