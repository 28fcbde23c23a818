"""The load generator: keep-alive connections that send raw bytes and check every response."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from benchmarks import canned
from benchmarks.http1 import WrongResponse, content_of, is_complete

CLIENT_KEY = "sk-bench"
CONNECTIONS_OPENED_AT_ONCE = 50
WARM_UP_S = 0.3
LAST_CHUNK = b"\r\n0\r\n\r\n"
START_LIMIT_S = 10


@dataclass(frozen=True)
class Target:
    """A candidate's port, and additional header lines, each ending in CRLF."""

    port: int
    headers: str = ""

    def request(self, prompt: bytes = b"") -> bytes:
        """Return the bytes of a chat request; a word of canned.py in the prompt selects a stream."""
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
    """The results of all connections of one measurement. Times are in seconds."""

    responses: int = 0
    events: int = 0
    latencies_s: list[float] = field(default_factory=list)
    first_events_s: list[float] = field(default_factory=list)
    largest_gap_s: float = 0.0
    wrong: str | None = None
    first_response: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the first response, correct or not."""

    def clear(self) -> None:
        """Reset the results; requests in flight continue."""
        self.first_response.clear()
        self.responses = self.events = 0
        self.latencies_s, self.first_events_s, self.largest_gap_s = [], [], 0.0


def check_json(content: bytes) -> None:
    """Raise WrongResponse unless this is the canned response, in OpenAI's or vLLM's form."""
    if b"harbour wall" not in content or b"224" not in content:
        raise WrongResponse(content[:300].decode(errors="replace"))


def check_stream(content: bytes) -> None:
    """Raise WrongResponse unless every content event and the end are there."""
    events = content.count(canned.EVENT_MARK)
    if events != canned.STREAM_EVENTS or not content.endswith(b"data: [DONE]\n\n"):
        raise WrongResponse(f"{events} events, ending in {content[-100:]!r}")


class Connection(asyncio.Protocol):
    """Repeats one request, each time after the previous response is complete."""

    def __init__(self, request: bytes, tally: Tally, check: Callable[[bytes], None]) -> None:
        self._request = request
        self._tally = tally
        self._check = check
        self.started = asyncio.get_running_loop().create_future()
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
        """Cancel waits for the first event (asyncio)."""
        self.started.cancel()

    def _send(self) -> None:
        self._clear()
        self._sent_at = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Process data, and send the next request at the end of a response (asyncio)."""
        self._missing = self._length_after(data) if self._missing is None else self._missing - len(data)
        self._pieces.append(data)
        if events := data.count(canned.EVENT_MARK):
            self._count(events)
        self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
        if self._missing == 0 or (self._missing < 0 and self._tail == LAST_CHUNK):
            self._finish()

    def _length_after(self, data: bytes) -> int:
        """Return the bytes missing after the first read, which contains the whole head; -1 without Content-Length."""
        head, _, body = data.partition(b"\r\n\r\n")
        _, named, value = head.lower().partition(b"content-length:")
        return int(value.partition(b"\r\n")[0]) - len(body) if named else -1

    def _count(self, events: int) -> None:
        now = time.perf_counter()
        self._tally.events += events
        if self._last_event_at is None:
            self._tally.first_events_s.append(now - self._sent_at)
            if not self.started.done():
                self.started.set_result(None)
        else:
            self._tally.largest_gap_s = max(self._tally.largest_gap_s, now - self._last_event_at)
        self._last_event_at = now

    def _finish(self) -> None:
        self._tally.latencies_s.append(time.perf_counter() - self._sent_at)
        self._tally.responses += 1
        self._tally.first_response.set()
        try:
            self._check(content_of(b"".join(self._pieces)))
        except WrongResponse as exc:
            self._tally.wrong = str(exc)
            self.transport.close()
            return
        self._send()


class Load:
    """Connections to one candidate; a context manager that closes them."""

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
        """Open more connections, evenly over `spread_s` seconds."""
        start_time = time.perf_counter()
        loop = asyncio.get_running_loop()
        for number in range(connections):
            await asyncio.sleep(max(0.0, start_time + number * spread_s / connections - time.perf_counter()))
            _, connection = await loop.create_connection(
                lambda: Connection(self._request, self.tally, self._check), "127.0.0.1", self._target.port
            )
            self._connections.append(connection)
        return self._connections

    async def open_streams(self, connections: int) -> int:
        """Open streams in batches of fifty; return how many are open.

        Stops at the first batch in which a stream has no first event in time.
        """
        for open_count in range(0, connections, CONNECTIONS_OPENED_AT_ONCE):
            opened = await self.open(CONNECTIONS_OPENED_AT_ONCE)
            starts = [connection.started for connection in opened[-CONNECTIONS_OPENED_AT_ONCE:]]
            _, waiting = await asyncio.wait(starts, timeout=START_LIMIT_S)
            if waiting or any(start.cancelled() for start in starts):
                return open_count
        return connections

    async def run(self, seconds: float) -> None:
        """Keep the load running for `seconds`, or until the first response if that takes longer.

        Raises:
            WrongResponse: a response was wrong, or there was none.
        """
        await asyncio.sleep(seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_LIMIT_S):
                await self.tally.first_response.wait()
        if self.tally.wrong:
            raise WrongResponse(self.tally.wrong)
        if not self.tally.responses:
            raise WrongResponse("no response")


async def request_once(target: Target, prompt: bytes = b"", *, limit_s: float = 60) -> bytes:
    """Return the body of one response, retrying until the candidate listens and its response is correct.

    Raises:
        TimeoutError: no correct response within `limit_s` seconds.
    """
    async with asyncio.timeout(limit_s):
        while True:
            with contextlib.suppress(OSError, WrongResponse):
                return await _request(target, prompt)
            await asyncio.sleep(0.005)


async def _request(target: Target, prompt: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    try:
        writer.write(target.request(prompt))
        response = b""
        while not is_complete(response):
            if not (data := await reader.read(2**16)):
                raise WrongResponse("the connection was closed")
            response += data
    finally:
        writer.close()
    content = content_of(response)
    (check_stream if prompt else check_json)(content)
    return content
