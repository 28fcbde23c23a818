"""Requests that are larger than what the network holds: what becomes of the part that has not been sent."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import aiohttp
import openai
import pytest

from app.features.llm.client import OpenAIClient
from app.features.llm.schema import ChatCompletionRequest
from app.features.llm.timeouts import Timeouts
from tests.unit.features.llm.test_client import OK, client_of, http_answer, raw_server, read_request, request, tls

LARGE = 12_000_000


def large() -> ChatCompletionRequest:
    # An image: a text would be counted first.
    return request([{"type": "image_url", "image_url": "data:image/png;base64," + "A" * LARGE}])  # type: ignore[arg-type]


class Unread:
    """Reads no more than the head of a request, answers, and reads the rest once it is told to."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer
        self.begun = asyncio.Event()
        self.may_read = asyncio.Event()
        self.over = asyncio.Event()
        self.received = 0
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        self.begun.set()
        writer.write(self.answer)
        await self.may_read.wait()
        with suppress(ConnectionError):
            while data := await reader.read(2**20):
                self.received += len(data)
        self.over.set()

    async def ends(self) -> None:
        """Read what there is, until the connection ends."""
        self.may_read.set()
        async with asyncio.timeout(60):
            await self.over.wait()


@pytest.mark.parametrize("closing", ["", "connection: close\r\n"], ids=["kept alive", "closed"])
async def test_an_answer_before_the_end_of_the_request_is_the_answer(closing: str) -> None:
    upstream = Unread(http_answer(b"{}", status="413 Content Too Large", headers=closing))
    async with raw_server(upstream) as url, client_of(url) as client:
        for _ in range(2):
            with pytest.raises(openai.APIStatusError) as caught:
                async with asyncio.timeout(60):
                    await client.create_chat_completion(large())
            assert caught.value.status_code == 413
        await upstream.ends()

    assert upstream.connections == 2
    assert upstream.received < LARGE


@asynccontextmanager
async def plain(upstream: Unread) -> AsyncIterator[OpenAIClient]:
    async with raw_server(upstream) as url, client_of(url) as client:
        yield client


@asynccontextmanager
async def over_tls(upstream: Unread) -> AsyncIterator[OpenAIClient]:
    context, trusting = tls()
    async with (
        raw_server(upstream, context) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session,
    ):
        yield OpenAIClient("sk-test", url, session=session)


@pytest.mark.parametrize("client_over", [plain, over_tls])
async def test_a_call_that_is_cancelled_is_not_sent_to_its_end(
    client_over: Callable[[Unread], AbstractAsyncContextManager[OpenAIClient]],
) -> None:
    upstream = Unread()
    async with client_over(upstream) as client:
        call = asyncio.create_task(client.create_chat_completion(large()))
        await upstream.begun.wait()
        call.cancel()
        await asyncio.wait([call])
        await upstream.ends()

    assert call.cancelled()
    assert upstream.received < LARGE


async def test_a_call_that_takes_too_long_is_not_sent_to_its_end() -> None:
    upstream = Unread()
    async with raw_server(upstream) as url, client_of(url, timeouts=Timeouts(first_byte_s=0.2)) as client:
        with pytest.raises(openai.APITimeoutError, match="UPSTREAM_FIRST_BYTE_TIMEOUT_S"):
            await client.create_chat_completion(large())
        await upstream.ends()

    assert upstream.received < LARGE


async def test_an_upstream_that_closes_before_the_end_of_the_request_is_not_asked_again() -> None:
    connections = 0

    async def converse(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")

    async with raw_server(converse) as url, client_of(url) as client:
        with pytest.raises(openai.APIConnectionError, match="broke"):
            await client.create_chat_completion(large())

    assert connections == 1


async def test_a_slow_reader_gets_the_whole_request() -> None:
    asked: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            asked.append(await read_request(reader))
            writer.write(http_answer(OK))

    async with raw_server(converse) as url, client_of(url) as client:
        await client.create_chat_completion(large())
        await client.create_chat_completion(request())

    assert asked[0].count(b"A") >= LARGE
    assert asked[1].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
