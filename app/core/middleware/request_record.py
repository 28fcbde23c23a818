"""Pure ASGI middleware: it sees every message and buffers none.

What only looks at a request and passes it on is no coroutine: it hands out the one behind it, and costs a call.
"""

import asyncio
from collections.abc import Awaitable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.config import SettingsError
from app.core.errors.errors import SHUTTING_DOWN
from app.core.http.asgi_scope import asks_for_an_answer, first_header
from app.core.lifecycle import Lifecycle
from app.core.load import ServerLoad
from app.core.request_record import RequestRecord, begin_record

PROBES = frozenset({"/health", "/ping", "/metrics", "/load", "/version"})
"""Paths whose answers carry no request headers: they are polled, and vLLM sends none."""


KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: clients skip it, and whatever is between sees that the stream lives."""


class RequestRecordMiddleware:
    """Begins the record of each request, puts what it holds into the answer's headers, and counts what is going on."""

    def __init__(self, app: ASGIApp, load: ServerLoad) -> None:
        self.app = app
        self.load = load

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self.app(scope, receive, send)
            return
        given_id = first_header(scope, b"x-request-id")
        record = RequestRecord(client_request_id=given_id.decode("latin-1") if given_id else None)
        begin_record(record)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = record.headers()
                names = dict(told)
                message["headers"] = [header for header in message["headers"] if header[0] not in names] + told
            await send(message)

        works = asks_for_an_answer(scope)
        self.load.requests += works
        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            self.load.requests -= works


class DrainMiddleware:
    """Refuses requests for answers that come while the server ends."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self.app = app
        self.lifecycle = lifecycle

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The answer, or the refusal."""
        ends = self.lifecycle.draining and asks_for_an_answer(scope)
        return _refuse_at_the_end(scope, receive, send) if ends else self.app(scope, receive, send)


async def _refuse_at_the_end(scope: Scope, receive: Receive, send: Send) -> None:
    # The body is taken first: a connection closed upon unread bytes is reset, and the answer lost.
    while (await receive()).get("more_body"):
        pass
    refusal = JSONResponse(SHUTTING_DOWN.body(), SHUTTING_DOWN.status, headers=dict(SHUTTING_DOWN.headers))
    await refusal(scope, receive, send)


class KeepAliveMiddleware:
    """Sends a comment into a stream of events whenever it was silent for `interval_s`, as vLLM does."""

    def __init__(self, app: ASGIApp, interval_s: float) -> None:
        self.app = app
        self.interval_s = interval_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        stream = _KeptAlive(send, self.interval_s)
        try:
            await self.app(scope, receive, stream.send)
        finally:
            stream.end()


class _KeptAlive:
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


class StartupFailureMiddleware:
    """Tells the server of wrong settings in one line, where Starlette would send a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """What the application does, with its failure to start told so."""
        start = self._start if scope["type"] == "lifespan" else self.app
        return start(scope, receive, send)

    async def _start(self, scope: Scope, receive: Receive, send: Send) -> None:
        failures: list[Message] = []

        async def send_but_failure(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                failures.append(message)
            else:
                await send(message)

        try:
            await self.app(scope, receive, send_but_failure)
        except BaseException as exc:
            for message in failures:
                await send({**message, "message": str(exc)} if isinstance(exc, SettingsError) else message)
            raise
