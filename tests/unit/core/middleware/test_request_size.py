"""Limits on the size of heads and bodies, and compressed bodies."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest

from app.core.middleware.request_size import MAX_HEAD_BYTES, MAX_HEADERS
from app.core.request_record import MAX_REQUEST_ID_CHARACTERS
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import served_over

LIMIT_BYTES = 2048
HELLO = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
FILLED = HELLO + b" " * (LIMIT_BYTES - len(HELLO))
FAR_TOO_LARGE = b" " * 20_000_000


@pytest.fixture
async def limited_url(simulator: Simulator) -> AsyncIterator[str]:
    async with served_over(simulator.base_url, max_body_bytes=LIMIT_BYTES) as url:
        yield url


@pytest.fixture
async def limited(limited_url: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(base_url=limited_url, headers=headers) as client:
        yield client


async def in_pieces(body: bytes, size_bytes: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size_bytes):
        yield body[start : start + size_bytes]


def in_two_members(body: bytes) -> bytes:
    return gzip.compress(body[:7]) + gzip.compress(body[7:])


ACCEPTED: dict[str, tuple[bytes, str]] = {
    "as large as allowed": (FILLED, "identity"),
    "gzip": (gzip.compress(FILLED), "gzip"),
    "gzip by its other name": (gzip.compress(HELLO), "X-GZIP"),
    "gzip in two members": (in_two_members(HELLO), "gzip"),
    "deflate": (zlib.compress(HELLO), "deflate"),
}


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "in pieces"])
@pytest.mark.parametrize(("body", "encoding"), ACCEPTED.values(), ids=list(ACCEPTED))
async def test_a_body_within_the_limit_is_accepted(
    limited: httpx.AsyncClient, body: bytes, encoding: str, chunked: bool
) -> None:
    content = in_pieces(body, 3) if chunked else body
    response = await limited.post(CHAT, content=content, headers={"content-encoding": encoding})

    assert response.status_code == 200, response.text


TOO_LARGE: dict[str, tuple[bytes, str]] = {
    "by a byte": (FILLED + b" ", ""),
    "by far": (FAR_TOO_LARGE, ""),
    "once decompressed": (gzip.compress(FILLED + b" "), "gzip"),
    "a gzip bomb": (gzip.compress(FAR_TOO_LARGE * 5), "gzip"),
    "members with nothing in them": (gzip.compress(b"") * 1000, "gzip"),
}


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "in pieces"])
@pytest.mark.parametrize("path", [CHAT, "/tokenize"])
@pytest.mark.parametrize(("body", "encoding"), TOO_LARGE.values(), ids=list(TOO_LARGE))
async def test_a_body_beyond_the_limit_is_a_413_that_names_the_setting(
    limited: httpx.AsyncClient, body: bytes, encoding: str, path: str, chunked: bool
) -> None:
    content = in_pieces(body) if chunked else body
    response = await limited.post(path, content=content, headers={"content-encoding": encoding} if encoding else {})

    assert response.status_code == 413
    error = response.json()["error"]
    assert error["type"] == "Request Entity Too Large"
    assert (error["param"], error["code"]) == (None, 413)
    assert "MAX_BODY_BYTES" in error["message"]
    assert str(LIMIT_BYTES) in error["message"]
    assert response.headers["x-request-id"]
    assert (await limited.post(CHAT, content=HELLO)).status_code == 200


BROKEN: dict[str, tuple[bytes, str, int]] = {
    "not what the encoding says": (HELLO, "gzip", 400),
    "cut": (gzip.compress(HELLO)[:-9], "gzip", 400),
    "with something after it": (gzip.compress(HELLO) + b"more", "gzip", 400),
    "an unknown encoding": (HELLO, "br", 415),
    "two encodings": (gzip.compress(gzip.compress(HELLO)), "gzip, gzip", 415),
}


@pytest.mark.parametrize(("body", "encoding", "status"), BROKEN.values(), ids=list(BROKEN))
async def test_a_body_that_cannot_be_decompressed_is_rejected(
    limited: httpx.AsyncClient, body: bytes, encoding: str, status: int
) -> None:
    response = await limited.post(CHAT, content=body, headers={"content-encoding": encoding})

    assert response.status_code == status
    assert "Content-Encoding" in response.json()["error"]["message"]


async def exchange(url: str, sent: bytes) -> bytes:
    """Send the bytes and return the first response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(sent)
    try:
        async with asyncio.timeout(60):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            return head + await reader.readexactly(length)
    finally:
        writer.close()


async def test_100_continue_is_not_sent_for_a_body_that_is_too_large(limited_url: str) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999\r\n\r\n"

    assert (await exchange(limited_url, head)).startswith(b"HTTP/1.1 413 ")


async def test_a_content_length_of_thousands_of_digits_is_rejected(limited_url: str) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 6000 + b"\r\n\r\n"

    assert (await exchange(limited_url, head)).split()[1] in (b"400", b"413")


HEADS = {
    "many fields": b"".join(b"X-%d: 1\r\n" % number for number in range(MAX_HEADERS)),
    "a long field": b"X: " + b"x" * MAX_HEAD_BYTES + b"\r\n",
    "a field of megabytes": b"X: " + b"x" * 5_000_000 + b"\r\n",
    "ten thousand fields": b"".join(b"X-%d: 1\r\n" % number for number in range(10_000)),
}


@pytest.mark.parametrize("fields", HEADS.values(), ids=list(HEADS))
async def test_a_head_beyond_the_limits_is_a_431_in_vllms_form(limited_url: str, fields: bytes) -> None:
    response = await exchange(limited_url, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n")

    assert response.startswith(b"HTTP/1.1 431 ")
    error = json.loads(response.partition(b"\r\n\r\n")[2])["error"]
    assert (error["type"], error["code"]) == ("Request Header Fields Too Large", 431)


async def test_an_endless_head_is_rejected(limited_url: str) -> None:
    response = await exchange(limited_url, b"GET /v1/models HTTP/1.1\r\nX: " + b"x" * 10_000_000)

    assert response.startswith(b"HTTP/1.1 431 ")


async def test_a_path_of_megabytes_is_rejected(limited_url: str) -> None:
    response = await exchange(limited_url, b"GET /" + b"x" * 5_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")

    assert response.startswith(b"HTTP/1.1 4")


CHUNKED = b"POST %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n" % CHAT.encode()
CHUNKED += b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("start", [b"0\r\nx-endless: ", b"1;"], ids=["trailer", "chunk extension"])
async def test_endless_trailers_and_chunk_extensions_are_rejected(limited_url: str, start: bytes) -> None:
    response = await exchange(limited_url, CHUNKED + start + b"a" * 2_000_000)

    assert response.startswith(b"HTTP/1.1 400 ")
    assert str(MAX_HEAD_BYTES).encode() in response


@pytest.mark.parametrize("field", [b"x-request-id: of-the-trailer", b"content-encoding: br"])
async def test_a_trailer_field_is_not_a_header(limited_url: str, field: bytes) -> None:
    body = b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(HELLO), HELLO, field)

    response = await exchange(limited_url, CHUNKED + body)

    assert response.startswith(b"HTTP/1.1 200 ")
    assert b"of-the-trailer" not in response


async def test_the_length_of_a_request_id_is_limited(client: httpx.AsyncClient) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]}
    fitting, long = "i" * MAX_REQUEST_ID_CHARACTERS, "i" * (MAX_REQUEST_ID_CHARACTERS + 1)
    accepted = await client.post(CHAT, json=body, headers={"x-request-id": fitting})
    by_header = await client.post(CHAT, json=body, headers={"x-request-id": long})
    by_field = await client.post(CHAT, json={**body, "request_id": long})

    assert (accepted.status_code, accepted.json()["id"]) == (200, f"chatcmpl-{fitting}")
    assert (by_header.status_code, by_field.status_code) == (400, 400)
    assert "X-Request-Id" in by_header.json()["error"]["message"]
    assert by_field.json()["error"]["param"] == "body.request_id"


LONG: dict[str, object] = {
    "model": "m" * 1_000_000,
    "bad_words": ["w" * 1000] * 1000 + [""],
    "vllm_xargs": {"k" * 1_000_000: {}},
    "logit_bias": {"k" * 1_000_000: 1},
}


@pytest.mark.parametrize("name", LONG)
async def test_an_error_quotes_little_of_the_request(client: httpx.AsyncClient, name: str) -> None:
    response = await client.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}], name: LONG[name]})

    assert response.status_code in (400, 404)
    assert len(response.content) < 15_000
