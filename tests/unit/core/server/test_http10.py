"""HTTP/1.0 clients: no chunks, and keep-alive only on request (RFC 9112, 6.1 and 9.3)."""

import json
from typing import Any

import pytest

from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.unit.core.server.test_server import calling, chat, events_of, server_over

KEEP = b"connection: Keep-Alive\r\n"


def request(body: dict[str, Any], fields: bytes = b"", *, version: bytes = b"1.0") -> bytes:
    content = json.dumps(body).encode()
    head = b"POST %b HTTP/%b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % (
        CHAT.encode(),
        version,
        len(content),
    )
    return head + fields + b"\r\n" + content


@pytest.mark.parametrize("fields", [b"", KEEP], ids=["closing", "keeping"])
async def test_a_stream_has_no_chunks_and_ends_with_the_connection(simulator: Simulator, fields: bytes) -> None:
    sent = request(chat("[sim tokens=3]", stream=True), fields)
    async with server_over(simulator, shutdown_timeout_s=1) as server, calling(server, sent) as caller:
        head = (await caller.until(b"\r\n\r\n")).lower()
        body = await caller.rest()

    assert "transfer-encoding" not in head
    assert "content-length" not in head
    assert "connection: close" in head
    assert events_of(body)
    assert [line for line in body.split("\n") if line and not line.startswith("data: ")] == []
    assert body.endswith("data: [DONE]\n\n")


async def test_a_whole_response_ends_with_the_connection(simulator: Simulator) -> None:
    sent = request(chat("[sim tokens=3]"))
    async with server_over(simulator, shutdown_timeout_s=1) as server, calling(server, sent) as caller:
        head, _, body = (await caller.rest()).partition("\r\n\r\n")

    assert "connection: close" in head
    assert f"content-length: {len(body)}\r\n" in head
    assert json.loads(body)["object"] == "chat.completion"


async def test_keep_alive_is_honored(simulator: Simulator) -> None:
    sent = request(chat("[sim tokens=3]"), KEEP)
    async with server_over(simulator, shutdown_timeout_s=1) as server, calling(server) as caller:
        for _ in range(2):
            caller.writer.write(sent)
            head = await caller.until(b"\r\n\r\n")
            assert "connection: keep-alive" in head
            await caller.until(b'"metrics":null}')
        caller.writer.write(request(chat("[sim tokens=3]"), b"host: x\r\nconnection: close\r\n", version=b"1.1"))
        assert (await caller.rest()).startswith("HTTP/1.1 200 ")

    assert simulator.traffic.answered == 3


async def test_100_continue_is_not_sent(simulator: Simulator) -> None:
    sent = request(chat("[sim tokens=3]"), b"expect: 100-continue\r\n")
    async with server_over(simulator, shutdown_timeout_s=1) as server, calling(server, sent) as caller:
        assert (await caller.rest()).startswith("HTTP/1.1 200 ")
