"""Clients that disconnect: the upstream call stops, and nothing leaks."""

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.core.lifecycle import Lifecycle
from app.main import create_app
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.raw_upstream import GOOD, SSE_HEAD, event, http_chunk, read_request
from tests.serving import ReadyServer, nothing_is_held_by, served_over, serving, settings_for

BATCH = f"{CHAT}/batch"
COMPLETIONS = "/v1/completions"
SLOW, STALLED, LATE = (
    "[sim fault=slow seconds=600]",
    "[sim fault=stall seconds=600 after=3 tokens=20]",
    "[sim ttft=600]",
)
"""Streams that do not end during a test."""


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


def batch(*texts: str) -> dict[str, Any]:
    return {"messages": [chat(text)["messages"] for text in texts]}


def request_bytes(path: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


@asynccontextmanager
async def asking(url: str, path: str, body: dict[str, Any]) -> AsyncIterator[asyncio.StreamReader]:
    """The response of a request whose client disconnects at the end of the block."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(request_bytes(path, body))
    try:
        yield reader
    finally:
        writer.close()


async def assert_nothing_goes_on(url: str) -> None:
    async with asyncio.timeout(60), httpx.AsyncClient(base_url=url) as client:
        while (await client.get("/load")).json() != {"server_load": 0}:
            pass
        metrics = (await client.get("/metrics")).text
    assert re.search(r"^llm_server_upstream_calls_in_flight (\S+)$", metrics, re.MULTILINE)[1] == "0.0"  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "body", "seen", "calls"),
    [
        pytest.param(CHAT, chat(SLOW), b"", 1, id="whole answer"),
        pytest.param(CHAT, chat(SLOW, stream=True), b"", 1, id="stream before the headers"),
        pytest.param(CHAT, chat(LATE, stream=True), b"\r\n\r\n", 1, id="stream before the first event"),
        pytest.param(CHAT, chat(STALLED, stream=True), b"data: ", 1, id="mid-stream"),
        pytest.param(BATCH, batch(*[SLOW] * 20), b"", 16, id="batch"),
        pytest.param(BATCH, batch("[sim tokens=1]", SLOW, SLOW), b"", 2, id="half a batch"),
        pytest.param(COMPLETIONS, {"prompt": SLOW}, b"", 1, id="text completion"),
        pytest.param(COMPLETIONS, {"prompt": [SLOW, SLOW]}, b"", 2, id="text completions"),
        pytest.param(COMPLETIONS, {"prompt": [STALLED, STALLED], "stream": True}, b"data: ", 2, id="text streams"),
    ],
)
async def test_a_disconnect_stops_openai(
    path: str, body: dict[str, Any], seen: bytes, calls: int, simulator: Simulator
) -> None:
    async with served_over(simulator.base_url) as url:
        async with asking(url, path, body) as answer:
            async with asyncio.timeout(60):
                await answer.readuntil(seen) if seen else None
            await simulator.traffic.wait_for(lambda traffic: traffic.live == calls)
        await simulator.traffic.wait_for(lambda traffic: traffic.live == 0)
        await assert_nothing_goes_on(url)


class EndlessUpstream:
    """Streams as fast as the server reads, far beyond any buffer."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.held_back = asyncio.Event()
        """Nobody has read for a while, or all that may be held has been sent."""
        self.left = asyncio.Event()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE_HEAD)
        text = http_chunk(event({**GOOD, "choices": [{"index": 0, "delta": {"content": "x" * 1000}}]}) * 50)
        try:
            await self._send(writer, text)
            self.held_back.set()
            await reader.read()
            self.left.set()
        except ConnectionError:
            self.left.set()
        finally:
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter, text: bytes) -> None:
        while self.sent_bytes < MOST_BYTES_HELD:
            writer.write(text)
            self.sent_bytes += len(text)
            sending = asyncio.create_task(writer.drain())
            done, _ = await asyncio.wait([sending], timeout=0.5)
            if not done:
                self.held_back.set()
            await sending


@asynccontextmanager
async def endless() -> AsyncIterator[tuple[EndlessUpstream, str]]:
    upstream = EndlessUpstream()
    server = await asyncio.start_server(upstream.converse, "127.0.0.1", 0)
    async with server:
        yield upstream, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


MOST_BYTES_HELD = 64_000_000
"""Far more than the buffers of four sockets."""


async def test_a_slow_reader_slows_openai_down_and_can_disconnect() -> None:
    async with endless() as (upstream, base_url), served_over(base_url) as url:
        async with asking(url, CHAT, chat("hi", stream=True)) as answer:
            answer._transport.pause_reading()  # type: ignore[attr-defined]
            async with asyncio.timeout(60):
                await upstream.held_back.wait()
            assert upstream.sent_bytes < MOST_BYTES_HELD
        async with asyncio.timeout(60):
            await upstream.left.wait()
        await assert_nothing_goes_on(url)


@asynccontextmanager
async def ending_at_once(base_url: str) -> AsyncIterator[ReadyServer]:
    app = create_app(settings_for(base_url))
    lifecycle: Lifecycle = app.state.components.lifecycle
    async with serving(app, lifecycle, shutdown_timeout_s=0) as server:
        yield server


async def test_a_slow_reader_does_not_block_shutdown() -> None:
    async with (
        endless() as (upstream, base_url),
        ending_at_once(base_url) as server,
        asking(server.url, CHAT, chat("hi", stream=True)) as answer,
    ):
        answer._transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            await upstream.held_back.wait()
            server.ending.set()
            await server.ended.wait()
            await upstream.left.wait()


ABANDONED = 1000
AT_ONCE = 20
STAYING = 5
"""Every Nth client disconnects after the start of an endless stream."""
PACE = "[sim tokens=10 ttft=0.01 itl=0.002]"
FAILING = "[sim fault=overloaded retry_after=0.01]"
BODIES = [
    (CHAT, chat(PACE)),
    (CHAT, chat(PACE, stream=True)),
    (CHAT, chat(FAILING)),
    (BATCH, batch(PACE, PACE, PACE)),
    (COMPLETIONS, {"prompt": [PACE, PACE]}),
    (COMPLETIONS, {"prompt": [PACE, PACE], "stream": True}),
]


async def abandon(url: str, chance: random.Random, number: int) -> None:
    if number % STAYING == 0:
        async with asking(url, CHAT, chat(STALLED, stream=True)) as answer:
            await answer.readuntil(b"data: ")
        return
    path, body = chance.choice(BODIES)
    patience_s = chance.uniform(0, 0.05)
    async with asking(url, path, body) as answer:
        await asyncio.wait([reading := asyncio.create_task(answer.read())], timeout=patience_s)
        reading.cancel()


def working_tasks() -> set[str]:
    """The tasks of this process, except idle connections at the simulator."""
    return {repr(task) for task in asyncio.all_tasks() if "RequestHandler.start" not in repr(task)}


def test_a_thousand_abandoned_requests_leak_nothing() -> None:
    # In a loop of its own, which is not slowed down by what other tests left in theirs.
    asyncio.run(_abandon_a_thousand())


async def _abandon_a_thousand() -> None:
    chance = random.Random(20261124)  # noqa: S311 - the same moments in every run, as far as the clock allows
    async with Simulator() as simulator, ending_at_once(simulator.base_url) as server:
        before = len(working_tasks())
        for _ in range(ABANDONED // AT_ONCE):
            async with asyncio.timeout(60):
                await asyncio.gather(*(abandon(server.url, chance, number) for number in range(AT_ONCE)))
        await simulator.traffic.wait_for(lambda traffic: traffic.live == 0)
        await nothing_is_held_by(server.config.app.state.components)  # type: ignore[union-attr]

        assert simulator.traffic.abandoned >= ABANDONED // STAYING
        async with asyncio.timeout(60):
            while len(working_tasks()) > before:  # noqa: ASYNC110 - tasks are no events
                await asyncio.sleep(0)
