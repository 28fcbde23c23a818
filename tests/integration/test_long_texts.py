"""The server stays responsive while it tokenizes long texts, with load from other processes."""

import asyncio
import http.client
import json
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import pytest
import pytest_asyncio

from tests.processes import started

MOST = 0.5
"""The maximum share of a long text's time that /health may take. A blocked one takes nearly all of it."""
ROUNDS = 5
"""The machine has other work, and the tokenizer a memory: most of these have to be undisturbed by either."""
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
        assert await asyncio.wait_for(process.stdout.readline(), 60), "the server did not answer"
        yield process
        assert process.returncode is None, "the server stopped answering"
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def slowest_health_s(host: str, over: threading.Event) -> float:
    """The longest that /health took, asked again and again until it is `over`."""
    connection = http.client.HTTPConnection(host, timeout=60)
    slowest = 0.0
    while not over.is_set():
        begun = time.perf_counter()
        connection.request("GET", "/health")
        connection.getresponse().read()
        slowest = max(slowest, time.perf_counter() - begun)
    connection.close()
    return slowest


async def longest_share(host: str, load: asyncio.subprocess.Process) -> float:
    """The longest that /health took between two answers of `load`, as a share of the time between them."""
    assert load.stdout is not None
    over = threading.Event()
    assert await load.stdout.readline(), "the server stopped answering"
    begun = time.perf_counter()
    asking = asyncio.create_task(asyncio.to_thread(slowest_health_s, host, over))
    assert await load.stdout.readline(), "the server stopped answering"
    took_s = time.perf_counter() - begun
    over.set()
    return await asking / took_s


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    command = ("-m", "app", "--host", "127.0.0.1", "--port", "0")
    async with started(*command, cwd=tmp_path_factory.mktemp("server"), OPENAI_API_KEY="sk-test") as server:
        yield (await server.url()).removeprefix("http://")


@pytest.mark.parametrize("body", BODIES)
async def test_health_does_not_wait_for_a_long_text_to_be_tokenized(body: str, host: str) -> None:
    async with load_on(host, *BODIES[body]) as load:
        shares = [await longest_share(host, load) for _ in range(ROUNDS)]

    assert median(shares) < MOST
