"""Twenty times as many clients as calls that may be made, at a server of its own. OVERLOAD_S says for how long."""

import asyncio
import json
import os
import subprocess
import time
from collections import Counter
from pathlib import Path

from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.processes import started

CAP = 5
CLIENTS = 20 * CAP
OVERLOAD_S = float(os.environ.get("OVERLOAD_S") or 4)
PAUSE_S = 0.1
"""How soon a client comes again; `Retry-After` asks for ten times as long."""
HEALTH_LIMIT_S = 0.05

BODY = json.dumps({"messages": [{"role": "user", "content": "[sim tokens=10 itl=0.02]"}], "stream": True}).encode()
ASK = (
    f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n".encode()
)
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


class Client:
    """A connection that is kept, without the costs of a library: they would be taken for the server's."""

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


async def press(port: int, until: float, seen: Counter[int]) -> None:
    client = await Client.connected(port)
    while time.monotonic() < until:
        status, body = await client.ask(ASK + BODY)
        seen[status] += 1
        assert body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") if status == 200 else b"Service Unavailable" in body
        await asyncio.sleep(PAUSE_S)
    client.close()


async def probe(port: int, until: float) -> list[float]:
    client, latencies_s = await Client.connected(port), []
    while time.monotonic() < until:
        began = time.perf_counter()
        assert (await client.ask(HEALTH))[0] == 200
        latencies_s.append(time.perf_counter() - began)
        await asyncio.sleep(0.01)
    client.close()
    return sorted(latencies_s)


def resident_kb(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], check=True, capture_output=True).stdout)


async def under_pressure(port: int, seconds: float) -> tuple[Counter[int], list[float]]:
    seen: Counter[int] = Counter()
    until = time.monotonic() + seconds
    async with asyncio.timeout(seconds + 10), asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(press(port, until, seen))
        latencies_s = await probe(port, until)
    return seen, latencies_s


async def test_an_overloaded_server_answers_everybody_and_stays_well(simulator: Simulator, tmp_path: Path) -> None:
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
        await under_pressure(port, 1)
        before_kb = resident_kb(server.process.pid)
        seen, latencies_s = await under_pressure(port, OVERLOAD_S)
        after_kb = resident_kb(server.process.pid)

    p99_s = latencies_s[int(len(latencies_s) * 0.99)]
    print(f"{dict(seen)}; /health p99 {p99_s * 1000:.1f} ms of {len(latencies_s)}; {before_kb} kB, then {after_kb} kB")
    assert set(seen) == {200, 503}
    assert seen[200] >= CAP * OVERLOAD_S
    assert simulator.traffic.most_live <= CAP
    assert after_kb < before_kb * 1.1
    assert p99_s < HEALTH_LIMIT_S
