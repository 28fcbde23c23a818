"""The load generator: keep-alive connections on raw bytes, each answer checked: a broken one is not a fast one."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from benchmarks import canned
from benchmarks.http1 import WrongAnswer, content_of, is_complete

CLIENT_KEY = "sk-bench"
CONNECTIONS_OPENED_AT_ONCE = 50
WARM_UP_S = 0.3
LAST_CHUNK = b"\r\n0\r\n\r\n"
BEGINNING_LIMIT_S = 10


@dataclass(frozen=True)
class Target:
    """Where a candidate listens, and the header lines it wants, each ending in CRLF."""

    port: int
    headers: str = ""

    def request(self, prompt: bytes = b"") -> bytes:
        """The bytes of a chat request; a word of canned.py in the prompt asks for a stream."""
        body: dict[str, object] = {
            "model": canned.SERVED_MODEL,
            "messages": [
                {"role": "system", "content": "You are a concise assistant."},
                {"role": "user", "content": f"Tell me about the harbour. {prompt.decode()}"},
            ],
            "max_tokens": 256,
            "temperature": 0.2,
        }
        if prompt:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        content = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{self.headers}"
            f"Authorization: Bearer {CLIENT_KEY}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content


@dataclass
class Tally:
    """What all connections of one measurement saw. Times are in seconds."""

    answers: int = 0
    events: int = 0
    latencies_s: list[float] = field(default_factory=list)
    first_events_s: list[float] = field(default_factory=list)
    largest_gap_s: float = 0.0
    wrong: str | None = None
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the first answer, right or wrong."""

    def clear(self) -> None:
        """Begin again; what connections are in the middle of goes on."""
        self.answered.clear()
        self.answers = self.events = 0
        self.latencies_s, self.first_events_s, self.largest_gap_s = [], [], 0.0


def check_json(content: bytes) -> None:
    """Raises WrongAnswer unless it is the canned answer, in whatever dialect."""
    if b"harbour wall" not in content or b"224" not in content:
        raise WrongAnswer(content[:300].decode(errors="replace"))


def check_stream(content: bytes) -> None:
    """Raises WrongAnswer unless every content event and the end are there."""
    events = content.count(canned.MARK)
    if events != canned.STREAM_EVENTS or not content.endswith(b"data: [DONE]\n\n"):
        raise WrongAnswer(f"{events} events, ending in {content[-100:]!r}")


class Connection(asyncio.Protocol):
    """Sends the same request again and again, each when the one before is answered."""

    def __init__(self, request: bytes, tally: Tally, check: Callable[[bytes], None]) -> None:
        self._request = request
        self._tally = tally
        self._check = check
        self.begun = asyncio.get_running_loop().create_future()
        self._clear()

    def _clear(self) -> None:
        self._pieces: list[bytes] = []
        self._missing: int | None = None
        self._tail = b""
        self._last_event_at: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request (asyncio)."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let nobody wait for the beginning any longer (asyncio)."""
        self.begun.cancel()

    def _send(self) -> None:
        self._clear()
        self._sent_at = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take what came, and send the next request where that was the end (asyncio)."""
        self._missing = self._length_after(data) if self._missing is None else self._missing - len(data)
        self._pieces.append(data)
        if events := data.count(canned.MARK):
            self._count(events)
        self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
        if self._missing == 0 or (self._missing < 0 and self._tail == LAST_CHUNK):
            self._finish()

    def _length_after(self, data: bytes) -> int:
        """Bytes missing after the first read, which has the whole head; below zero where the head does not say."""
        head, _, body = data.partition(b"\r\n\r\n")
        _, named, value = head.lower().partition(b"content-length:")
        return int(value.partition(b"\r\n")[0]) - len(body) if named else -1

    def _count(self, events: int) -> None:
        now = time.perf_counter()
        self._tally.events += events
        if self._last_event_at is None:
            self._tally.first_events_s.append(now - self._sent_at)
            if not self.begun.done():
                self.begun.set_result(None)
        else:
            self._tally.largest_gap_s = max(self._tally.largest_gap_s, now - self._last_event_at)
        self._last_event_at = now

    def _finish(self) -> None:
        self._tally.latencies_s.append(time.perf_counter() - self._sent_at)
        self._tally.answers += 1
        self._tally.answered.set()
        try:
            self._check(content_of(b"".join(self._pieces)))
        except WrongAnswer as exc:
            self._tally.wrong = str(exc)
            self.transport.close()
            return
        self._send()


class Load:
    """Connections to one candidate, closed at the end of the block."""

    def __init__(self, target: Target, prompt: bytes = b"") -> None:
        self.tally = Tally()
        self._target = target
        self._request = target.request(prompt)
        self._check = check_stream if prompt else check_json
        self._connections: list[Connection] = []

    async def __aenter__(self) -> "Load":
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for connection in self._connections:
            connection.transport.abort()
        await asyncio.sleep(0.05)

    async def open(self, connections: int, *, spread_s: float = 0) -> Sequence[Connection]:
        """Open so many more, evenly over `spread_s` seconds."""
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        for number in range(connections):
            await asyncio.sleep(max(0.0, began + number * spread_s / connections - time.perf_counter()))
            _, connection = await loop.create_connection(
                lambda: Connection(self._request, self.tally, self._check), "127.0.0.1", self._target.port
            )
            self._connections.append(connection)
        return self._connections

    async def open_begun(self, connections: int) -> int:
        """Open so many streams, each waited for until its first event; how many a candidate held open.

        It ends at the first fifty of which one has not begun in time.
        """
        for held in range(0, connections, CONNECTIONS_OPENED_AT_ONCE):
            opened = await self.open(CONNECTIONS_OPENED_AT_ONCE)
            beginnings = [connection.begun for connection in opened[-CONNECTIONS_OPENED_AT_ONCE:]]
            _, waiting = await asyncio.wait(beginnings, timeout=BEGINNING_LIMIT_S)
            if waiting or any(beginning.cancelled() for beginning in beginnings):
                return held
        return connections

    async def run(self, seconds: float) -> None:
        """Let it go on for so long, or until the first answer where that takes longer.

        Raises:
            WrongAnswer: one answer was not what was asked for, or there was none.
        """
        await asyncio.sleep(seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEGINNING_LIMIT_S):
                await self.tally.answered.wait()
        if self.tally.wrong:
            raise WrongAnswer(self.tally.wrong)
        if not self.tally.answers:
            raise WrongAnswer("no answer")


async def answer_once(target: Target, prompt: bytes = b"", *, limit_s: float = 60) -> bytes:
    """The content of one answer, asked for again until the candidate listens and answers it.

    Raises:
        TimeoutError: it did not, for `limit_s` seconds.
    """
    async with asyncio.timeout(limit_s):
        while True:
            with contextlib.suppress(OSError, WrongAnswer):
                return await _ask(target, prompt)
            await asyncio.sleep(0.005)


async def _ask(target: Target, prompt: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    try:
        writer.write(target.request(prompt))
        answer = b""
        while not is_complete(answer):
            if not (data := await reader.read(2**16)):
                raise WrongAnswer("the connection was closed")
            answer += data
    finally:
        writer.close()
    content = content_of(answer)
    (check_stream if prompt else check_json)(content)
    return content
