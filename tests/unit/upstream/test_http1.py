"""Requests to OpenAI, its responses and its connections, byte by byte."""

import asyncio
import gzip
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import aiohttp
import openai
import pytest
import uvloop

from app.features.llm.client import OpenAIClient
from app.upstream.http1_endpoint import Endpoint
from app.upstream.http1_protocol import ResponseProtocol
from app.upstream.session import new_session
from app.upstream.timeouts import Timeouts
from tests.raw_upstream import (
    FINISH,
    GOOD,
    OK,
    chunks_of,
    client_of,
    event,
    http_response,
    raw_server,
    read_request,
    request,
    tls,
)


class Upstream:
    """Sends the same response to every request, and keeps the requests."""

    def __init__(self, response: bytes = http_response(OK), *, then_closes: bool = False) -> None:
        self.response = response
        self.then_closes = then_closes
        self.requests: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            self.requests.append(await read_request(reader))
            writer.write(self.response)
            if self.then_closes:
                return


def headers_of(head: bytes) -> list[tuple[str, str]]:
    """The headers of a request, in order."""
    lines = head.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]


async def test_a_request_has_each_header_once_and_no_cookie() -> None:
    upstream = Upstream(http_response(OK, headers="set-cookie: a=b\r\n"))
    async with raw_server(upstream) as url, client_of(url) as client:
        for _ in range(2):
            await client.create_chat_completion(request())

    port = url.split(":")[2].removesuffix("/v1")
    for sent in upstream.requests:
        head, _, body = sent.partition(b"\r\n\r\n")
        headers = dict(headers_of(head))
        assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert len(headers) == len(headers_of(head))
        assert headers["host"] == f"127.0.0.1:{port}"
        assert headers["authorization"] == "Bearer sk-test"
        assert headers["content-type"] == "application/json"
        assert headers["content-length"] == str(len(body))
        assert headers["accept-encoding"] == "identity"
        assert "cookie" not in headers
    assert upstream.connections == 1


async def test_a_request_without_a_body_has_no_content_length() -> None:
    heads: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http_response(b'{"data": [{"id": "m"}]}'))

    async with raw_server(converse) as url, client_of(url) as client:
        assert await client.list_models() == {"m": None}

    assert heads[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert "content-length" not in dict(headers_of(heads[0]))


async def test_headers_of_the_session_are_sent() -> None:
    upstream = Upstream()
    async with raw_server(upstream) as url, aiohttp.ClientSession(headers={"X-Mine": "1", "accept": "x"}) as session:
        await OpenAIClient("sk-test", url, session=session).create_chat_completion(request())

    assert ("x-mine", "1") in headers_of(upstream.requests[0])
    assert [value for name, value in headers_of(upstream.requests[0]) if name == "accept"] == ["application/json"]


async def test_a_session_without_keep_alive_sends_connection_close() -> None:
    upstream = Upstream()
    async with (
        raw_server(upstream) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        client = OpenAIClient("sk-test", url, session=session)
        for _ in range(2):
            await client.create_chat_completion(request())

    assert all(("connection", "close") in headers_of(sent) for sent in upstream.requests)
    assert upstream.connections == 2


async def test_a_key_with_a_line_break_is_not_sent() -> None:
    upstream = Upstream()
    async with raw_server(upstream) as url, new_session() as session:
        endpoint = Endpoint(session, "POST", url, {}, proxy=None, connect_s=60)
        with pytest.raises(ValueError, match="one line"):
            await endpoint.send("sk-\r\nX: y", b"{}", headers_deadline_s=asyncio.get_running_loop().time() + 60)

    assert upstream.requests == []


async def test_a_plain_request_through_a_proxy_has_an_absolute_url(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Upstream()
    async with raw_server(proxy) as url:
        monkeypatch.setenv("HTTP_PROXY", url.removesuffix("/v1").replace("http://", "http://me:secret@"))
        monkeypatch.setenv("NO_PROXY", "")
        async with client_of("http://api.example.test/v1") as client:
            for _ in range(2):
                await client.create_chat_completion(request())

    for sent in proxy.requests:
        assert sent.startswith(b"POST http://api.example.test/v1/chat/completions HTTP/1.1\r\n")
        assert ("host", "api.example.test") in headers_of(sent)
        assert ("proxy-authorization", "Basic bWU6c2VjcmV0") in headers_of(sent)
        assert ("authorization", "Bearer sk-test") in headers_of(sent)
    assert (len(proxy.requests), proxy.connections) == (2, 1)


async def test_a_tls_request_through_a_proxy_uses_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    context, trusting = tls()
    upstream, tunnels = Upstream(), []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tunnels.append(await reader.readuntil(b"\r\n\r\n"))
        _, port = tunnels[-1].split()[1].split(b":")
        upstream_reader, upstream_writer = await asyncio.open_connection("localhost", int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copy(reader, upstream_writer), copy(upstream_reader, writer))

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
        writer.close()

    async with raw_server(upstream, context) as url, raw_server(tunnel) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.removesuffix("/v1").replace("http://", "http://me:secret@"))
        monkeypatch.setenv("NO_PROXY", "")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
            client = OpenAIClient("sk-test", url, session=session)
            for _ in range(2):
                await client.create_chat_completion(request())

    authority = url.removeprefix("https://").removesuffix("/v1")
    assert len(tunnels) == 1
    assert tunnels[0].startswith(f"CONNECT {authority} HTTP/1.1\r\n".encode())
    assert ("proxy-authorization", "Basic bWU6c2VjcmV0") in headers_of(tunnels[0])
    assert b"sk-test" not in tunnels[0]
    for sent in upstream.requests:
        assert sent.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert "proxy-authorization" not in dict(headers_of(sent))


CLOSE = "connection: close\r\n"


@pytest.mark.parametrize(
    ("response", "then_closes", "connections"),
    [
        pytest.param(http_response(OK), False, 1, id="keep-alive"),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n" + http_response(OK),
            False,
            1,
            id="interim responses",
        ),
        pytest.param(http_response(OK, headers=CLOSE), False, 2, id="connection close"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + OK, True, 2, id="body until the connection ends"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\n" + OK, True, 2, id="HTTP/1.0"),
        pytest.param(http_response(gzip.compress(OK), headers="content-encoding: gzip\r\n"), False, 1, id="compressed"),
        pytest.param(http_response(OK) + http_response(b"{}"), False, 2, id="unsolicited response"),
    ],
)
async def test_a_response_is_read_and_its_connection_reused_if_possible(
    response: bytes, then_closes: bool, connections: int
) -> None:
    upstream = Upstream(response, then_closes=then_closes)
    async with raw_server(upstream) as url, client_of(url) as client:
        for _ in range(2):
            assert (await client.create_chat_completion(request())).id == "chatcmpl-1"

    assert (len(upstream.requests), upstream.connections) == (2, connections)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_a_response_without_a_body_is_complete_at_once(status: str) -> None:
    upstream = Upstream(f"HTTP/1.1 {status}\r\n\r\n".encode())
    async with raw_server(upstream) as url, client_of(url) as client:
        for _ in range(2):
            with pytest.raises(openai.APIStatusError) as caught:
                await client.create_chat_completion(request())
            assert caught.value.status_code == int(status[:3])

    assert upstream.connections == 1


async def test_a_compressed_stream_is_decompressed() -> None:
    body = gzip.compress(event(GOOD) + event(FINISH) + b"data: [DONE]\n\n")
    headers = "content-type: Text/Event-Stream; charset=utf-8\r\ncontent-encoding: gzip\r\n"
    async with raw_server(Upstream(http_response(body, headers=headers))) as url, client_of(url) as client:
        chunks = await chunks_of(client)

    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@asynccontextmanager
async def endpoint_of(url: str) -> AsyncIterator[Endpoint]:
    async with new_session() as session:
        yield Endpoint(session, "POST", url, {}, proxy=None, connect_s=60)


async def response_from(endpoint: Endpoint) -> ResponseProtocol:
    return await endpoint.send("sk-test", b"{}", headers_deadline_s=asyncio.get_running_loop().time() + 60)


async def test_headers_are_neither_interim_nor_trailers() -> None:
    raw_response = (
        b"HTTP/1.1 103 Early Hints\r\nx-early: 1\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nX-Ours: 1\r\nx-ours: 2\r\ntransfer-encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\nx-late: 1\r\n\r\n"
    )
    async with raw_server(Upstream(raw_response)) as url, endpoint_of(url) as endpoint:
        response = await response_from(endpoint)
        assert await response.read() == b"ok"
        assert response.headers == {"x-ours": "1", "transfer-encoding": "chunked"}


async def test_bytes_before_the_request_are_parsed() -> None:
    async def converse(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(converse) as url, endpoint_of(url) as endpoint:
        connection = await endpoint._connect(60)
        assert connection.protocol is not None
        # As if they had arrived before our protocol took over, which a test cannot time.
        connection.protocol.data_received(http_response(OK))
        response = ResponseProtocol(connection)
        response.send(b"GET / HTTP/1.1\r\n\r\n", None)
        assert await response.read() == OK


async def test_switching_protocols_is_a_response_without_a_body() -> None:
    raw_response = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nxxx"
    async with raw_server(Upstream(raw_response)) as url, client_of(url) as client, asyncio.timeout(60):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.create_chat_completion(request())

    assert caught.value.status_code == 101


async def test_reading_from_the_network_pauses_while_the_body_is_unread() -> None:
    whole, piece = 64 * 2**20, b"x" * 2**20
    sent, stuck = 0, asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % whole)
            for _ in range(whole // len(piece)):
                writer.write(piece)
                try:
                    async with asyncio.timeout(0.2):
                        await writer.drain()
                except TimeoutError:
                    stuck.set()
                    await writer.drain()
                sent += len(piece)
            stuck.set()

    async with raw_server(converse) as url, endpoint_of(url) as endpoint:
        for _ in range(2):
            sent, response = 0, await response_from(endpoint)
            await stuck.wait()
            assert sent < whole / 2
            read = 0
            while data := await response.read():
                read += len(data)
            assert read == whole
            stuck.clear()


async def test_a_highly_compressed_response_is_read_in_bounded_parts() -> None:
    body = b"x" * 5_000_000
    upstream = Upstream(http_response(gzip.compress(body), headers="content-encoding: gzip\r\n"))
    async with raw_server(upstream) as url, endpoint_of(url) as endpoint:
        response, pieces = await response_from(endpoint), []
        while piece := await response.read():
            pieces.append(piece)

    assert b"".join(pieces) == body
    assert max(map(len, pieces)) < len(body)


async def test_an_invalid_content_type_is_not_a_stream() -> None:
    raw_response = b"HTTP/1.1 200 OK\r\ncontent-type: text/\xff\r\ncontent-length: 0\r\n\r\n"
    async with raw_server(Upstream(raw_response)) as url, client_of(url) as client:
        with pytest.raises(openai.APIResponseValidationError):
            await client.stream_chat_completion(request(stream=True))


@pytest.mark.parametrize(
    "raw_response",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="not HTTP"),
        pytest.param(b"HTTP/1.1 2x0 OK\r\n\r\n", id="no status code"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, id="endless header"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 12_000, id="endless headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", id="invalid content length"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", id="invalid chunk"),
        pytest.param(http_response(b"no gzip", headers="content-encoding: gzip\r\n"), id="not compressed"),
    ],
)
async def test_an_invalid_response_is_a_broken_connection(raw_response: bytes) -> None:
    upstream = Upstream(raw_response)
    async with raw_server(upstream) as url, client_of(url) as client:
        with pytest.raises(openai.APIConnectionError, match="broke"):
            await client.create_chat_completion(request())

    assert len(upstream.requests) == 1


async def test_unsolicited_bytes_are_not_the_next_response() -> None:
    idle = asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(http_response(OK))
        await idle.wait()
        writer.write(http_response(b'{"id":"unsolicited"}'))
        await reader.read()

    async with raw_server(converse) as url, new_session() as session:
        client = OpenAIClient("sk-test", url, session=session)
        await client.create_chat_completion(request())
        idle.set()
        assert session.connector is not None
        ((waiting, _),) = next(iter(session.connector._conns.values()))
        async with asyncio.timeout(60):
            while not waiting.should_close:  # noqa: ASYNC110 - aiohttp has no event for it
                await asyncio.sleep(0)
        assert (await client.create_chat_completion(request())).id == "chatcmpl-1"


async def test_models_request_is_retried_only_on_a_stale_connection() -> None:
    requests = 0

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while True:
            await reader.readuntil(b"\r\n\r\n")
            requests += 1
            if requests != 2:
                return
            writer.write(http_response(b'{"data": []}'))

    async with raw_server(converse) as url, client_of(url) as client:
        with pytest.raises(openai.APIConnectionError):
            await client.list_models()
        await client.list_models()
        with pytest.raises(openai.APIConnectionError):
            await client.list_models()

    # The third call is made on the second's connection, and then on a new one.
    assert requests == 4


@pytest.mark.parametrize(
    ("received", "expected_requests"), [(b"", 3), (b"HTTP/1.1 200 OK\r\n", 2)], ids=["nothing", "a line"]
)
async def test_a_reset_is_retried_only_before_the_first_byte(received: bytes, expected_requests: int) -> None:
    requests = 0

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while True:
            await read_request(reader)
            requests += 1
            if requests == 2:
                break
            writer.write(http_response(OK))
        writer.write(received)
        await writer.drain()
        # With this option, closing resets the connection.
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with raw_server(converse) as url, client_of(url) as client:
        await client.create_chat_completion(request())
        with nullcontext() if expected_requests == 3 else pytest.raises(openai.APIConnectionError):
            await client.create_chat_completion(request())

    assert requests == expected_requests


@asynccontextmanager
async def single_connection_client(url: str, **timeouts: float) -> AsyncIterator[OpenAIClient]:
    """A client with one connection and one attempt."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        yield OpenAIClient("sk-test", url, session=session, timeouts=Timeouts(**timeouts), max_attempts=1)


async def test_a_call_waits_for_a_free_connection() -> None:
    upstream = Upstream()
    async with raw_server(upstream) as url, single_connection_client(url) as client:
        await asyncio.gather(*(client.create_chat_completion(request()) for _ in range(5)))

    assert (len(upstream.requests), upstream.connections) == (5, 1)


@pytest.mark.parametrize(
    ("timeouts", "setting"),
    [({"connect_s": 0.1}, "UPSTREAM_CONNECT_TIMEOUT_S"), ({"first_byte_s": 0.1}, "UPSTREAM_FIRST_BYTE_TIMEOUT_S")],
    ids=["connect", "first byte"],
)
async def test_the_wait_for_a_free_connection_has_a_timeout(timeouts: dict[str, float], setting: str) -> None:
    request_received = asyncio.Event()

    async def converse(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        request_received.set()
        await reader.read()

    async with (
        raw_server(converse) as url,
        single_connection_client(url, **timeouts) as client,
        single_connection_client(url) as patient,
    ):
        client.attach(patient._upstream.session)  # type: ignore[arg-type]
        holding = asyncio.create_task(patient.create_chat_completion(request()))
        await request_received.wait()
        with pytest.raises(openai.APITimeoutError, match=setting):
            await client.create_chat_completion(request())
        holding.cancel()


async def test_a_cancellation_at_the_deadline_is_a_cancellation() -> None:
    finished = asyncio.Event()

    async def converse(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await finished.wait()

    loop = asyncio.get_running_loop()
    async with raw_server(converse) as url, new_session() as session:
        endpoint = Endpoint(session, "POST", url, {}, proxy=None, connect_s=60)
        for before in (True, False):
            at_s = loop.time() + 0.05
            call = asyncio.create_task(endpoint.send("sk-test", b"{}", headers_deadline_s=at_s))
            # Deadline and cancellation are due in the same step of the event loop, in either order.
            loop.call_at(at_s - 1e-9 if before else at_s + 1e-9, call.cancel)
            await asyncio.wait([call])
            assert call.cancelled()
        finished.set()


async def test_a_deadline_does_not_leak_into_the_next_call() -> None:
    later = asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(http_response(OK))
        await read_request(reader)
        await later.wait()
        writer.write(http_response(b"again"))

    loop = asyncio.get_running_loop()
    async with raw_server(converse) as url, new_session() as session:
        endpoint = Endpoint(session, "POST", url, {}, proxy=None, connect_s=60)
        limit_s = loop.time() + 0.1
        assert await (await endpoint.send("sk-test", b"{}", headers_deadline_s=limit_s)).read() == OK
        loop.call_at(limit_s + 0.05, later.set)
        assert await (await endpoint.send("sk-test", b"{}", headers_deadline_s=limit_s + 5)).read() == b"again"


async def _reused() -> int:
    upstream = Upstream()
    async with raw_server(upstream) as url, client_of(url) as client:
        for _ in range(3):
            await client.create_chat_completion(request())
    assert len(upstream.requests) == 3
    return upstream.connections


async def _reused_after_a_large_body() -> int:
    upstream = Upstream()
    image = {"type": "image_url", "image_url": "data:image/png;base64," + "A" * 3_000_000}
    async with raw_server(upstream) as url, client_of(url) as client:
        for _ in range(2):
            await client.create_chat_completion(request([image]))  # type: ignore[arg-type]
    assert min(map(len, upstream.requests)) > 3_000_000
    return upstream.connections


async def _reused_over_tls() -> int:
    context, trusting = tls()
    stream = http_response(
        event(GOOD) + event(FINISH) + b"data: [DONE]\n\n", headers="content-type: text/event-stream\r\n"
    )
    upstream = Upstream(stream)
    async with (
        raw_server(upstream, context) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session,
    ):
        client = OpenAIClient("sk-test", url, session=session)
        for _ in range(3):
            assert (await chunks_of(client))[-1]["choices"][0]["finish_reason"] == "stop"
    assert len(upstream.requests) == 3
    return upstream.connections


@pytest.mark.parametrize("scenario", [_reused, _reused_after_a_large_body, _reused_over_tls])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_connections_are_reused_on_either_event_loop(
    run: Callable[[Coroutine[Any, Any, int]], int], scenario: Callable[[], Coroutine[Any, Any, int]]
) -> None:
    assert run(scenario()) == 1
