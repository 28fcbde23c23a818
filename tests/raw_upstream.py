"""Upstreams that send exactly what a test writes, on a raw socket, and clients of them."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trustme

from app.features.llm.client import OpenAIClient
from app.features.llm.schema import ChatCompletionRequest
from app.upstream.session import new_session

OK = (
    b'{"id":"chatcmpl-1","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}'
)


def request(text: str = "Say hello", **fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest(messages=[{"role": "user", "content": text}], **fields)


def http_response(content: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}content-length: {len(content)}\r\n\r\n".encode() + content


@asynccontextmanager
async def client_of(base_url: str, **options: Any) -> AsyncIterator[OpenAIClient]:
    async with new_session() as session:
        yield OpenAIClient("sk-test", base_url, session=session, **options)


Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(converse: Conversation, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A raw TCP server, with TLS for localhost if given; yields its base URL."""

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
    server = await asyncio.start_server(on_connection, host, 0, ssl=tls)
    async with server:
        yield f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}/v1"


def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server context for localhost and a client context that trusts it."""
    authority, context, trusting = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(trusting)
    return context, trusting


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head + await reader.readexactly(int(length.split(b":")[1]))


def chunks_in(events: bytes) -> list[Any]:
    """The chunks that a stream's events carry."""
    *whole, rest = events.split(b"\n\n")
    assert rest == b""
    return [json.loads(event.removeprefix(b"data: ")) for event in whole]


async def chunks_of(client: OpenAIClient, text: str = "Say hello") -> list[Any]:
    stream = await client.stream_chat_completion(request(text, stream=True))
    try:
        return [chunk async for events in stream for chunk in chunks_in(events)]
    finally:
        await stream.aclose()


SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
GOOD: dict[str, Any] = {
    "id": "chatcmpl-1",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": None}],
}
FINISH: dict[str, Any] = {**GOOD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def event(body: object) -> bytes:
    return b"data: %b\n\n" % json.dumps(body).encode()


def http_chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


@asynccontextmanager
async def answering(*writes: bytes) -> AsyncIterator[str]:
    """An upstream that sends these bytes for each request and closes."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for content in writes:
            writer.write(content)
            await writer.drain()

    async with raw_server(converse) as url:
        yield url
