"""Request framing: an ambiguous request gets a 400, and nothing behind it is read (RFC 9112)."""

import asyncio
import json
import re

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.middleware.request_size import LINGER_S
from app.main import create_app
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import serving, settings_for
from tests.unit.core.server.echo import client_of, echoing, report, reports, response_to, statuses
from tests.unit.core.server.test_server import calling, chat, request_bytes, server_over

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
FIRST = b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n"
BEHIND = b"GET /behind HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
REPORTED = report(b"GET", b"/a", b"")

AMBIGUOUS: dict[str, bytes] = {
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "identity and length": POST + b"Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "list of lengths": POST + b"Content-Length: 0, 0\r\n\r\n",
    "length with a sign": POST + b"Content-Length: +0\r\n\r\n",
    "length in two words": POST + b"Content-Length: 0 0\r\n\r\n",
    "length in hex": POST + b"Content-Length: 0x0\r\n\r\n",
    "empty length": POST + b"Content-Length:\r\n\r\n",
    "folded length": POST + b"Content-Length:\r\n 0\r\n\r\n",
    "endless length": POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, gzip": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "gzip": POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip and chunked": POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked;q": POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "empty encoding": POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
    "an offer and gzip, chunked": POST
    + b"Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "space before a colon": POST + b"Content-Length : 0\r\n\r\n",
    "space in a name": POST + b"Content Length: 0\r\n\r\n",
    "no colon": POST + b"Content-Length\r\n\r\n",
    "folded field": GET + b"A: b\r\n c\r\n\r\n",
    "folded first field": b"GET /a HTTP/1.1\r\n Host: x\r\n\r\n",
    "LF for a line": GET.replace(b"1.1\r", b"1.1") + b"\r\n",
    "LF after a field": GET[:-2] + b"\n\r\n",
    "LF at the end": GET + b"\n",
    "CR in a field": GET + b"A: b\rC: d\r\n\r\n",
    "NUL in a value": GET + b"A: \0\r\n\r\n",
    "NUL in a name": GET + b"A\0: b\r\n\r\n",
    "NUL in a target": b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /a HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"host: x\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET /a HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /a\r\nHost: x\r\n\r\n",
    "HTTP/2.0": b"GET /a HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /a HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown method": b"BREW /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method in lower case": b"get /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab in the request line": b"GET\t/a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space behind the version": b"GET /a HTTP/1.1 \r\nHost: x\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target that is not a path": b"GET a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target of another scheme": b"GET ftp://x/a HTTP/1.1\r\nHost: x\r\n\r\n",
    "non-ASCII bytes in a target": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a chunk size with a sign": CHUNKED + b"+1\r\na\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "a chunk size and a space": CHUNKED + b"1 \r\na\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": CHUNKED + b"1" + b"0" * 16 + b"\r\na\r\n0\r\n\r\n",
    "no chunk size": CHUNKED + b"\r\na\r\n0\r\n\r\n",
    "a chunk that is too long": CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
    "LF after a chunk size": CHUNKED + b"1\na\r\n0\r\n\r\n",
    "LF after a chunk": CHUNKED + b"1\r\na\n0\r\n\r\n",
    "LF in a chunk extension": CHUNKED + b"1;b\na\r\n0\r\n\r\n",
    "CR in a chunk extension": CHUNKED + b"1;b\rc\r\na\r\n0\r\n\r\n",
    "LF at the end of a trailer": CHUNKED + b"0\r\n\n",
    "a length in a trailer": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
    "a connection option in a trailer": CHUNKED + b"0\r\nConnection: close\r\n\r\n",
    "an offer in a trailer": CHUNKED + b"0\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "an encoding in a trailer": CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=list(AMBIGUOUS))
async def test_ambiguous_requests_get_a_400_in_order_and_end_the_connection(sent: bytes) -> None:
    async with echoing() as server:
        together = await response_to(server, FIRST + sent + BEHIND)
        apart = await response_to(server, *(bytes([byte]) for byte in sent + BEHIND))

    assert (statuses(together), reports(together)) == ([200, 400], [report(b"GET", b"/first", b"")])
    assert (statuses(apart), reports(apart)) == ([400], [])
    head, _, body = apart.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    error = json.loads(body)["error"]
    assert (error["type"], error["param"], error["code"]) == ("BadRequestError", None, 400)
    assert error["message"].startswith("The request is not valid HTTP: ")


REASONS = {
    "length and chunks": "Content-Length",
    "gzip, chunked": "chunked",
    "no host": "Host",
    "chunks in HTTP/1.0": "HTTP/1.0",
    "HTTP/2.0": "HTTP/1.1",
    "a target of another scheme": "target",
}


@pytest.mark.parametrize(("name", "reason"), REASONS.items(), ids=list(REASONS))
async def test_the_400_gives_the_reason(name: str, reason: str) -> None:
    async with echoing() as server:
        assert (
            reason
            in json.loads((await response_to(server, AMBIGUOUS[name])).partition(b"\r\n\r\n")[2])["error"]["message"]
        )


VALID: dict[str, tuple[bytes, bytes]] = {
    "empty lines before a request": (b"\r\n\r\n" + GET + b"\r\n", REPORTED),
    "a URL": (b"GET http://other/a HTTP/1.1\r\nHost: x\r\n\r\n", REPORTED),
    "a URL with a query": (b"GET HTTPS://other:1/a?b=c HTTP/1.1\r\nHost: x\r\n\r\n", report(b"GET", b"/a?b=c", b"")),
    "a URL without a path": (b"GET http://other HTTP/1.1\r\nHost: x\r\n\r\n", report(b"GET", b"/", b"")),
    "a URL with nothing but a query": (b"GET http://x?b HTTP/1.1\r\nHost: x\r\n\r\n", report(b"GET", b"/?b", b"")),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", report(b"OPTIONS", b"*", b"")),
    "two slashes": (b"GET //a/b HTTP/1.1\r\nHost: x\r\n\r\n", report(b"GET", b"//a/b", b"")),
    "a body of a GET": (GET + b"Content-Length: 3\r\n\r\nabc", report(b"GET", b"/a", b"abc")),
    "white space around a length": (POST + b"Content-Length:\t3 \t\r\n\r\nabc", report(b"POST", b"/a", b"abc")),
    "leading zeros": (POST + b"Content-Length: 0003\r\n\r\nabc", report(b"POST", b"/a", b"abc")),
    "CHUNKED": (POST + b"Transfer-Encoding: CHUNKED \r\n\r\n3\r\nabc\r\n0\r\n\r\n", report(b"POST", b"/a", b"abc")),
    "zeros, extensions and trailers": (
        CHUNKED + b'0003;a="b;c";d\r\nabc\r\n0;e=f\r\nHost: y\r\nExpect: 100-continue\r\n\r\n',
        report(b"POST", b"/a", b"abc"),
    ),
    "an empty host": (b"GET /a HTTP/1.1\r\nHost:\r\n\r\n", REPORTED),
}


@pytest.mark.parametrize(("sent", "reported"), VALID.values(), ids=list(VALID))
async def test_valid_requests_and_those_behind_them_are_accepted(sent: bytes, reported: bytes) -> None:
    async with echoing() as server:
        received = reports(await response_to(server, sent + LAST))

    assert received == [reported, report(b"GET", b"/last", b"")]


@pytest.mark.parametrize(
    "closing",
    [
        GET + b"Connection: close\r\n\r\n",
        GET + b"Connection: keep-alive\r\nConnection: x, Close\r\n\r\n",
        b"GET /a HTTP/1.0\r\n\r\n",
        b"GET /a HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
    ],
)
@pytest.mark.parametrize("behind", [BEHIND, b"\0garbage", b"x" * 100_000], ids=["request", "garbage", "much"])
async def test_nothing_is_read_after_a_request_that_closes(closing: bytes, behind: bytes) -> None:
    async with echoing() as server:
        together = await response_to(server, closing + behind)
        apart = await response_to(server, closing, behind)

    assert (statuses(together), reports(together)) == ([200], [REPORTED])
    assert (statuses(apart), reports(apart)) == ([200], [REPORTED])


async def test_a_400_waits_for_the_responses_before_it(simulator: Simulator) -> None:
    sent = request_bytes(chat("[sim tokens=3 ttft=0.1]", request_id="mine")) + b"no request\r\n\r\n"
    async with server_over(simulator, shutdown_timeout_s=1) as server, calling(server, sent) as caller:
        response = await caller.rest()

    assert re.findall(r"HTTP/1\.1 (\d+)", response) == ["200", "400"]
    assert "chatcmpl-mine" in response


async def test_a_queued_request_with_an_invalid_body_gets_a_400_in_order(simulator: Simulator) -> None:
    broken = request_bytes(chat("hi"))[:-1].replace(b"content-length", b"x") + b"\r\n"
    broken = broken.replace(b"host: x", b"host: x\r\ntransfer-encoding: chunked")
    sent = request_bytes(chat("[sim tokens=3 ttft=0.1]")) + broken
    async with server_over(simulator, shutdown_timeout_s=1) as server, calling(server, sent) as caller:
        response = await caller.rest()

    assert re.findall(r"HTTP/1\.1 (\d+)", response) == ["200", "400"]
    assert len(simulator.traffic.exchanges) == 1


async def test_a_head_that_is_too_large_does_not_cut_off_earlier_responses(simulator: Simulator) -> None:
    sent = request_bytes(chat("[sim tokens=3 ttft=0.1]")) + b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000_000
    async with server_over(simulator, shutdown_timeout_s=1) as server, calling(server, sent) as caller:
        response = await caller.rest()

    assert re.findall(r"HTTP/1\.1 (\d+)", response) == ["200", "431"]


EXPECTING = (
    b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue \r\n" % CHAT.encode()
)


async def test_100_continue_is_sent_when_the_request_is_next(simulator: Simulator) -> None:
    body = json.dumps(chat("[sim tokens=3]")).encode()
    begun = request_bytes(chat("[sim tokens=3 ttft=0.1]")) + EXPECTING + b"content-length: %d\r\n\r\n" % len(body)
    async with server_over(simulator, shutdown_timeout_s=1) as server, calling(server, begun) as caller:
        before = await caller.until(b"HTTP/1.1 100 Continue\r\n\r\n")
        caller.writer.write(body + LAST)
        after = await caller.rest()

    assert before.count("HTTP/1.1 200 ") == 1
    assert after.startswith("HTTP/1.1 200 ")


async def test_a_request_rejected_before_100_continue_closes_the_connection(simulator: Simulator) -> None:
    app = create_app(settings_for(simulator.base_url, vllm_api_key=["sk-client"]))
    sent = EXPECTING + b"content-length: %d\r\n\r\n" % len(BEHIND)
    async with serving(app, app.state.components.lifecycle) as server, calling(server, sent) as caller:
        response = await caller.rest()

    assert response.startswith("HTTP/1.1 401 ")
    assert response.count("HTTP/1.1 ") == 1
    assert "connection: close" in response


async def test_a_400_reaches_a_client_that_is_still_sending(simulator: Simulator) -> None:
    sent = b"no request\r\n\r\n" + b"x" * 20_000_000
    async with server_over(simulator, shutdown_timeout_s=1) as server, calling(server, sent) as caller:
        response = await caller.rest()
        await caller.writer.drain()

    assert response.startswith("HTTP/1.1 400 ")


async def test_a_400_ends_before_the_connection_closes() -> None:
    async with echoing() as server, client_of(server) as client:
        await client.send([b"no request\r\n\r\n"])

        assert statuses(await client.rest()) == [400]
        assert not client.is_closing


async def test_an_invalid_body_before_100_continue_gets_one_400(capfd: pytest.CaptureFixture[str]) -> None:
    async with echoing() as server:
        response = await response_to(server, CHUNKED[:-2] + b"Expect: 100-continue\r\n\r\nx\r\n")

    assert response.startswith(b"HTTP/1.1 400 ")
    assert response.count(b"HTTP/1.1 ") == 1
    assert "Traceback" not in capfd.readouterr().err


async def hasty(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Respond without reading the body."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def patient(_scope: Scope, receive: Receive, send: Send) -> None:
    """Start the response before reading the body, and end it after that."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize(("app", "closed_at_once"), [(hasty, False), (patient, True)])
async def test_an_invalid_body_after_its_response_began_closes_without_a_second_response(
    app: ASGIApp, closed_at_once: bool
) -> None:
    async with echoing(app) as server, client_of(server) as client:
        await client.send([CHUNKED])
        begun = await client.until(b"\r\n\r\n")
        await client.send([b"x\r\n"])

        assert statuses(begun + await client.rest()) == [200]
        assert client.is_closing is closed_at_once


CLOSING_OFFER = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: close, upgrade\r\n\r\n"


async def test_nothing_is_read_after_a_request_that_closes_during_shutdown(simulator: Simulator) -> None:
    async with server_over(simulator, shutdown_timeout_s=5) as server, calling(server, CLOSING_OFFER[:-2]) as caller:
        async with calling(server, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n") as probe:
            # This response shows that the server has read what was sent before.
            await probe.until(b'"llm-server"}')
            server.ending.set()
            await probe.rest()
        caller.writer.write(CLOSING_OFFER[-2:] + BEHIND)
        response = await caller.rest()

    assert response.count("HTTP/1.1 ") == 1
    assert "connection: close" in response


async def test_a_rejected_connection_does_not_delay_shutdown(simulator: Simulator) -> None:
    async with (
        server_over(simulator, shutdown_timeout_s=60) as server,
        calling(server, b"no request\r\n\r\n") as caller,
    ):
        await caller.rest()
        async with asyncio.timeout(LINGER_S / 2):
            server.ending.set()
            await server.ended.wait()
