"""Long texts are tokenized while the server goes on answering: seen from outside, with other processes' load."""

import asyncio
import http.client
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, started

MAY_DELAY_S = 0.020
ROUNDS = 6
"""The machine has other work: one of these rounds has to be undisturbed by it."""
ROUND_S = 0.5
GROWS = "@"
"""Stands for a few letters, other ones with each request: the tokenizer remembers the pieces it has seen."""

# Words that it has not seen.
WORDS = "".join(f" {number * 2654435761 % 2**32:x}{GROWS}" for number in range(75_000))

BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "words": ("/tokenize", {"prompt": WORDS}),
    "shown tokens": ("/tokenize", {"prompt": WORDS, "return_token_strs": True}),
    "one letter": ("/tokenize", {"prompt": "a" * 1_000_000 + GROWS}),
    "messages": (
        "/tokenize",
        {
            "messages": [
                {"role": "user", "content": WORDS[start : start + 1000]} for start in range(0, len(WORDS), 1000)
            ]
        },
    ),
    "ids": ("/detokenize", {"tokens": list(range(1000, 241_000))[:198_000]}),
}

# In a process of its own, or its work would be taken for the server's.
LOAD = """
import http.client, sys
host, path = sys.argv[1:]
text, letters = sys.stdin.buffer.read(), b""
connection = http.client.HTTPConnection(host)
while True:
    letters = b"x" * (len(letters) % 8 + 1)
    connection.request("POST", path, text.replace(b"@", letters), {"content-type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    assert response.status == 200, answer[:200]
    print(len(answer), flush=True)
"""


@asynccontextmanager
async def load_on(host: str, path: str, body: dict[str, Any]) -> AsyncIterator[asyncio.subprocess.Process]:
    """`body` sent to the server again and again, from its first answer to the end of the block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", LOAD, host, path, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(body).encode())
        process.stdin.close()
        assert await asyncio.wait_for(process.stdout.readline(), 30), "the server did not answer"
        yield process
        assert process.returncode is None, "the server stopped answering"
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def slowest_health_s(host: str) -> float:
    """The longest that /health took in one round of asking again and again."""
    connection = http.client.HTTPConnection(host, timeout=10)
    slowest, end = 0.0, time.perf_counter() + ROUND_S
    while (begun := time.perf_counter()) < end:
        connection.request("GET", "/health")
        connection.getresponse().read()
        slowest = max(slowest, time.perf_counter() - begun)
    connection.close()
    return slowest


async def best_round_s(host: str, good_enough_s: float) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        best = min(best, await asyncio.to_thread(slowest_health_s, host))
        if best < good_enough_s:
            break
    return best


@pytest.mark.parametrize("body", BODIES)
async def test_health_is_hardly_delayed_while_long_texts_are_tokenized(body: str, tmp_path: Path) -> None:
    command = ("-m", "app", "--host", "127.0.0.1", "--port", "0")
    async with started(*command, cwd=tmp_path, OPENAI_API_KEY="sk-test", PYTHONPATH=str(ROOT)) as server:
        host = (await server.url()).removeprefix("http://")
        idle_s = await best_round_s(host, 0.005)
        async with load_on(host, *BODIES[body]):
            busy_s = await best_round_s(host, idle_s + MAY_DELAY_S)

    print(f"{body}: /health at worst {idle_s * 1000:.1f} ms idle, {busy_s * 1000:.1f} ms under load")
    assert busy_s - idle_s < MAY_DELAY_S
