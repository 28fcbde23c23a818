"""Comments in silent streams."""

import asyncio
import json
import re
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from app.core.middleware.sse_keep_alive import SSEKeepAliveMiddleware
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import served_over

COMMENT = ": keep-alive\n\n"


def chat(text: str, *, stream: bool = True) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "stream": stream, "request_id": "mine"}


async def response_text(simulator: Simulator, body: dict[str, Any], **settings: object) -> str:
    async with served_over(simulator.base_url, **settings) as url, httpx.AsyncClient(base_url=url) as client:
        return re.sub(r'"created":\d+', '"created":0', (await client.post(CHAT, json=body)).text)


@pytest.mark.parametrize(
    ("pace", "before"),
    [("tokens=3 ttft=0.3", ""), ("tokens=3 itl=0.2", "data: "), ("tokens=3 fault=stall seconds=0.3", "data: ")],
    ids=["before the first event", "between events", "a stall"],
)
async def test_a_silent_stream_gets_comments_between_its_events(simulator: Simulator, pace: str, before: str) -> None:
    text = f"[sim {pace}]"
    kept_alive = await response_text(simulator, chat(text), sse_keep_alive_interval=0.05)

    assert COMMENT in kept_alive.partition(before)[2] if before else kept_alive.startswith(COMMENT)
    assert kept_alive.replace(COMMENT, "") == await response_text(simulator, chat(text))
    assert {block.partition(":")[0] for block in kept_alive.removesuffix("\n\n").split("\n\n")} == {"", "data"}


async def test_a_stream_that_is_not_silent_gets_no_comment(simulator: Simulator) -> None:
    assert COMMENT not in await response_text(simulator, chat("[sim tokens=3 itl=0.02]"), sse_keep_alive_interval=60)


async def test_a_response_that_is_not_a_stream_gets_no_comment(simulator: Simulator) -> None:
    body = chat("[sim tokens=3 itl=0.1]", stream=False)

    assert json.loads(await response_text(simulator, body, sse_keep_alive_interval=0.05))["id"] == "chatcmpl-mine"


async def test_no_task_is_left_after_a_stream_or_a_disconnect(simulator: Simulator) -> None:
    async with served_over(simulator.base_url, sse_keep_alive_interval=0.05) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            await client.post(CHAT, json=chat("[sim tokens=3]"))
            async with client.stream("POST", CHAT, json=chat("[sim fault=stall seconds=600]")) as response:
                await anext(response.aiter_lines())
        await simulator.traffic.wait_for(lambda traffic: traffic.live == 0)
        async with asyncio.timeout(60):
            while any("_KeepAliveSender._watch" in repr(task) for task in asyncio.all_tasks()):  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0)


async def run_middleware(app: Any, send: Send) -> None:
    async def receive() -> Message:
        raise AssertionError

    await SSEKeepAliveMiddleware(app, 0.01)({"type": "http"}, receive, send)


async def test_a_comment_that_cannot_be_sent_fails_the_response() -> None:
    tried = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "headers": [(b"content-type", b"text/event-stream")]})
        await tried.wait()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            tried.set()
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await run_middleware(app, send)


END: Message = {"type": "http.response.body", "body": b"end"}


@pytest.mark.parametrize(
    ("content_type", "early", "late"),
    [(b"text/event-stream; charset=utf-8", [END], []), (b"application/json", [], [END])],
    ids=["a stream that has ended", "a slow response that is not a stream"],
)
async def test_no_comment_after_the_end_or_in_other_responses(
    content_type: bytes, early: list[Message], late: list[Message]
) -> None:
    sent: list[Message] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "headers": [(b"content-type", content_type)]})
        for message in early:
            await send(message)
        await asyncio.sleep(0.05)  # five times the interval
        for message in late:
            await send(message)

    async def send(message: Message) -> None:
        sent.append(message)

    await run_middleware(app, send)

    assert sent[1:] == [END]
