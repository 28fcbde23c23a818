"""What a request and an event cost in function calls, which no busy machine changes: `python -m benchmarks.counting`.

The server runs in this thread, where Python's and C's calls are counted (`sys.setprofile`); upstream and client are in
others, and send the next only when the one before has come through, so that every read brings the same. Status 1 beyond
a ceiling. Whoever means to spend more raises it here, in the commit that spends.
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
"""Calls for each. Counts vary by 0.2: an event has room for less than one call more, a request for some twenty."""

WARMING = 30
COUNTED = 200
AT_ONCE = {canned.IDLE: 1, canned.BURST: 100}
"""Events that come in one piece, by the word that asks for them."""
LIMIT_S = 20


class Calls:
    """Counts the calls of the thread that installs it."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, _frame: FrameType, event: str, _argument: object) -> None:
        """One event of the profiler (sys.setprofile)."""
        self.made += event in {"call", "c_call"}


class Upstream:
    """Answers each connection in a thread; the events of a stream wait until they are called for."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.called_for = {prompt: threading.Semaphore(0) for prompt in AT_ONCE}
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        request = b""
        while data := connection.recv(2**16):
            request += data
            if is_complete(request):
                self._send(connection, request)
                request = b""

    def _send(self, connection: socket.socket, request: bytes) -> None:
        prompt = next((prompt for prompt in AT_ONCE if prompt in request), None)
        if prompt is None:
            connection.sendall(canned.JSON_ANSWER)
            return
        connection.sendall(canned.BEGUN_STREAM)
        while self.called_for[prompt].acquire():
            connection.sendall(canned.CONTENT_EVENTS[0] * AT_ONCE[prompt])


class Client:
    """One connection to the server, which it waits for."""

    def __init__(self, port: int) -> None:
        self._target = Target(port)
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)

    def ask(self) -> None:
        """A whole answer."""
        self._connection.sendall(self._target.request())
        answer = b""
        while not is_complete(answer):
            answer += self._read()

    def begin(self, prompt: bytes) -> None:
        """A stream, up to its first bytes."""
        self._connection.sendall(self._target.request(prompt))
        self._read()

    def receive(self, events: int) -> None:
        """So many content events."""
        while events > 0:
            events -= self._read().count(canned.MARK)

    def _read(self) -> bytes:
        data = self._connection.recv(2**20)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data


def calls_for_a_request(calls: Calls, port: int) -> float:
    """Of whole answers on one connection."""
    client = Client(port)
    before = 0
    for number in range(WARMING + COUNTED):
        if number == WARMING:
            before = calls.made
        client.ask()
    return (calls.made - before) / COUNTED


def calls_for_an_event(calls: Calls, port: int, upstream: Upstream, prompt: bytes) -> float:
    """Of one stream's events."""
    client = Client(port)
    client.begin(prompt)
    before = 0
    for number in range(WARMING + COUNTED):
        if number == WARMING:
            before = calls.made
        upstream.called_for[prompt].release()
        client.receive(AT_ONCE[prompt])
    return (calls.made - before) / COUNTED / AT_ONCE[prompt]


def measure(calls: Calls, port: int, upstream: Upstream) -> dict[str, float]:
    """Calls for each of `CEILINGS`."""
    return {
        "a JSON request": calls_for_a_request(calls, port),
        "an event that comes alone": calls_for_an_event(calls, port, upstream, canned.IDLE),
        "an event among many": calls_for_an_event(calls, port, upstream, canned.BURST),
    }


async def count() -> dict[str, float]:
    """Serve in this thread and measure from another one."""
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
    """Print the counts; status 1 beyond a ceiling."""
    beyond = 0
    for name, made in uvloop.run(count()).items():
        beyond += made > CEILINGS[name]
        print(f"{name}: {made:.2f} calls (ceiling {CEILINGS[name]})")
    return int(beyond > 0)


if __name__ == "__main__":
    sys.exit(main())
