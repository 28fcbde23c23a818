"""Twenty times as many clients as permits, with a server process."""

import asyncio
import json
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.processes import started

CAP = 5
CLIENTS = 20 * CAP
STREAMS = 15 * CAP
PAUSE_S = 0.3
"""A client's retry delay; `Retry-After` is more than three times as long."""
Seconds = defaultdict[int, list[float]]
"""Response times by status."""

BODY = json.dumps({"messages": [{"role": "user", "content": "[sim tokens=10 itl=0.02]"}], "stream": True}).encode()
ASK = (
    f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n".encode()
)
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


class Client:
    """A kept connection without a library, whose cost would count as the server's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connected(cls, port: int) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """The status and the body of an answer that is complete."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "chunked" in head:
            body = await self._reader.readuntil(b"\r\n0\r\n\r\n")
        else:
            body = await self._reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
        return int(head.split(" ", 2)[1]), body

    def close(self) -> None:
        self._writer.close()


async def press(port: int, over: asyncio.Event, seconds: Seconds) -> None:
    client = await Client.connected(port)
    while not over.is_set():
        begun = time.perf_counter()
        status, body = await client.ask(ASK + BODY)
        seconds[status].append(time.perf_counter() - begun)
        assert body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") if status == 200 else b"Service Unavailable" in body
        await asyncio.sleep(PAUSE_S)
    client.close()


async def probe(port: int, over: asyncio.Event) -> list[float]:
    client, seconds = await Client.connected(port), []
    while not over.is_set():
        begun = time.perf_counter()
        assert (await client.ask(HEALTH))[0] == 200
        seconds.append(time.perf_counter() - begun)
        await asyncio.sleep(0.01)
    client.close()
    return seconds


def resident_kb(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], check=True, capture_output=True).stdout)


async def under_pressure(port: int, simulator: Simulator, streams: int) -> tuple[Seconds, list[float]]:
    """Response times, and those of /health, until enough streams are complete."""
    seconds, over = Seconds(list), asyncio.Event()
    enough = simulator.traffic.answered + streams
    async with asyncio.timeout(60), asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(press(port, over, seconds))
        probing = clients.create_task(probe(port, over))
        await simulator.traffic.wait_for(lambda traffic: traffic.answered >= enough)
        over.set()
    return seconds, probing.result()


async def test_an_overloaded_server_responds_to_every_client_and_stays_healthy(
    simulator: Simulator, tmp_path: Path
) -> None:
    variables = {
        "OPENAI_API_KEY": "sk-test-key",
        "OPENAI_BASE_URL": simulator.base_url,
        "MAX_UPSTREAM_CALLS": str(CAP),
        "MAX_NUM_QUEUED_REQS": str(CAP),
    }
    command = ("-m", "app", "--host", "127.0.0.1", "--port", "0")
    async with started(*command, cwd=tmp_path, **variables) as server:
        port = int((await server.url()).rpartition(":")[2])
        # What is loaded once is no leak.
        await under_pressure(port, simulator, CAP)
        before_kb = resident_kb(server.process.pid)
        seconds, health = await under_pressure(port, simulator, STREAMS)
        after_kb = resident_kb(server.process.pid)

    assert set(seconds) == {200, 503}
    assert simulator.traffic.most_live <= CAP
    assert after_kb < before_kb * 1.1
    # Neither waits for a place among the calls.
    assert median(health) < median(seconds[200]) / 10
    assert median(seconds[503]) < median(seconds[200]) / 4
