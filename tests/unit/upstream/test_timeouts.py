"""Every wait for OpenAI has its own timeout, and the error names it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest

from app.simulator.server import Simulator
from app.upstream.timeouts import Timeouts
from tests.conftest import CHAT
from tests.raw_upstream import (
    GOOD,
    SSE_HEAD,
    chunks_in,
    chunks_of,
    client_of,
    event,
    http_chunk,
    raw_server,
    read_request,
    request,
)
from tests.serving import served_over

PARTIAL_RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"
PARTIAL_ERROR_RESPONSE = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"


@asynccontextmanager
async def dribbling(head: bytes) -> AsyncIterator[str]:
    """An upstream that never completes its response, and never pauses for long."""

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
async def silent_after(response: bytes) -> AsyncIterator[str]:
    """An upstream that sends `response` and no more."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(response)
        await reader.read()

    async with raw_server(converse) as url:
        yield url


async def timeout_of(url: str, timeouts: Timeouts, *, content: Any = "hi", stream: bool = False) -> str:
    """The error message of a call with these timeouts."""
    async with client_of(url, timeouts=timeouts, max_attempts=1) as client:
        call = client.stream_chat_completion if stream else client.create_chat_completion
        with pytest.raises(openai.APITimeoutError) as caught:
            async with asyncio.timeout(60):
                await call(request(content, stream=stream))
    return str(caught.value)


async def test_connecting_has_a_timeout() -> None:
    async def converse(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    # It accepts the connection and never starts the TLS handshake.
    async with raw_server(converse) as url:
        message = await timeout_of(url.replace("http:", "https:"), Timeouts(connect_s=0.1))

    assert message == "The upstream service accepted no connection within 0.1 s (UPSTREAM_CONNECT_TIMEOUT_S)."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("received", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["nothing", "half the headers"])
async def test_the_first_byte_has_a_timeout(received: bytes, stream: bool) -> None:
    async with silent_after(received) as url:
        message = await timeout_of(url, Timeouts(first_byte_s=0.1), stream=stream)

    assert message == "The upstream service did not start its response within 0.1 s (UPSTREAM_FIRST_BYTE_TIMEOUT_S)."


async def test_sending_a_request_has_a_timeout() -> None:
    finished = asyncio.Event()

    async def converse(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await finished.wait()

    async with raw_server(converse) as url:
        # Larger than the kernel's buffers, which would take it. An image, because the tokens of a text are counted.
        image = {"type": "image_url", "image_url": "data:image/png;base64," + "A" * 8_000_000}
        message = await timeout_of(url, Timeouts(first_byte_s=0.3), content=[image])
        finished.set()

    assert "UPSTREAM_FIRST_BYTE_TIMEOUT_S" in message


async def test_a_pause_in_a_json_response_has_a_timeout() -> None:
    async with silent_after(PARTIAL_RESPONSE) as url:
        message = await timeout_of(url, Timeouts(idle_s=0.1))

    assert message == "The upstream service sent nothing during its response for 0.1 s (UPSTREAM_IDLE_TIMEOUT_S)."


async def test_a_stalled_stream_fails_after_its_last_event() -> None:
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


async def test_a_json_response_has_a_total_timeout() -> None:
    async with dribbling(PARTIAL_RESPONSE) as url:
        message = await timeout_of(url, Timeouts(total_s=0.2))

    assert message == "The upstream service did not complete its response within 0.2 s (UPSTREAM_TOTAL_TIMEOUT_S)."


async def test_the_total_timeout_includes_the_wait_for_the_first_byte() -> None:
    async with silent_after(b"") as url:
        assert "UPSTREAM_TOTAL_TIMEOUT_S" in await timeout_of(url, Timeouts(total_s=0.1))


async def test_an_error_response_to_a_stream_request_has_a_timeout() -> None:
    async with dribbling(PARTIAL_ERROR_RESPONSE) as url:
        assert "UPSTREAM_FIRST_BYTE_TIMEOUT_S" in await timeout_of(url, Timeouts(first_byte_s=0.2), stream=True)


async def test_a_stream_has_no_total_timeout(simulator: Simulator) -> None:
    async with client_of(simulator.base_url, timeouts=Timeouts(total_s=0.05)) as client:
        chunks = await chunks_of(client, "[sim tokens=20 itl=0.02]")

    assert chunks[-1]["choices"][0]["finish_reason"]


@pytest.mark.parametrize(
    ("upstream_response", "setting"),
    [
        pytest.param(b"", "upstream_first_byte_timeout_s", id="first byte"),
        pytest.param(PARTIAL_RESPONSE, "upstream_idle_timeout_s", id="idle"),
        pytest.param(PARTIAL_RESPONSE, "upstream_total_timeout_s", id="total"),
    ],
)
async def test_a_timeout_error_names_the_setting(upstream_response: bytes, setting: str) -> None:
    async with (
        silent_after(upstream_response) as upstream,
        served_over(upstream, **{setting: 0.1}) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        response = await client.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]})

    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (504, "Gateway Timeout")
    assert f"0.1 s ({setting.upper()})" in error["message"]


async def test_a_connect_timeout_error_names_the_setting() -> None:
    async def converse(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(converse) as upstream:
        settings = {"upstream_connect_timeout_s": 0.1, "upstream_max_attempts": 1}
        async with served_over(upstream.replace("http:", "https:"), **settings) as url, httpx.AsyncClient() as client:
            body = {"messages": [{"role": "user", "content": "hi"}]}
            response = await client.post(url + CHAT, json=body)

    assert (response.status_code, "UPSTREAM_CONNECT_TIMEOUT_S" in response.text) == (504, True)
