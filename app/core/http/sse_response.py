"""A response of server-sent events."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.core.errors.request_errors import INTERNAL_ERROR, ClientDisconnected, ErrorResponse, RequestError
from app.core.errors.upstream_errors import UpstreamError, error_response_for, log_upstream_failure
from app.core.http.disconnect import Closable, run_until_disconnect

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"
BATCHES_WITHOUT_A_BREAK = 16
"""Batches that are sent before other tasks get a turn, if neither side makes the stream wait."""


class EventStream(Closable, Protocol):
    """Encoded events: each item is the whole events that have arrived since the last one."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class EventStreamResponse(Response):
    """Sends a stream's events as they arrive, then `[DONE]`.

    A failure becomes an error event before `[DONE]`, because the status has been sent.
    The response owns the stream and always closes it.
    """

    media_type = "text/event-stream"

    def __init__(self, stream: EventStream, *, spaced_errors: bool = False) -> None:
        """`spaced_errors`: whether error events are spaced JSON, as in vLLM's completions, or compact, as in chats."""
        super().__init__()
        del self.headers["content-length"]
        self._stream = stream
        self._separators = (", ", ": ") if spaced_errors else (",", ":")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(ClientDisconnected):
                # A task of its own: each event wakes only this coroutine, not the whole middleware stack.
                await run_until_disconnect(receive, _in_task(self._send(send)))
        finally:
            await self._stream.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            sent = 0
            async for events in self._stream:
                await send({"type": "http.response.body", "body": events, "more_body": True})
                sent += 1
                if not sent % BATCHES_WITHOUT_A_BREAK:
                    # After a disconnect uvicorn's send returns without waiting, and a loop that never waits
                    # cannot be cancelled.
                    await asyncio.sleep(0)
        except UpstreamError as exc:
            response = error_response_for(exc)
            log_upstream_failure(exc, response)
            last = self._error_event(response)
        except RequestError as exc:
            # A later call of this request exceeded the concurrency limit.
            last = self._error_event(exc.response)
        except Exception:
            # No handler can send a 500 any more, and a stream that just ends would look complete.
            logger.exception("A stream failed")
            last = self._error_event(INTERNAL_ERROR)
        else:
            last = b""
        await send({"type": "http.response.body", "body": last + DONE, "more_body": False})

    def _error_event(self, response: ErrorResponse) -> bytes:
        return b"data: %b\n\n" % json.dumps(response.body(), separators=self._separators).encode()


async def _in_task(work: Coroutine[Any, Any, None]) -> None:
    await asyncio.create_task(work)
