"""Soak test: does the server grow under mixed load? `python -m tests.soak [SECONDS]`.

The load is streams, whole responses, errors and clients that disconnect. The server is a separate process that reports
its memory, descriptors and tasks. The first third of the time is warm-up.
"""

import asyncio
import gzip
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from fastapi import FastAPI

from app.__main__ import WRONG_SETTINGS
from app.core.config import load_settings
from app.core.server.connection import HttpConnection
from app.core.server.server import Server
from app.main import create_app
from app.simulator.server import Simulator
from tests.processes import ROOT, started

CLIENTS = 12
SAMPLES = 40
DEFAULT_S = 600.0
SLOPE_MB_PER_MINUTE = 1.0
NOISE_MB = 4.0
"""Growth allowed in a short run: the allocator's steps."""
EXTRA_TASKS, EXTRA_DESCRIPTORS = 2, CLIENTS
"""Growth allowed at the end: upstream connections that are kept alive."""
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Sample:
    """Resources used by the server."""

    at_s: float
    memory_mb: float
    descriptors: int
    tasks: int


def chat(directive: str = "", **fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": f"hello {directive}"}], **fields}


async def whole(client: httpx.AsyncClient) -> int:
    return (await client.post(CHAT, json=chat())).status_code


async def unpacked(client: httpx.AsyncClient) -> int:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    return (await client.post(CHAT, content=gzip.compress(json.dumps(chat()).encode()), headers=headers)).status_code


async def stream(client: httpx.AsyncClient) -> int:
    return (await client.post(CHAT, json=chat("[sim tokens=40]", stream=True))).status_code


async def abandoned(client: httpx.AsyncClient) -> int:
    async with client.stream("POST", CHAT, json=chat("[sim tokens=200 itl=0.01]", stream=True)) as response:
        async for _line in response.aiter_lines():
            break
    return response.status_code


async def abandoned_while_waiting(client: httpx.AsyncClient) -> int:
    try:
        return (await client.post(CHAT, json=chat("[sim ttft=5]"), timeout=0.05)).status_code
    except httpx.TimeoutException:
        return 499


async def wrong(client: httpx.AsyncClient) -> int:
    return (await client.post(CHAT, json=chat(temperature=9))).status_code


async def many_wrong(client: httpx.AsyncClient) -> int:
    return (await client.post(CHAT, json={"messages": [1] * 30_000})).status_code


async def too_large(client: httpx.AsyncClient) -> int:
    return (await client.post(CHAT, content=b" " * 2_000_000, headers={"content-type": "application/json"})).status_code


async def failed(client: httpx.AsyncClient) -> int:
    return (await client.post(CHAT, json=chat("[sim fault=server_error should_retry=false]"))).status_code


async def cut(client: httpx.AsyncClient) -> int:
    return (await client.post(CHAT, json=chat("[sim fault=cut]", stream=True))).status_code


async def tokens(client: httpx.AsyncClient) -> int:
    return (await client.post("/tokenize", json={"prompt": f"{random.random()} " * 300})).status_code  # noqa: S311


KINDS: dict[Callable[[httpx.AsyncClient], Awaitable[int]], int] = {
    whole: 200,
    unpacked: 200,
    stream: 200,
    abandoned: 200,
    abandoned_while_waiting: 499,
    wrong: 400,
    many_wrong: 400,
    too_large: 413,
    failed: 500,
    cut: 200,
    tokens: 200,
}
"""The expected status of each request; 499 is set by this client."""


async def client_of(url: str, number: int, counts: Counter[str]) -> None:
    """Send random requests one after another until cancelled."""
    kinds = random.Random(number)  # noqa: S311
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        while True:
            kind = kinds.choice(list(KINDS))
            counts[f"{kind.__name__} {await kind(client)}"] += 1


async def sample(client: httpx.AsyncClient, at_s: float) -> Sample:
    report = (await client.get("/soak")).json()
    return Sample(at_s, report["memory_mb"], report["descriptors"], report["tasks"])


async def idle(client: httpx.AsyncClient, at_s: float) -> Sample:
    """Wait until the server is idle, then take a sample."""
    async with asyncio.timeout(20):
        while (await client.get("/load")).json()["server_load"]:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.1)
    # Idle connections are closed after about five seconds.
    await asyncio.sleep(7)
    return await sample(client, at_s)


async def load(url: str, seconds: float, counts: Counter[str], probe: httpx.AsyncClient) -> list[Sample]:
    """Run the load and return samples taken at even intervals.

    Raises:
        Exception: a client got no response.
    """
    now = asyncio.get_running_loop().time
    started_at, samples = now(), []
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(client_of(url, number, counts)) for number in range(CLIENTS)]
        while now() - started_at < seconds:
            await asyncio.sleep(seconds / SAMPLES)
            samples.append(await sample(probe, now() - started_at))
        for client in clients:
            client.cancel()
    return samples


def slope_mb_per_minute(samples: Sequence[Sample]) -> float:
    """Return the slope of memory over time by least squares."""
    mean_s = sum(sample.at_s for sample in samples) / len(samples)
    mean_mb = sum(sample.memory_mb for sample in samples) / len(samples)
    square = sum((sample.at_s - mean_s) ** 2 for sample in samples)
    return 60 * sum((sample.at_s - mean_s) * (sample.memory_mb - mean_mb) for sample in samples) / square


def find_problems(seconds: float, slope: float, before: Sample, after: Sample, counts: Counter[str]) -> list[str]:
    """Return the problems found, one line each."""
    expected = {f"{kind.__name__} {status}" for kind, status in KINDS.items()}
    problems = [f"{count} times {what}" for what, count in counts.items() if what not in expected]
    if slope * seconds / 60 > max(NOISE_MB, SLOPE_MB_PER_MINUTE * seconds / 60):
        problems.append(f"memory grows by {slope:.2f} MB a minute")
    if after.descriptors > before.descriptors + EXTRA_DESCRIPTORS:
        problems.append(f"{after.descriptors} descriptors after {before.descriptors}")
    if after.tasks > before.tasks + EXTRA_TASKS:
        problems.append(f"{after.tasks} tasks after {before.tasks}")
    return problems


async def main(seconds: float) -> int:
    """Run the soak test; return 1 if the server grows or a response is unexpected."""
    counts: Counter[str] = Counter()
    async with Simulator() as simulator:
        variables = {"OPENAI_API_KEY": "sk-soak", "OPENAI_BASE_URL": simulator.base_url, "MAX_BODY_BYTES": "1000000"}
        async with started("-m", "tests.soak", "--serve", cwd=ROOT, **variables) as process:
            url = await process.url()
            reading = asyncio.create_task(process.ended(timeout_s=seconds * 2 + 120))
            async with httpx.AsyncClient(base_url=url, timeout=30, headers={"connection": "close"}) as probe:
                await load(url, seconds / 3, counts, probe)
                before = await idle(probe, 0)
                samples = await load(url, seconds * 2 / 3, counts, probe)
                after = await idle(probe, seconds)
            process.process.terminate()
            status = await reading
    slope = slope_mb_per_minute(samples)
    problems = find_problems(seconds * 2 / 3, slope, before, after, counts)
    print(f"{sum(counts.values())} requests: {dict(sorted(counts.items()))}")
    print(f"idle before: {before}\nidle after: {after}\nslope: {slope:.2f} MB a minute, exit status {status}")
    print("\n".join(problems) or "The server does not grow.")
    return bool(problems) or status


def memory_mb() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000


def serve() -> int:
    """Run the server with the additional route `/soak` and without an access log."""
    import uvicorn

    app: FastAPI = create_app(load_settings(host="127.0.0.1", port=0))

    @app.get("/soak")
    async def soak() -> dict[str, float]:
        descriptors, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
        return {"memory_mb": memory_mb(), "descriptors": descriptors, "tasks": tasks}

    config = uvicorn.Config(app, host="127.0.0.1", port=0, http=HttpConnection, access_log=False)
    server = Server(config, app.state.components.lifecycle)
    server.run()
    return 0 if server.started else WRONG_SETTINGS


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(
        serve() if arguments == ["--serve"] else asyncio.run(main(float(arguments[0]) if arguments else DEFAULT_S))
    )
