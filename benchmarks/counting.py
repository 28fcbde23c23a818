"""Function calls per request and per event, a measure that does not depend on load: `python -m benchmarks.counting`.

The server runs in this thread, where Python and C calls are counted (`sys.setprofile`). Upstream and client run in
other threads and send each item only after the previous one has arrived, so that every read returns the same. The exit
status is 1 above a ceiling. A commit that needs more calls raises the ceiling here.
"""

import asyncio
import socket
import sys
import threading
from types import FrameType

import uvloop

from benchmarks import canned
from benchmarks.candidates import EVERYTHING_ON
from benchmarks.http1 import is_complete
from benchmarks.load import Target
from tests.serving import served_over

CEILINGS = {
    "a JSON request": 605,
    "an event that comes alone": 46.2,
    "an event among many": 6.0,
}
"""Maximum calls. Counts vary by 0.2; the margin is below one call for an event and about twenty for a request."""

WARM_UP = 30
COUNTED = 200
EVENTS_PER_READ = {canned.IDLE: 1, canned.BURST: 100}
"""The events that arrive in one read, by the word that selects the stream."""
LIMIT_S = 20


class Calls:
    """A profile function that counts the calls of its thread."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, _frame: FrameType, event: str, _argument: object) -> None:
        """Count one profiler event (sys.setprofile)."""
        self.made += event in {"call", "c_call"}


class Upstream:
    """Serves each connection in a thread; the events of a stream are sent when they are released."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.released = {prompt: threading.Semaphore(0) for prompt in EVENTS_PER_READ}
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            threading.Thread(target=self._respond, args=(connection,), daemon=True).start()

    def _respond(self, connection: socket.socket) -> None:
        request = b""
        while data := connection.recv(2**16):
            request += data
            if is_complete(request):
                self._send(connection, request)
                request = b""

    def _send(self, connection: socket.socket, request: bytes) -> None:
        prompt = next((prompt for prompt in EVENTS_PER_READ if prompt in request), None)
        if prompt is None:
            connection.sendall(canned.JSON_RESPONSE)
            return
        connection.sendall(canned.STREAM_START)
        while self.released[prompt].acquire():
            connection.sendall(canned.CONTENT_EVENTS[0] * EVENTS_PER_READ[prompt])


class Client:
    """A blocking connection to the server."""

    def __init__(self, port: int) -> None:
        self._target = Target(port)
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)

    def request_json(self) -> None:
        """Send a request and read its whole response."""
        self._connection.sendall(self._target.request())
        response = b""
        while not is_complete(response):
            response += self._read()

    def start_stream(self, prompt: bytes) -> None:
        """Start a stream and read its first bytes."""
        self._connection.sendall(self._target.request(prompt))
        self._read()

    def receive(self, events: int) -> None:
        """Read this many content events."""
        while events > 0:
            events -= self._read().count(canned.EVENT_MARK)

    def _read(self) -> bytes:
        data = self._connection.recv(2**20)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data


def calls_for_a_request(calls: Calls, port: int) -> float:
    """Return the calls per whole response on one connection."""
    client = Client(port)
    before = 0
    for number in range(WARM_UP + COUNTED):
        if number == WARM_UP:
            before = calls.made
        client.request_json()
    return (calls.made - before) / COUNTED


def calls_for_an_event(calls: Calls, port: int, upstream: Upstream, prompt: bytes) -> float:
    """Return the calls per event of one stream."""
    client = Client(port)
    client.start_stream(prompt)
    before = 0
    for number in range(WARM_UP + COUNTED):
        if number == WARM_UP:
            before = calls.made
        upstream.released[prompt].release()
        client.receive(EVENTS_PER_READ[prompt])
    return (calls.made - before) / COUNTED / EVENTS_PER_READ[prompt]


def measure(calls: Calls, port: int, upstream: Upstream) -> dict[str, float]:
    """Return the calls for each of `CEILINGS`."""
    return {
        "a JSON request": calls_for_a_request(calls, port),
        "an event that comes alone": calls_for_an_event(calls, port, upstream, canned.IDLE),
        "an event among many": calls_for_an_event(calls, port, upstream, canned.BURST),
    }


async def count() -> dict[str, float]:
    """Serve in this thread and measure from another."""
    upstream, calls = Upstream(), Calls()
    base_url, on = (
        f"http://127.0.0.1:{upstream.port}/v1",
        {name.lower(): value for name, value in EVERYTHING_ON.items()},
    )
    async with served_over(base_url, startup_check="off", **on) as url:
        sys.setprofile(calls)
        try:
            return await asyncio.to_thread(measure, calls, int(url.rpartition(":")[2]), upstream)
        finally:
            sys.setprofile(None)


def main() -> int:
    """Print the counts; return 1 if one exceeds its ceiling."""
    beyond = 0
    for name, made in uvloop.run(count()).items():
        beyond += made > CEILINGS[name]
        print(f"{name}: {made:.2f} calls (ceiling {CEILINGS[name]})")
    return int(beyond > 0)


if __name__ == "__main__":
    sys.exit(main())
