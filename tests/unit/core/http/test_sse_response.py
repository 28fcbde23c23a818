"""Event streams and client disconnects, over real sockets."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import httpx
import httpx2
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.core.errors.request_errors import ClientDisconnected
from app.core.http.disconnect import run_until_disconnect
from app.core.http.sse_response import EventStreamResponse
from tests.serving import served

Events = AsyncIterator[bytes]

EVENT = b'data: {"a":1}\n\n'


class Stream:
    """A stream with events for its start and its end."""

    def __init__(self, events: Callable[[], Events]) -> None:
        self._events = events
        self.begun = asyncio.Event()
        self.closed = asyncio.Event()

    async def __aiter__(self) -> Events:
        self.begun.set()
        async for events in self._events():
            yield events

    async def aclose(self) -> None:
        self.closed.set()


def application(stream: Stream) -> Starlette:
    async def respond(_request: Request) -> Response:
        return EventStreamResponse(stream)

    return Starlette(routes=[Route("/", respond)])


async def body_of(stream: Stream) -> str:
    async with served(application(stream)) as url, httpx.AsyncClient() as client:
        return (await client.get(url)).text


async def two_events() -> Events:
    yield EVENT + 'data: {"a":"é"}\n\n'.encode()


async def never() -> Events:
    yield EVENT
    await asyncio.Event().wait()


async def without_waiting() -> Events:
    while True:
        yield EVENT


def failing(exc: Exception) -> Callable[[], Events]:
    async def events() -> Events:
        yield EVENT
        raise exc

    return events


async def test_events_are_sent_unchanged_and_done_is_last() -> None:
    stream = Stream(two_events)

    assert await body_of(stream) == 'data: {"a":1}\n\ndata: {"a":"é"}\n\ndata: [DONE]\n\n'
    assert stream.closed.is_set()


REQUEST = httpx2.Request("POST", "http://upstream")


@pytest.mark.parametrize(
    ("exc", "type_", "code"),
    [
        (openai.APIError("x", REQUEST, body={"message": "Sorry."}), "InternalServerError", 500),
        (openai.APIConnectionError(message="cut", request=REQUEST), "Bad Gateway", 502),
    ],
)
async def test_a_failure_mid_stream_is_one_error_event_in_vllms_format(exc: Exception, type_: str, code: int) -> None:
    stream = Stream(failing(exc))
    *events, done, end = (await body_of(stream)).split("\n\n")

    assert (events[0], done, end) == ('data: {"a":1}', "data: [DONE]", "")
    assert events[1].startswith('data: {"error":{"message":"')
    error = json.loads(events[1].removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == (type_, code)
    assert len(events) == 2
    assert stream.closed.is_set()


async def test_a_bug_mid_stream_is_an_error_event_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        body = await body_of(Stream(failing(KeyError("internal"))))

    assert '"InternalServerError"' in body
    assert "internal" not in body.replace("InternalServerError", "")
    assert body.endswith("data: [DONE]\n\n")
    assert "A stream failed" in caplog.text


async def test_an_upstream_failure_mid_stream_is_logged_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    error = {"message": "I cannot answer: the prompt", "type": "server_error", "code": "the prompt"}
    await body_of(Stream(failing(openai.APIError("the prompt", REQUEST, body=error))))

    assert [(entry.levelname, entry.name) for entry in caplog.records] == [
        ("WARNING", "app.core.errors.upstream_errors")
    ]
    assert "OpenAI: APIError, type server_error, answered with 500" in caplog.text
    assert "the prompt" not in caplog.text


async def leave_after(url: str, begun: asyncio.Event) -> None:
    host, port = url.removeprefix("http://").split(":")
    _reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    async with asyncio.timeout(60):
        await begun.wait()
    writer.close()


@pytest.mark.parametrize("events", [never, without_waiting])
async def test_a_disconnect_ends_the_stream_and_is_not_an_error(
    events: Callable[[], Events], capsys: pytest.CaptureFixture[str]
) -> None:
    stream = Stream(events)
    async with served(application(stream)) as url:
        await leave_after(url, stream.begun)
        async with asyncio.timeout(60):
            await stream.closed.wait()

    assert capsys.readouterr().err == ""


async def test_a_disconnect_cancels_the_work() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()
    outcomes: list[type[BaseException]] = []

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def respond(request: Request) -> Response:
        await request.body()
        try:
            await run_until_disconnect(request.receive, work())
        except ClientDisconnected as exc:
            outcomes.append(type(exc))
        return Response()

    async with served(Starlette(routes=[Route("/", respond)])) as url:
        await leave_after(url, begun)
        async with asyncio.timeout(60):
            await cancelled.wait()

    assert outcomes == [ClientDisconnected]


async def test_no_task_is_left_after_a_disconnect() -> None:
    async def leave() -> Any:
        return {"type": "http.disconnect"}

    async def work() -> None:
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    with pytest.raises(ClientDisconnected):
        await run_until_disconnect(leave, work())

    assert asyncio.all_tasks() == before


async def test_a_stream_cancelled_before_its_start_is_closed() -> None:
    stream = Stream(never)

    async def stuck(*_: object) -> Any:
        await asyncio.Event().wait()

    pending = asyncio.create_task(EventStreamResponse(stream)({"type": "http"}, stuck, stuck))
    await asyncio.sleep(0)
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending

    assert stream.closed.is_set()
    assert not stream.begun.is_set()


async def test_a_result_is_returned_and_an_exception_raised() -> None:
    async def stuck() -> Any:
        await asyncio.Event().wait()

    async def fail() -> None:
        raise KeyError("x")

    async def succeed() -> int:
        return 7

    assert await run_until_disconnect(stuck, succeed()) == 7
    with pytest.raises(KeyError):
        await run_until_disconnect(stuck, fail())


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("leaves", [False, True], ids=["cancelled", "the client leaves"])
async def test_a_stream_that_opens_as_its_request_ends_is_returned_or_closed(steps: int, leaves: bool) -> None:
    stream, opening, left = Stream(never), asyncio.Event(), asyncio.Event()

    async def leave() -> Any:
        await left.wait()
        return {"type": "http.disconnect"}

    async def open_it() -> Stream:
        await opening.wait()
        return stream

    pending = asyncio.create_task(run_until_disconnect(leave, open_it()))
    for _ in range(3):
        await asyncio.sleep(0)
    opening.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    left.set() if leaves else pending.cancel()
    [outcome] = await asyncio.gather(pending, return_exceptions=True)

    # Cancelled in the first step, it was never opened.
    assert outcome is stream or stream.closed.is_set() or steps < 1


async def test_a_stream_that_opens_in_spite_of_cancellation_is_closed() -> None:
    stream = Stream(never)

    async def leave() -> Any:
        return {"type": "http.disconnect"}

    async def open_it() -> Stream:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return stream

    with pytest.raises(ClientDisconnected):
        await run_until_disconnect(leave, open_it())

    assert stream.closed.is_set()


@pytest.mark.parametrize("steps", range(6))
async def test_a_disconnect_during_a_timeout_is_noticed(steps: int) -> None:
    loop, left = asyncio.get_running_loop(), asyncio.Event()

    async def leave() -> Any:
        await left.wait()
        return {"type": "http.disconnect"}

    async def work() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(loop.time()):
                await asyncio.Event().wait()
        await asyncio.Event().wait()

    pending = asyncio.create_task(run_until_disconnect(leave, work()))
    for _ in range(steps):
        await asyncio.sleep(0)
    left.set()
    async with asyncio.timeout(60):
        with pytest.raises(ClientDisconnected):
            await pending
