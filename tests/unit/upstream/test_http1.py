"""What goes over the wire to OpenAI, and what becomes of its answers and its connections, byte by byte."""

import asyncio
import gzip
import inspect
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import aiohttp
import openai
import pytest
import uvloop
from aiohttp.client_proto import ResponseHandler

from app.features.llm.client import OpenAIClient
from app.upstream.http1_endpoint import Endpoint
from app.upstream.http1_protocol import ResponseProtocol
from app.upstream.session import new_session
from app.upstream.timeouts import Timeouts
from tests.unit.features.llm.test_client import (
    OK,
    chunks_of,
    client_of,
    http_answer,
    raw_server,
    read_request,
    request,
    tls,
)
from tests.unit.features.llm.test_client_damage import FINISH, GOOD, event


class Upstream:
    """Notes the requests it gets, and gives each connection's the same answer."""

    def __init__(self, answer: bytes = http_answer(OK), *, then_closes: bool = False) -> None:
        self.response = answer
        self.then_closes = then_closes
        self.asked: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            self.asked.append(await read_request(reader))
            writer.write(self.response)
            if self.then_closes:
                return


def fields(head: bytes) -> list[tuple[str, str]]:
    """The header fields of a request, in order."""
    lines = head.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]


# --- requests ---------------------------------------------------------------------------------------------------------


async def test_a_request_says_each_thing_once_and_nothing_of_an_earlier_answer() -> None:
    upstream = Upstream(http_answer(OK, headers="set-cookie: a=b\r\n"))
    async with raw_server(upstream) as url, client_of(url) as client:
        for _ in range(2):
            await client.create_chat_completion(request())

    port = url.split(":")[2].removesuffix("/v1")
    for asked in upstream.asked:
        head, _, body = asked.partition(b"\r\n\r\n")
        told = dict(fields(head))
        assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert len(told) == len(fields(head))
        assert told["host"] == f"127.0.0.1:{port}"
        assert told["authorization"] == "Bearer sk-test"
        assert told["content-type"] == "application/json"
        assert told["content-length"] == str(len(body))
        assert told["accept-encoding"] == "identity"
        assert "cookie" not in told
    assert upstream.connections == 1


async def test_a_request_without_a_body_has_no_length() -> None:
    heads: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http_answer(b'{"data": [{"id": "m"}]}'))

    async with raw_server(converse) as url, client_of(url) as client:
        assert await client.list_models() == ["m"]

    assert heads[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert "content-length" not in dict(fields(heads[0]))


async def test_a_sessions_own_headers_go_with_each_request() -> None:
    upstream = Upstream()
    async with raw_server(upstream) as url, aiohttp.ClientSession(headers={"X-Mine": "1", "accept": "x"}) as session:
        await OpenAIClient("sk-test", url, session=session).create_chat_completion(request())

    assert ("x-mine", "1") in fields(upstream.asked[0])
    assert [value for name, value in fields(upstream.asked[0]) if name == "accept"] == ["application/json"]


async def test_a_session_that_keeps_no_connection_says_so() -> None:
    upstream = Upstream()
    async with (
        raw_server(upstream) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        client = OpenAIClient("sk-test", url, session=session)
        for _ in range(2):
            await client.create_chat_completion(request())

    assert all(("connection", "close") in fields(asked) for asked in upstream.asked)
    assert upstream.connections == 2


async def test_a_key_that_would_add_a_header_is_not_sent() -> None:
    upstream = Upstream()
    async with raw_server(upstream) as url, new_session() as session:
        endpoint = Endpoint(session, "POST", url, {}, proxy=None, connect_s=5)
        with pytest.raises(ValueError, match="one line"):
            await endpoint.send("sk-\r\nX: y", b"{}", begin_by_s=asyncio.get_running_loop().time() + 5)

    assert upstream.asked == []


# --- proxies ----------------------------------------------------------------------------------------------------------


async def test_a_plain_upstream_is_asked_for_by_its_whole_address(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Upstream()
    async with raw_server(proxy) as url:
        monkeypatch.setenv("HTTP_PROXY", url.removesuffix("/v1").replace("http://", "http://me:secret@"))
        monkeypatch.setenv("NO_PROXY", "")
        async with client_of("http://api.example.test/v1") as client:
            for _ in range(2):
                await client.create_chat_completion(request())

    for asked in proxy.asked:
        assert asked.startswith(b"POST http://api.example.test/v1/chat/completions HTTP/1.1\r\n")
        assert ("host", "api.example.test") in fields(asked)
        assert ("proxy-authorization", "Basic bWU6c2VjcmV0") in fields(asked)
        assert ("authorization", "Bearer sk-test") in fields(asked)
    assert (len(proxy.asked), proxy.connections) == (2, 1)


async def test_a_tls_upstream_is_reached_through_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    context, trusting = tls()
    upstream, tunnels = Upstream(), []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tunnels.append(await reader.readuntil(b"\r\n\r\n"))
        _, port = tunnels[-1].split()[1].split(b":")
        far_reader, far_writer = await asyncio.open_connection("localhost", int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copied(reader, far_writer), copied(far_reader, writer))

    async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
    assert ("proxy-authorization", "Basic bWU6c2VjcmV0") in fields(tunnels[0])
    assert b"sk-test" not in tunnels[0]
    for asked in upstream.asked:
        assert asked.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert "proxy-authorization" not in dict(fields(asked))


# --- answers ----------------------------------------------------------------------------------------------------------

CLOSE = "connection: close\r\n"


@pytest.mark.parametrize(
    ("answer", "then_closes", "connections"),
    [
        pytest.param(http_answer(OK), False, 1, id="kept alive"),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n" + http_answer(OK), False, 1, id="interim"
        ),
        pytest.param(http_answer(OK, headers=CLOSE), False, 2, id="to be closed"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + OK, True, 2, id="as long as the connection"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\n" + OK, True, 2, id="HTTP/1.0"),
        pytest.param(http_answer(gzip.compress(OK), headers="content-encoding: gzip\r\n"), False, 1, id="compressed"),
        pytest.param(http_answer(OK) + http_answer(b"{}"), False, 2, id="one more answer"),
    ],
)
async def test_an_answer_is_read_and_its_connection_kept_where_it_may_be(
    answer: bytes, then_closes: bool, connections: int
) -> None:
    upstream = Upstream(answer, then_closes=then_closes)
    async with raw_server(upstream) as url, client_of(url) as client:
        for _ in range(2):
            assert (await client.create_chat_completion(request())).id == "chatcmpl-1"

    assert (len(upstream.asked), upstream.connections) == (2, connections)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_an_answer_without_a_body_is_over_at_once(status: str) -> None:
    upstream = Upstream(f"HTTP/1.1 {status}\r\n\r\n".encode())
    async with raw_server(upstream) as url, client_of(url) as client:
        for _ in range(2):
            with pytest.raises(openai.APIStatusError) as caught:
                await client.create_chat_completion(request())
            assert caught.value.status_code == int(status[:3])

    assert upstream.connections == 1


async def test_a_stream_that_comes_compressed_is_read() -> None:
    body = gzip.compress(event(GOOD) + event(FINISH) + b"data: [DONE]\n\n")
    headers = "content-type: Text/Event-Stream; charset=utf-8\r\ncontent-encoding: gzip\r\n"
    async with raw_server(Upstream(http_answer(body, headers=headers))) as url, client_of(url) as client:
        chunks = await chunks_of(client)

    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@asynccontextmanager
async def endpoint_of(url: str) -> AsyncIterator[Endpoint]:
    async with new_session() as session:
        yield Endpoint(session, "POST", url, {}, proxy=None, connect_s=5)


async def begun(endpoint: Endpoint) -> ResponseProtocol:
    return await endpoint.send("sk-test", b"{}", begin_by_s=asyncio.get_running_loop().time() + 5)


async def test_headers_are_those_of_the_answer_itself() -> None:
    answer = (
        b"HTTP/1.1 103 Early Hints\r\nx-early: 1\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nX-Ours: 1\r\nx-ours: 2\r\ntransfer-encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\nx-late: 1\r\n\r\n"
    )
    async with raw_server(Upstream(answer)) as url, endpoint_of(url) as endpoint:
        response = await begun(endpoint)
        assert await response.read() == b"ok"
        assert response.headers == {"x-ours": "1", "transfer-encoding": "chunked"}


async def test_a_server_that_speaks_first_is_understood() -> None:
    async def converse(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(converse) as url, endpoint_of(url) as endpoint:
        connection = await endpoint._connected(5)
        assert connection.protocol is not None
        # As if it had come before the connection was handed over, which cannot be made to happen.
        connection.protocol.data_received(http_answer(OK))
        response = ResponseProtocol(connection)
        response.send(b"GET / HTTP/1.1\r\n\r\n", None)
        assert await response.read() == OK


async def test_a_change_of_protocol_is_an_answer_without_a_body() -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nxxx"
    async with raw_server(Upstream(answer)) as url, client_of(url) as client, asyncio.timeout(5):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.create_chat_completion(request())

    assert caught.value.status_code == 101


async def test_no_more_is_taken_from_the_network_than_is_read() -> None:
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
            sent, response = 0, await begun(endpoint)
            await stuck.wait()
            assert sent < whole / 2
            read = 0
            while data := await response.read():
                read += len(data)
            assert read == whole
            stuck.clear()


async def test_an_answer_that_is_far_longer_than_its_compressed_bytes_is_whole() -> None:
    body = b"x" * 5_000_000
    upstream = Upstream(http_answer(gzip.compress(body), headers="content-encoding: gzip\r\n"))
    async with raw_server(upstream) as url, endpoint_of(url) as endpoint:
        response, pieces = await begun(endpoint), []
        while piece := await response.read():
            pieces.append(piece)

    assert b"".join(pieces) == body
    assert max(map(len, pieces)) < len(body)


async def test_a_type_that_is_no_text_is_no_stream() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/\xff\r\ncontent-length: 0\r\n\r\n"
    async with raw_server(Upstream(answer)) as url, client_of(url) as client:
        with pytest.raises(openai.APIResponseValidationError):
            await client.stream_chat_completion(request(stream=True))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="not HTTP"),
        pytest.param(b"HTTP/1.1 2x0 OK\r\n\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, id="a field without end"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 12_000, id="fields without end"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", id="no length"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", id="no chunk"),
        pytest.param(http_answer(b"no gzip", headers="content-encoding: gzip\r\n"), id="not compressed"),
    ],
)
async def test_what_is_no_answer_is_a_broken_connection(answer: bytes) -> None:
    upstream = Upstream(answer)
    async with raw_server(upstream) as url, client_of(url) as client:
        with pytest.raises(openai.APIConnectionError, match="broke"):
            await client.create_chat_completion(request())

    assert len(upstream.asked) == 1


async def test_bytes_that_nobody_asked_for_are_no_answer_to_the_next_request() -> None:
    idle = asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(http_answer(OK))
        await idle.wait()
        writer.write(http_answer(b'{"id":"another\'s"}'))
        await reader.read()

    async with raw_server(converse) as url, new_session() as session:
        client = OpenAIClient("sk-test", url, session=session)
        await client.create_chat_completion(request())
        idle.set()
        assert session.connector is not None
        ((waiting, _),) = next(iter(session.connector._conns.values()))
        async with asyncio.timeout(5):
            while not waiting.should_close:  # noqa: ASYNC110 - aiohttp has no event for it
                await asyncio.sleep(0)
        assert (await client.create_chat_completion(request())).id == "chatcmpl-1"


async def test_a_list_of_models_too_is_asked_for_twice_on_a_used_connection_only() -> None:
    asked = 0

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while True:
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            if asked != 2:
                return
            writer.write(http_answer(b'{"data": []}'))

    async with raw_server(converse) as url, client_of(url) as client:
        with pytest.raises(openai.APIConnectionError):
            await client.list_models()
        await client.list_models()
        with pytest.raises(openai.APIConnectionError):
            await client.list_models()

    # The third call is made on the second's connection, and then on a new one.
    assert asked == 4


@pytest.mark.parametrize(("begun", "asked"), [(b"", 3), (b"HTTP/1.1 200 OK\r\n", 2)], ids=["nothing", "a line"])
async def test_a_reset_is_made_up_for_only_where_nothing_of_an_answer_came(begun: bytes, asked: int) -> None:
    requests = 0

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while True:
            await read_request(reader)
            requests += 1
            if requests == 2:
                break
            writer.write(http_answer(OK))
        writer.write(begun)
        await writer.drain()
        # With this the end of a connection is a reset.
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with raw_server(converse) as url, client_of(url) as client:
        await client.create_chat_completion(request())
        with nullcontext() if asked == 3 else pytest.raises(openai.APIConnectionError):
            await client.create_chat_completion(request())

    assert requests == asked


# --- limits -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def narrow(url: str, **timeouts: float) -> AsyncIterator[OpenAIClient]:
    """A client that has one connection."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        yield OpenAIClient("sk-test", url, session=session, timeouts=Timeouts(**timeouts), max_attempts=1)


async def test_a_call_waits_for_a_free_connection() -> None:
    upstream = Upstream()
    async with raw_server(upstream) as url, narrow(url) as client:
        await asyncio.gather(*(client.create_chat_completion(request()) for _ in range(5)))

    assert (len(upstream.asked), upstream.connections) == (5, 1)


@pytest.mark.parametrize(
    ("limits", "setting"),
    [({"connect_s": 0.1}, "UPSTREAM_CONNECT_TIMEOUT_S"), ({"first_byte_s": 0.1}, "UPSTREAM_FIRST_BYTE_TIMEOUT_S")],
    ids=["connect", "first byte"],
)
async def test_a_call_does_not_wait_for_a_free_connection_for_ever(limits: dict[str, float], setting: str) -> None:
    asked = asyncio.Event()

    async def converse(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()

    async with raw_server(converse) as url, narrow(url, **limits) as client, narrow(url) as patient:
        client.attach(patient._upstream.session)  # type: ignore[arg-type]
        holding = asyncio.create_task(patient.create_chat_completion(request()))
        await asked.wait()
        with pytest.raises(openai.APITimeoutError, match=setting):
            await client.create_chat_completion(request())
        holding.cancel()


async def test_a_cancellation_at_the_limit_is_a_cancellation() -> None:
    over = asyncio.Event()

    async def converse(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await over.wait()

    loop = asyncio.get_running_loop()
    async with raw_server(converse) as url, new_session() as session:
        endpoint = Endpoint(session, "POST", url, {}, proxy=None, connect_s=5)
        for before in (True, False):
            at_s = loop.time() + 0.05
            call = asyncio.create_task(endpoint.send("sk-test", b"{}", begin_by_s=at_s))
            # Both are due in the same step of the loop, whichever comes first.
            loop.call_at(at_s - 1e-9 if before else at_s + 1e-9, call.cancel)
            await asyncio.wait([call])
            assert call.cancelled()
        over.set()


async def test_the_limit_of_one_call_is_none_of_the_next_on_its_connection() -> None:
    later = asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(http_answer(OK))
        await read_request(reader)
        await later.wait()
        writer.write(http_answer(b"again"))

    loop = asyncio.get_running_loop()
    async with raw_server(converse) as url, new_session() as session:
        endpoint = Endpoint(session, "POST", url, {}, proxy=None, connect_s=5)
        limit_s = loop.time() + 0.1
        assert await (await endpoint.send("sk-test", b"{}", begin_by_s=limit_s)).read() == OK
        loop.call_at(limit_s + 0.05, later.set)
        assert await (await endpoint.send("sk-test", b"{}", begin_by_s=limit_s + 5)).read() == b"again"


# --- aiohttp itself ---------------------------------------------------------------------------------------------------


async def test_what_is_used_of_aiohttps_inside_is_there() -> None:
    """docs/decisions/0001 lists it. Where this fails after an update of aiohttp, `http1.py` is to be read again."""
    assert list(inspect.signature(aiohttp.BaseConnector.connect).parameters) == ["self", "req", "traces", "timeout"]
    handler = ResponseHandler(asyncio.get_running_loop())
    assert (handler.should_close, handler.transport) == (False, None)
    handler.data_received(b"unasked")
    assert (handler.should_close, handler._tail) == (True, b"unasked")
    handler.abort()


async def _used_again() -> int:
    upstream = Upstream()
    async with raw_server(upstream) as url, client_of(url) as client:
        for _ in range(3):
            await client.create_chat_completion(request())
    assert len(upstream.asked) == 3
    return upstream.connections


async def _kept_after_a_large_body() -> int:
    upstream = Upstream()
    image = {"type": "image_url", "image_url": "data:image/png;base64," + "A" * 3_000_000}
    async with raw_server(upstream) as url, client_of(url) as client:
        for _ in range(2):
            await client.create_chat_completion(request([image]))  # type: ignore[arg-type]
    assert min(map(len, upstream.asked)) > 3_000_000
    return upstream.connections


async def _kept_over_tls() -> int:
    context, trusting = tls()
    stream = http_answer(
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
    assert len(upstream.asked) == 3
    return upstream.connections


@pytest.mark.parametrize("conversation", [_used_again, _kept_after_a_large_body, _kept_over_tls])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_connections_are_kept_on_either_loop(
    run: Callable[[Coroutine[Any, Any, int]], int], conversation: Callable[[], Coroutine[Any, Any, int]]
) -> None:
    assert run(conversation()) == 1
