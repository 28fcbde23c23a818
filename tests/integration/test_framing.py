"""The same bytes go to this server, over a real socket, and to h11: both see the same requests with the same bodies.

What is compared are methods, targets and bodies, and whether reading went on, was ended by the client's wish, or by an
error. Well-formed input has to be read alike. Damaged input may be rejected earlier by this server than by h11, which
closes the connection and harms nobody; where h11 rejects earlier, it must be for one of the reasons below. Up to there
both must have seen the same.

Where h11 is laxer, this server rejects, as RFC 9112 demands or allows: LF without CR (2.2), folded fields (5.2),
Transfer-Encoding beside Content-Length or in HTTP/1.0 (6.1), equal Content-Lengths (6.3), CONNECT, which no server but
a proxy takes (RFC 9110, 9.3.6), and trailers that would control the connection (RFC 9110, 6.5.1).
Where h11 is stricter, this server follows RFC 9112 as well: it skips line ends before a request (2.2) and several
spaces in the request line (3), neither of which moves the end of a request, and keeps the connection of an HTTP/1.0
client that asks for it (9.3). It takes `RTSP/1.0` for HTTP/1.0, which httptools does not report.
"""

import asyncio
import json
import random
import re
import signal
import ssl
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import h11
import pytest
import trustme

from app.simulator.server import Simulator
from tests.processes import started
from tests.serving import ReadyServer
from tests.unit.core.server.echo import client_of, echoing, report, reports, statuses

REQUESTS = 5_000
DAMAGED = 1_500
CUT_EVERYWHERE = 12
"""Sequences of these that are sent in two segments, once for each place between two bytes."""
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

INNER = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
BODIES = [
    b"",
    b"{}",
    INNER,
    INNER * 2,
    b"0\r\n\r\n" + INNER,
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b"\0" * 9,
    b"PRI * HTTP/2.0\r\n\r\n",
]
OFFERS = [
    (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ"),
    (b"connection: upgrade", b"upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    (b"Connection: keep-alive, Upgrade", b"Upgrade: TLS/1.0, x/2"),
    (b"Connection: keep-alive", b"Connection: Upgrade", b"Upgrade: h2c", b"Upgrade: websocket"),
    (b"Upgrade: h2c",),
    (b"Connection: Upgrade",),
    (b"Proxy-Connection: Upgrade", b"Upgrade: h2c"),
]
METHODS = [b"GET", b"POST", b"POST", b"PUT", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS", b"QUERY"]
EXTENSIONS = [b"", b"", b"", b";a", b";a=b", b';a="b;c"', b";a=b;c=d"]
TRAILERS = [b"", b"", b"A: b\r\n", b"Host: y\r\nExpect: 100-continue\r\nA:\r\n"]


LAXER = re.compile(
    r"no request line received|illegal request line: bytearray\(b'(\\r)*[A-Z]+ +\S+ +HTTP/1\.[01]'\)", re.DOTALL
)
"""Reasons for which h11 may reject what this server accepts."""


@dataclass
class Read:
    """What a parser read from some bytes."""

    requests: list[bytes] = field(default_factory=list)
    end: str = "open"
    reason: str = field(default="", compare=False)


class Generator:
    """Sequences of requests on one connection."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - the same requests in every run

    def sequence(self) -> tuple[bytes, int]:
        """Bytes that end with the request to close, and how many requests they are."""
        count = self._random.randint(1, 6)
        return b"".join(self._request(number) for number in range(count)) + self._end(), count + 1

    def segments(self, data: bytes) -> list[bytes]:
        """The bytes, cut at some places, at every place, or nowhere."""
        style = self._random.random()
        if style < 0.1:
            return [data[at : at + 1] for at in range(len(data))]
        cuts = self._random.sample(range(len(data)), min(len(data), self._random.randint(0, 5)))
        places = [0, *sorted(cuts), len(data)]
        return [data[start:end] for start, end in pairwise(places) if end > start]

    def damaged(self, data: bytes) -> bytes:
        """The bytes, with something in them that does not belong there, or without something that does."""
        for _ in range(self._random.randint(1, 3)):
            line_ends = [match.start() for match in re.finditer(rb"\r\n", data)] or [0]
            at = self._random.choice((self._random.randrange(len(data)), self._random.choice(line_ends)))
            data = data[:at] + self._random.choice(DAMAGE) + data[at + self._random.choice((0, 0, 1, 2, 9)) :]
        return data

    def _end(self) -> bytes:
        if self._random.random() < 0.2:
            return b"GET /last HTTP/1.0\r\n\r\n" + INNER
        return LAST + self._random.choice((b"", INNER, b"\0"))

    def _request(self, number: int) -> bytes:
        choose = self._random.choice
        method = choose(METHODS)
        target = choose((b"/%d", b"/%d?a=b&c", b"/%%20%d//", b"http://other/%d?x")) % number
        fields = [b"Host: x", b"Accept: */*", b"X-%d:\t a b " % number]
        if self._random.random() < 0.5:
            fields += choose(OFFERS)
        if self._random.random() < 0.1:
            fields.append(b"Expect: 100-continue")
        framing, body = self._framed(choose(BODIES) * self._random.randint(1, 3))
        self._random.shuffle(fields)
        fields.insert(self._random.randint(0, len(fields)), framing)
        lines = b"\r\n".join([b"%b %b HTTP/1.1" % (method, target), *filter(None, fields)])
        return lines + b"\r\n\r\n" + body

    def _framed(self, body: bytes) -> tuple[bytes, bytes]:
        style = self._random.random()
        if style < 0.2:
            return b"", b""
        if style < 0.6:
            return self._random.choice((b"Content-Length: %d", b"content-length:%03d \t")) % len(body), body
        return self._random.choice((b"Transfer-Encoding: chunked", b"TRANSFER-ENCODING:Chunked ")), self._chunks(body)

    def _chunks(self, body: bytes) -> bytes:
        choose, chunks = self._random.choice, []
        while body:
            size = self._random.randint(1, len(body))
            chunks.append(choose((b"%x", b"%X", b"%04x")) % size + choose(EXTENSIONS) + b"\r\n" + body[:size] + b"\r\n")
            body = body[size:]
        return b"".join(chunks) + choose((b"0", b"000")) + choose(EXTENSIONS) + b"\r\n" + choose(TRAILERS) + b"\r\n"


DAMAGE = [
    *(bytes([byte]) for byte in b'\r\n\0\t\x0b :;,="/0159afxG\x7f\xff'),
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n\n",
        b"\r\n ",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"0\r\n\r\n",
        b"chunked",
        b"identity",
        b"close",
    ),
    *(b"\r\nContent-Length: 1", b"\r\nContent-Length: 01", b"\r\nContent-Length: 1, 1", b"\r\nContent-Length:"),
    *(b"\r\nTransfer-Encoding: chunked", b"\r\nTransfer-Encoding: gzip, chunked", b"\r\nTransfer-Encoding : chunked"),
    *(
        b"\r\nTransfer-Encoding: identity",
        b"\r\nHost: y",
        b"\r\nConnection: close",
        b"\r\nConnection: upgrade\r\nUpgrade: x",
    ),
    *(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET ", b"http://", b"*", INNER, LAST),
]


def read_by_h11(data: bytes) -> Read:
    """What h11 reads."""
    read = Read()
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request, body = None, bytearray()
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as exc:
            read.end, read.reason = "rejected", str(exc)
            return read
        if event is h11.NEED_DATA:
            return read
        if isinstance(event, h11.Request):
            request, body = event, bytearray()
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            target = re.sub(rb"^(?i:https?)://[^/?]*", b"", request.target)
            target = target if target[:1] in (b"/", b"*") else b"/" + target
            read.requests.append(report(request.method, target, bytes(body)))
            connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE:
                read.end = "closed"
                return read
            connection.start_next_cycle()


async def read_by_us(server: ReadyServer, segments: list[bytes]) -> Read:
    """What this server reads, judged by its responses."""
    async with client_of(server) as client:
        await client.send(segments)
        await client.quiet()
        open_ = client.is_open
        if open_:
            client.close_input()
        response = await client.rest()
    end = "rejected" if statuses(response)[-1:] in ([400], [431]) else "open" if open_ else "closed"
    return Read(reports(response), end)


async def test_well_formed_requests_are_read_as_h11_reads_them() -> None:
    generator, count = Generator(1), 0
    async with echoing() as server:
        while count < REQUESTS:
            data, requests = generator.sequence()
            expected = read_by_h11(data)
            assert (len(expected.requests), expected.end) == (requests, "closed"), data

            assert await read_by_us(server, generator.segments(data)) == expected, data
            count += requests


async def test_no_cut_changes_the_requests() -> None:
    generator = Generator(3)
    async with echoing() as server:
        for _ in range(CUT_EVERYWHERE):
            data, _ = generator.sequence()
            expected = read_by_h11(data)
            for at in range(1, len(data)):
                assert await read_by_us(server, [data[:at], data[at:]]) == expected, (data, at)


async def test_damaged_requests_are_read_as_h11_reads_them_or_rejected() -> None:
    generator, ends = Generator(2), Counter[tuple[str, str]]()
    async with echoing() as server:
        for _ in range(DAMAGED):
            data = generator.damaged(generator.sequence()[0])
            theirs, ours = read_by_h11(data), await read_by_us(server, generator.segments(data))
            ends[theirs.end, ours.end] += 1
            assert is_harmless(theirs, ours), (data, theirs, ours)

    assert ends["rejected", "rejected"] > DAMAGED / 5


def is_harmless(theirs: Read, ours: Read) -> bool:
    """Whether both read the same until one of them rejects the rest."""
    if "rejected" not in (theirs.end, ours.end):
        return theirs == ours
    ours_first = ours.requests == theirs.requests[: len(ours.requests)]
    theirs_first = theirs.requests == ours.requests[: len(theirs.requests)]
    return (ours.end == "rejected" and ours_first) or (theirs_first and bool(LAXER.fullmatch(theirs.reason)))


SERVER = ("-m", "app", "--host", "127.0.0.1", "--port", "0")
OFFERED = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("offer", OFFERS[:2], ids=["h2c", "websocket"])
async def test_upgrade_offers_in_flight_are_finished_at_shutdown(
    offer: tuple[bytes, ...], tls: bool, simulator: Simulator, tmp_path: Path
) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "[sim tokens=20 itl=0.02]"}], "stream": True}).encode()
    head = OFFERED % (len(body), b"".join(line + b"\r\n" for line in offer))
    flags, trusting = certified(tmp_path) if tls else ((), None)
    variables = {"OPENAI_API_KEY": "sk-test-key", "OPENAI_BASE_URL": simulator.base_url}
    async with started(*SERVER, *flags, cwd=tmp_path, **variables) as server:
        port = int((await server.wait_for_line(r"running on \S+:(\d+)"))[1])
        idle_reader, idle = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        idle.write(head + body)
        await idle_reader.readuntil(b"\r\n0\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        writer.write(head)
        await writer.drain()
        writer.write(body)
        response = await reader.readuntil(b"data: ")
        server.process.send_signal(signal.SIGTERM)
        response += await reader.read()
        assert await idle_reader.read() == b""
        assert await server.ended() == 0
        for each in (idle, writer):
            each.close()

    assert response.startswith(b"HTTP/1.1 200 ")
    assert response.count(b"HTTP/1.1 ") == 1
    assert b"data: [DONE]\n\n" in response
    assert "Traceback" not in server.said
    assert len(simulator.traffic.exchanges) == 2


def certified(folder: Path) -> tuple[tuple[str, ...], ssl.SSLContext]:
    """Flags for a certificate in this folder, and a context that trusts it."""
    authority, trusting = trustme.CA(), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    authority.configure_trust(trusting)
    return ("--ssl-certfile", "server.pem"), trusting
