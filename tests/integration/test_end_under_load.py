"""SIGTERM while many requests are in flight."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.processes import started

CLIENTS = 40
SERVER = ("-m", "app", "--host", "127.0.0.1", "--port", "0")
BODIES: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"messages": [{"role": "user", "content": "[sim tokens=20 itl=0.05]"}]}),
    (CHAT, {"messages": [{"role": "user", "content": "[sim tokens=20 itl=0.05]"}], "stream": True}),
    ("/v1/completions", {"prompt": ["[sim tokens=20 itl=0.05]"] * 2, "max_tokens": 50, "stream": True}),
]


def outcome_of(response: httpx.Response) -> str:
    if response.status_code == 503:
        assert response.json()["error"]["type"] == "ServiceUnavailableError"
        return "refused"
    assert response.status_code == 200
    assert "error" not in response.text
    assert '"finish_reason":"stop"' in response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        assert response.text.endswith("data: [DONE]\n\n")
    return "complete"


def calls_of(body: dict[str, Any]) -> int:
    """Calls to OpenAI per request: one for each prompt."""
    return len(body.get("prompt", [1]))


async def ask_until_the_end(url: str, number: int, outcomes: Counter[str]) -> None:
    """Send requests on one connection until the server closes it."""
    path, body = BODIES[number % len(BODIES)]
    async with httpx.AsyncClient(base_url=url) as client:
        while not outcomes["refused"] and not outcomes["not connected"]:
            try:
                outcome = outcome_of(await client.post(path, json=body))
                outcomes[outcome] += 1
                outcomes["delivered calls"] += calls_of(body) if outcome == "complete" else 0
            except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
                # The server may close an idle connection just as its client sends the next request (RFC 9112, 9.3.1).
                outcomes["not connected"] += 1


CALLS = sum(calls_of(BODIES[number % len(BODIES)][1]) for number in range(CLIENTS))
"""Calls to OpenAI with one request in flight per client."""


@pytest.mark.parametrize(
    ("answered", "live"), [(0, CALLS), (CALLS // 2, CALLS // 2)], ids=["all in the first request", "some in the next"]
)
async def test_sigterm_under_load_loses_no_request(
    answered: int, live: int, simulator: Simulator, tmp_path: Path
) -> None:
    outcomes: Counter[str] = Counter()
    variables = {"OPENAI_API_KEY": "sk-test-key", "OPENAI_BASE_URL": simulator.base_url, "SHUTDOWN_TIMEOUT_S": "60"}
    async with started(*SERVER, cwd=tmp_path, **variables) as server, asyncio.TaskGroup() as clients:
        url = await server.url()
        for number in range(CLIENTS):
            clients.create_task(ask_until_the_end(url, number, outcomes))
        await simulator.traffic.wait_for(lambda traffic: traffic.answered >= answered and traffic.live >= live)
        before = outcomes["complete"]
        server.process.terminate()
        assert await server.ended() == 0

    assert outcomes["complete"] - before >= CLIENTS * live // CALLS // 2
    assert (outcomes["delivered calls"], simulator.traffic.abandoned) == (simulator.traffic.answered, 0)
    assert "Traceback" not in server.said
