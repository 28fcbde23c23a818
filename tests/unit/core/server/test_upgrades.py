"""Upgrade offers are ignored: the request is handled like any other (RFC 9110, 7.8)."""

import json

import pytest

from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.unit.core.server.echo import client_of, echoing, report, reports, response_to, statuses
from tests.unit.core.server.test_server import calling, chat, server_over

SETTINGS = b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" + SETTINGS,
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "several": b"connection: keep-alive, UPGRADE\r\nupgrade: h2c, websocket, TLS/1.0\r\n",
    "something": b"Connection: upgrade\r\nUpgrade: something/1\r\n",
    "no connection option": b"Upgrade: websocket\r\n",
    "no upgrade": b"Connection: Upgrade, HTTP2-Settings\r\n" + SETTINGS,
}
INNER = b"POST /inner HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LAST_REPORT = report(b"GET", b"/last", b"")
FRAMED = {
    "length": b"Content-Length: %d\r\n\r\n%b" % (len(INNER), INNER),
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n5\r\n%b\r\n%x;a=b\r\n%b\r\n0\r\nA: b\r\n\r\n"
    % (INNER[:5], len(INNER) - 5, INNER[5:]),
}


def offering(offer: bytes, framed: bytes = b"\r\n", *, method: bytes = b"POST") -> bytes:
    return b"%b /outer HTTP/1.1\r\nHost: x\r\n%b%b" % (method, offer, framed)


@pytest.mark.parametrize("framed", FRAMED.values(), ids=list(FRAMED))
@pytest.mark.parametrize("offer", OFFERS.values(), ids=list(OFFERS))
async def test_the_body_of_an_upgrade_request_is_read_in_any_segmentation(offer: bytes, framed: bytes) -> None:
    sent = offering(offer, framed) + offering(offer, method=b"GET") + offering(offer, framed) + LAST
    outer = report(b"POST", b"/outer", INNER)
    expected = [outer, report(b"GET", b"/outer", b""), outer, LAST_REPORT]
    head = sent.index(b"\r\n\r\n") + 4

    async with echoing() as server:
        for segments in ([sent], [sent[:head], sent[head:]], [sent[i : i + 1] for i in range(len(sent))]):
            assert reports(await response_to(server, *segments)) == expected


async def test_upgrade_requests_without_a_body_are_ordinary_requests() -> None:
    offers = b"".join(offering(offer, method=b"GET") for offer in OFFERS.values())

    async with echoing() as server:
        received = reports(await response_to(server, offers + LAST))

    assert received == [report(b"GET", b"/outer", b"")] * len(OFFERS) + [LAST_REPORT]


async def test_nothing_is_read_after_an_upgrade_request_that_closes() -> None:
    sent = offering(b"Connection: close, upgrade\r\nUpgrade: h2c\r\n", FRAMED["length"]) + LAST

    async with echoing() as server:
        assert reports(await response_to(server, sent)) == [report(b"POST", b"/outer", INNER)]


async def test_thousands_of_upgrade_requests_in_one_segment_get_responses() -> None:
    count = 2000
    async with echoing() as server, client_of(server) as client:
        await client.send([offering(OFFERS["something"]) * count + LAST])
        assert len(reports(await client.rest())) == count + 1


@pytest.mark.parametrize("target", [b"example.com:443", b"/v1/models"])
async def test_connect_is_rejected_and_nothing_behind_it_is_read(target: bytes) -> None:
    sent = b"CONNECT %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (target, len(INNER)) + INNER + LAST

    async with echoing() as server:
        response = await response_to(server, sent)

    assert statuses(response) == [400]
    assert b"proxy" in response


def chat_offering(offer: bytes, more: bytes, body: bytes) -> bytes:
    """The head of a chat request with this body."""
    fields = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
    return b"POST %b HTTP/1.1\r\nhost: x\r\n%b%b%b\r\n" % (CHAT.encode(), offer, more, fields)


@pytest.mark.parametrize("offer", OFFERS.values(), ids=list(OFFERS))
async def test_a_chat_request_that_offers_an_upgrade_gets_its_response(simulator: Simulator, offer: bytes) -> None:
    body = json.dumps(chat("[sim tokens=3]")).encode()
    sent = chat_offering(offer, b"connection: close\r\n", body) + body

    async with server_over(simulator, shutdown_timeout_s=1) as server, calling(server, sent) as caller:
        response = await caller.rest()

    assert response.startswith("HTTP/1.1 200 ")
    assert response.count("HTTP/1.1 ") == 1
    assert len(simulator.traffic.exchanges) == 1


@pytest.mark.parametrize("offer", OFFERS.values(), ids=list(OFFERS))
async def test_the_body_of_an_upgrade_request_may_arrive_during_shutdown(simulator: Simulator, offer: bytes) -> None:
    body = json.dumps(chat("[sim tokens=3]")).encode()
    begun = chat_offering(offer, b"", body) + body[:5]
    async with server_over(simulator, shutdown_timeout_s=5) as server, calling(server, begun) as caller:
        async with calling(server, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n") as probe:
            # This response shows that the server has read what was sent before.
            await probe.until(b'"llm-server"}')
            server.ending.set()
            await probe.rest()
        caller.writer.write(body[5:])
        response = await caller.rest()

    assert response.startswith("HTTP/1.1 200 ")
    assert response.count("HTTP/1.1 ") == 1
    assert "connection: close" in response
