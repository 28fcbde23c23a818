"""Requests larger than the network's buffers, and their unsent part when the call ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import aiohttp
import openai
import pytest

from app.features.llm.client import OpenAIClient
from app.features.llm.schema import ChatCompletionRequest
from app.upstream.timeouts import Timeouts
from tests.raw_upstream import OK, client_of, http_response, raw_server, read_request, request, tls

LARGE = 12_000_000


def large_request() -> ChatCompletionRequest:
    # An image, because the tokens of a text are counted.
    return request([{"type": "image_url", "image_url": "data:image/png;base64," + "A" * LARGE}])  # type: ignore[arg-type]


class SlowReader:
    """An upstream that responds after the headers of a request, and reads its body only when `may_read` is set."""

    def __init__(self, response: bytes = b"") -> None:
        self.response = response
        self.headers_received = asyncio.Event()
        self.may_read = asyncio.Event()
        self.disconnected = asyncio.Event()
        self.received_bytes = 0
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        self.headers_received.set()
        writer.write(self.response)
        await self.may_read.wait()
        with suppress(ConnectionError):
            while data := await reader.read(2**20):
                self.received_bytes += len(data)
        self.disconnected.set()

    async def read_to_the_end(self) -> None:
        """Read what was sent until the client disconnects."""
        self.may_read.set()
        async with asyncio.timeout(60):
            await self.disconnected.wait()


@pytest.mark.parametrize("closing", ["", "connection: close\r\n"], ids=["kept alive", "closed"])
async def test_a_response_may_arrive_before_the_request_is_sent(closing: str) -> None:
    upstream = SlowReader(http_response(b"{}", status="413 Content Too Large", headers=closing))
    async with raw_server(upstream) as url, client_of(url) as client:
        for _ in range(2):
            with pytest.raises(openai.APIStatusError) as caught:
                async with asyncio.timeout(60):
                    await client.create_chat_completion(large_request())
            assert caught.value.status_code == 413
        await upstream.read_to_the_end()

    assert upstream.connections == 2
    assert upstream.received_bytes < LARGE


@asynccontextmanager
async def over_tcp(upstream: SlowReader) -> AsyncIterator[OpenAIClient]:
    async with raw_server(upstream) as url, client_of(url) as client:
        yield client


@asynccontextmanager
async def over_tls(upstream: SlowReader) -> AsyncIterator[OpenAIClient]:
    context, trusting = tls()
    async with (
        raw_server(upstream, context) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session,
    ):
        yield OpenAIClient("sk-test", url, session=session)


@pytest.mark.parametrize("client_over", [over_tcp, over_tls])
async def test_a_cancelled_call_stops_sending(
    client_over: Callable[[SlowReader], AbstractAsyncContextManager[OpenAIClient]],
) -> None:
    upstream = SlowReader()
    async with client_over(upstream) as client:
        call = asyncio.create_task(client.create_chat_completion(large_request()))
        await upstream.headers_received.wait()
        call.cancel()
        await asyncio.wait([call])
        await upstream.read_to_the_end()

    assert call.cancelled()
    assert upstream.received_bytes < LARGE


async def test_a_call_that_times_out_stops_sending() -> None:
    upstream = SlowReader()
    async with raw_server(upstream) as url, client_of(url, timeouts=Timeouts(first_byte_s=0.2)) as client:
        with pytest.raises(openai.APITimeoutError, match="UPSTREAM_FIRST_BYTE_TIMEOUT_S"):
            await client.create_chat_completion(large_request())
        await upstream.read_to_the_end()

    assert upstream.received_bytes < LARGE


async def test_a_connection_closed_while_sending_is_not_retried() -> None:
    connections = 0

    async def converse(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")

    async with raw_server(converse) as url, client_of(url) as client:
        with pytest.raises(openai.APIConnectionError, match="broke"):
            await client.create_chat_completion(large_request())

    assert connections == 1


async def test_a_large_request_is_sent_completely() -> None:
    requests: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            requests.append(await read_request(reader))
            writer.write(http_response(OK))

    async with raw_server(converse) as url, client_of(url) as client:
        await client.create_chat_completion(large_request())
        await client.create_chat_completion(request())

    assert requests[0].count(b"A") >= LARGE
    assert requests[1].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
