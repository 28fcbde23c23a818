"""Each wait for OpenAI ends at its own limit, and says which one it was."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest

from app.features.llm.timeouts import Timeouts
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import served_over
from tests.unit.features.llm.test_client import chunks_in, chunks_of, client_of, raw_server, read_request, request
from tests.unit.features.llm.test_client_damage import GOOD, SSE_HEAD, event, http_chunk

BEGUN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"
REFUSED = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"


@asynccontextmanager
async def dribbling(head: bytes) -> AsyncIterator[str]:
    """An upstream that never ends its answer, and never is silent for long."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with raw_server(converse) as url:
        yield url


@asynccontextmanager
async def silent_after(answer: bytes) -> AsyncIterator[str]:
    """An upstream that says no more than `answer`."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await reader.read()

    async with raw_server(converse) as url:
        yield url


async def timeout_of(url: str, timeouts: Timeouts, *, content: Any = "hi", stream: bool = False) -> str:
    """The text of the failure of a call with these limits."""
    async with client_of(url, timeouts=timeouts, max_attempts=1) as client:
        call = client.stream_chat_completion if stream else client.create_chat_completion
        with pytest.raises(openai.APITimeoutError) as caught:
            async with asyncio.timeout(60):
                await call(request(content, stream=stream))
    return str(caught.value)


async def test_a_connection_that_is_not_made_is_not_waited_for() -> None:
    async def converse(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    # It accepts, and never says a word of TLS.
    async with raw_server(converse) as url:
        said = await timeout_of(url.replace("http:", "https:"), Timeouts(connect_s=0.1))

    assert said == "The upstream service accepted no connection within 0.1 s (UPSTREAM_CONNECT_TIMEOUT_S)."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["nothing", "half a head"])
async def test_an_answer_that_does_not_begin_is_not_waited_for(begun: bytes, stream: bool) -> None:
    async with silent_after(begun) as url:
        said = await timeout_of(url, Timeouts(first_byte_s=0.1), stream=stream)

    assert said == "The upstream service did not begin to answer within 0.1 s (UPSTREAM_FIRST_BYTE_TIMEOUT_S)."


async def test_a_request_that_nobody_reads_is_not_sent_for_ever() -> None:
    over = asyncio.Event()

    async def converse(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await over.wait()

    async with raw_server(converse) as url:
        # Larger than the kernel's buffers, or it would be sent. An image: a text would be counted first.
        image = {"type": "image_url", "image_url": "data:image/png;base64," + "A" * 8_000_000}
        said = await timeout_of(url, Timeouts(first_byte_s=0.3), content=[image])
        over.set()

    assert "UPSTREAM_FIRST_BYTE_TIMEOUT_S" in said


async def test_a_whole_answer_that_stops_coming_is_not_waited_for() -> None:
    async with silent_after(BEGUN) as url:
        said = await timeout_of(url, Timeouts(idle_s=0.1))

    assert said == "The upstream service fell silent in its answer for 0.1 s (UPSTREAM_IDLE_TIMEOUT_S)."


async def test_a_stream_that_stops_coming_ends_after_what_came() -> None:
    chunks: list[Any] = []
    # In one piece, or a slow machine would be silent between them.
    begun = SSE_HEAD + http_chunk(event(GOOD) * 3)
    async with silent_after(begun) as url, client_of(url, timeouts=Timeouts(idle_s=0.1)) as client:
        stream = await client.stream_chat_completion(request(stream=True))
        with pytest.raises(openai.APITimeoutError, match="UPSTREAM_IDLE_TIMEOUT_S"):
            async for events in stream:
                chunks += chunks_in(events)
        await stream.aclose()

    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["", *["hi"] * 3]


async def test_a_whole_answer_that_never_ends_is_not_waited_for() -> None:
    async with dribbling(BEGUN) as url:
        said = await timeout_of(url, Timeouts(total_s=0.2))

    assert said == "The upstream service did not complete its answer within 0.2 s (UPSTREAM_TOTAL_TIMEOUT_S)."


async def test_the_total_is_a_limit_before_the_first_byte_too() -> None:
    async with silent_after(b"") as url:
        assert "UPSTREAM_TOTAL_TIMEOUT_S" in await timeout_of(url, Timeouts(total_s=0.1))


async def test_a_refusal_that_never_ends_is_not_waited_for() -> None:
    async with dribbling(REFUSED) as url:
        assert "UPSTREAM_FIRST_BYTE_TIMEOUT_S" in await timeout_of(url, Timeouts(first_byte_s=0.2), stream=True)


async def test_a_stream_may_last_longer_than_a_whole_answer(simulator: Simulator) -> None:
    async with client_of(simulator.base_url, timeouts=Timeouts(total_s=0.05)) as client:
        chunks = await chunks_of(client, "[sim tokens=20 itl=0.02]")

    assert chunks[-1]["choices"][0]["finish_reason"]


@pytest.mark.parametrize(
    ("answer", "setting"),
    [
        pytest.param(b"", "upstream_first_byte_timeout_s", id="first byte"),
        pytest.param(BEGUN, "upstream_idle_timeout_s", id="idle"),
        pytest.param(BEGUN, "upstream_total_timeout_s", id="total"),
    ],
)
async def test_the_client_is_told_the_setting(answer: bytes, setting: str) -> None:
    async with (
        silent_after(answer) as upstream,
        served_over(upstream, **{setting: 0.1}) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        response = await client.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]})

    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (504, "Gateway Timeout")
    assert f"0.1 s ({setting.upper()})" in error["message"]


async def test_the_client_is_told_of_the_connection_too() -> None:
    async def converse(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(converse) as upstream:
        settings = {"upstream_connect_timeout_s": 0.1, "upstream_max_attempts": 1}
        async with served_over(upstream.replace("http:", "https:"), **settings) as url, httpx.AsyncClient() as client:
            body = {"messages": [{"role": "user", "content": "hi"}]}
            response = await client.post(url + CHAT, json=body)

    assert (response.status_code, "UPSTREAM_CONNECT_TIMEOUT_S" in response.text) == (504, True)
