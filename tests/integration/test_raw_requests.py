"""Bytes that no client library sends get a response in time, and never a 5xx."""

import asyncio
import gzip
import os
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.simulator.server import Simulator
from tests.serving import served_over

of_module = pytest.mark.asyncio(loop_scope="module")
EXAMPLES = int(os.environ.get("RAW_REQUESTS", "200"))
"""Examples per test; `RAW_REQUESTS=5000` takes some minutes."""
ANSWERED_WITHIN_S = 60
HELLO = b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":5}'

many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)

paths = st.sampled_from(
    [
        b"/v1/chat/completions",
        b"/v1/completions",
        b"/invocations",
        b"/tokenize",
        b"/detokenize",
        b"/v1/models",
        b"/ping",
    ]
) | st.binary(max_size=40).map(lambda path: b"/" + re.sub(rb"[\s\x00]", b"", path))
methods = st.sampled_from([b"POST"] * 6 + [b"GET", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE", b"PATCH", b"BREW"])
names = st.sampled_from(
    b"Content-Type Content-Encoding Accept Authorization X-Request-Id Origin Expect Host Connection Upgrade Cookie "
    b"Range Access-Control-Request-Method X-Amzn-SageMaker-Adapter-Identifier".split()
) | st.from_regex(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,30}", fullmatch=True)
values = st.sampled_from(
    [
        b"",
        b"application/json",
        b"gzip",
        b"deflate",
        b"br",
        b"identity",
        b"100-continue",
        b"close",
        b"websocket",
        b"*/*",
        b"x" * 300,
    ]
) | st.binary(max_size=60).map(lambda value: re.sub(rb"[\r\n\x00]", b"", value))
PIECES = (
    rb'{ } [ ] , : " "messages" "prompt" "n" "role" "user" null true NaN -Infinity 1e999 -0 \ud800 "\ud83d\ude00"'
).split()
json_pieces = st.lists(st.sampled_from([*PIECES, b"9" * 5000, b"\xff", b"\x00", b" "]), max_size=30).map(b"".join)


@st.composite
def spliced(draw: st.DrawFn) -> bytes:
    """A valid body with foreign bytes in it."""
    at = draw(st.integers(0, len(HELLO)))
    return HELLO[:at] + draw(st.binary(max_size=6) | json_pieces) + HELLO[at + draw(st.integers(0, 4)) :]


bodies = st.just(HELLO) | st.binary(max_size=200) | json_pieces | spliced() | st.just(gzip.compress(HELLO))


def encode_events(body: bytes, pieces: int | None) -> bytes:
    """The body with `Content-Length`, or in chunks."""
    if pieces is None:
        return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    size = max(1, len(body) // pieces)
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    return (
        b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"
    )


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request with valid framing and anything else."""
    fields = draw(st.lists(st.tuples(names, values), max_size=6))
    if draw(st.booleans()):
        fields.append((b"Content-Type", b"application/json"))
    head = b"%b %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" % (draw(methods), draw(paths))
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    return head + lines + encode_events(draw(bodies), draw(st.none() | st.integers(1, 5)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port() -> AsyncIterator[int]:
    async with Simulator() as openai, served_over(openai.base_url, enable_tokenizer_info_endpoint=True) as url:
        yield int(url.rpartition(":")[2])


async def answer_to(port: int, sent: bytes, *, leave: bool = False) -> bytes:
    """All that the server says to these bytes until it closes the connection, or the client has left.

    Raises:
        TimeoutError: it says nothing for too long, or does not end.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            writer.write(sent)
            if leave:
                writer.write_eof()
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d{3})", answer, re.MULTILINE)]


async def check_is_alive(port: int) -> None:
    alive = await answer_to(port, b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert statuses(alive) == [200]


@many
@given(sent=requests())
@of_module
async def test_any_request_gets_a_response(port: int, sent: bytes) -> None:
    answer = await answer_to(port, sent)

    assert statuses(answer)
    assert all(status < 500 for status in statuses(answer)), answer
    assert b"Traceback" not in answer


@many
@given(sent=st.binary(max_size=300) | st.tuples(requests(), st.integers(0, 200)).map(lambda cut: cut[0][: cut[1]]))
@of_module
async def test_any_bytes_get_a_response_or_a_closed_connection(port: int, sent: bytes) -> None:
    answer = await answer_to(port, sent, leave=True)

    assert all(status < 500 for status in statuses(answer)), answer


@of_module
async def test_the_server_is_healthy_afterwards(port: int) -> None:
    await check_is_alive(port)
