"""What happens when an answer is a stream, and when the client leaves before it is complete."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar, runtime_checkable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.core.cancel_scope import Cancellable
from app.core.errors.errors import (
    INTERNAL_ERROR,
    ClientDisconnected,
    ErrorAnswer,
    Refusal,
    UpstreamError,
    log_upstream_failure,
    upstream_answer,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"
BATCHES_WITHOUT_A_BREAK = 16
"""So many batches may be sent before other tasks have their turn, if neither side has to be waited for."""


@runtime_checkable
class Closable(Protocol):
    """Whoever holds it must `aclose()` it."""

    async def aclose(self) -> None: ...


async def run_until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled as soon as the client leaves.

    Whoever is handed the result owns it; one that nobody can be handed is closed.
    The request's body must have been read: what `receive` brings next can only be the end of the connection.

    Raises:
        ClientDisconnected: the client left first.
    """
    with _UntilDisconnect(receive) as block:
        result = await work
    if block.cancelled:
        # It came in spite of the cancellation.
        if isinstance(result, Closable):
            await result.aclose()
        raise ClientDisconnected
    return result


class _UntilDisconnect(Cancellable):
    """A block that is cancelled once the client leaves.

    To work in the request's own task, with another that watches, is 37 calls less than two and a wait for the first.

    Raises:
        ClientDisconnected: it was cancelled for that.
    """

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self._leaving = asyncio.create_task(_disconnected(receive))

    def __enter__(self) -> "_UntilDisconnect":
        self.begin()
        self._leaving.add_done_callback(self._left)
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _traceback: object) -> None:
        self._leaving.cancel()
        if self.end(kind):
            raise ClientDisconnected from None

    def _left(self, leaving: asyncio.Future[None]) -> None:
        if not leaving.cancelled():
            self.cancel()


async def _apart(work: Coroutine[Any, Any, T]) -> T:
    return await asyncio.create_task(work)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Closable, Protocol):
    """Events as bytes, in whole ones, as many at a time as have arrived."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class EventStreamResponse(Response):
    """Server-sent events as they come from a stream, and `[DONE]` at the end.

    A failure on the way is one error event, then `[DONE]`: the status has been sent by then.
    The response owns the stream and closes it however the answer ends.
    """

    media_type = "text/event-stream"

    def __init__(self, stream: EventStream) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(ClientDisconnected):
                # In a task of its own: each event then wakes this coroutine, and not all those around the answer.
                await run_until_disconnect(receive, _apart(self._send(send)))
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
            answer = upstream_answer(exc)
            log_upstream_failure(exc, answer)
            last = _error_event(answer)
        except Refusal as exc:
            # A later call of this request found no place.
            last = _error_event(exc.answer)
        except Exception:
            # The outermost handler: the status has been sent, and the client must not take this for the end.
            logger.exception("a stream failed")
            last = _error_event(INTERNAL_ERROR)
        else:
            last = b""
        await send({"type": "http.response.body", "body": last + DONE, "more_body": False})


def _error_event(answer: ErrorAnswer) -> bytes:
    # The spaces are vLLM's: it writes this one event with json.dumps.
    return b"data: %b\n\n" % json.dumps(answer.body()).encode()
