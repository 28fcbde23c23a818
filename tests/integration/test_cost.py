"""What a request and an event of a stream cost, counted in calls: that does not depend on how busy the machine is.

The server runs in this thread, OpenAI's canned answers come from another process, and the client is another thread.
The ceilings are a tenth above what Python 3.11 to 3.13 need; whoever adds a call an event meets them.
"""

import asyncio
import http.client
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks import canned
from benchmarks.candidates import CANDIDATES
from benchmarks.running import CANDIDATE_CORES, OTHER_CORES, boot
from tests.serving import served_over

CALLS_A_REQUEST = 1_680
CALLS_AN_EVENT = 55
REQUESTS, STREAMS = 50, 10


@pytest.fixture
async def server_address() -> AsyncIterator[str]:
    upstream, _ = await boot(CANDIDATES["direct"], 0, CANDIDATE_CORES | OTHER_CORES)
    try:
        async with served_over(f"http://127.0.0.1:{upstream.target.port}/v1") as url:
            yield url.removeprefix("http://")
    finally:
        upstream.end()


@contextmanager
def counted_calls() -> Iterator[Callable[[], int]]:
    """How many functions this thread has called since the block began, C's included."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        yield lambda: calls
    finally:
        sys.setprofile(None)


def ask(address: str, times: int, word: bytes = b"", **fields: Any) -> None:
    """Send a chat request so many times over one connection, and check each answer."""
    connection = http.client.HTTPConnection(address, timeout=30)
    body = {"messages": [{"role": "user", "content": f"hi {word.decode()}"}], "max_tokens": 256, **fields}
    for _ in range(times):
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        assert response.status == 200
        assert answer.count(canned.MARK) == canned.STREAM_EVENTS * bool(word)
    connection.close()


async def test_a_request_costs_no_more_calls_than_it_did(server_address: str) -> None:
    await asyncio.to_thread(ask, server_address, 5)
    with counted_calls() as calls:
        await asyncio.to_thread(ask, server_address, REQUESTS)
        used = calls() / REQUESTS

    print(f"{used:.0f} calls a request")
    assert used < CALLS_A_REQUEST


async def test_an_event_of_a_stream_costs_no_more_calls_than_it_did(server_address: str) -> None:
    await asyncio.to_thread(ask, server_address, 1, canned.BURST, stream=True)
    with counted_calls() as calls:
        await asyncio.to_thread(ask, server_address, STREAMS, canned.BURST, stream=True)
        used = calls() / STREAMS / canned.STREAM_EVENTS

    print(f"{used:.1f} calls an event")
    assert used < CALLS_AN_EVENT
