"""Requests beyond the limit on concurrent calls: queued, rejected, or given a permit later."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors.request_errors import Overloaded
from app.core.limits.concurrency_limit import ConcurrencyLimiter
from app.main import create_app
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.raw_upstream import FINISH, GOOD, SSE_HEAD, event, http_chunk, raw_server, read_request
from tests.serving import serving, settings_for

TIMEOUT_S = 60
COMPLETIONS = "/v1/completions"


class Served:
    """A client of a server with few permits, and the server's limiter."""

    def __init__(self, client: httpx.AsyncClient, limiter: ConcurrencyLimiter) -> None:
        self.client = client
        self.limiter = limiter

    async def until(self, *, running: int, waiting: int = 0) -> None:
        """Return once this many permits are taken and this many requests wait."""
        async with asyncio.timeout(TIMEOUT_S):
            while (self.limiter.running, self.limiter.waiting) != (running, waiting):  # noqa: ASYNC110 - the limiter has no event for it
                await asyncio.sleep(0.005)


@asynccontextmanager
async def served(simulator: Simulator, **settings: object) -> AsyncIterator[Served]:
    app = create_app(
        settings_for(
            simulator.base_url,
            **{"max_upstream_calls": 1, "max_num_queued_reqs": 0, "queue_timeout_s": TIMEOUT_S, **settings},
        )
    )
    components = app.state.components
    async with (
        serving(app, components.lifecycle) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        yield Served(client, components.concurrency_limiter)


def chat(text: str = "hi", **fields: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


SLOW = chat("[sim fault=stall seconds=600 after=1]", stream=True)


async def test_a_full_queue_is_vllms_503_and_names_the_setting(simulator: Simulator) -> None:
    async with served(simulator) as server, server.client.stream("POST", CHAT, json=SLOW):
        await server.until(running=1)
        rejected = await server.client.post(CHAT, json=chat())

    assert (rejected.status_code, rejected.headers["retry-after"]) == (503, "1")
    assert rejected.json()["error"] == {
        "message": "The engine is currently busy and cannot accept new requests. Please try again later or on a "
        "different instance. (MAX_NUM_QUEUED_REQS=0)",
        "type": "Service Unavailable",
        "param": None,
        "code": 503,
    }


async def test_a_wait_in_the_queue_has_a_timeout(simulator: Simulator) -> None:
    async with (
        served(simulator, max_num_queued_reqs=1, queue_timeout_s=0.1) as server,
        server.client.stream("POST", CHAT, json=SLOW),
    ):
        rejected = await server.client.post(CHAT, json=chat())

        assert rejected.status_code == 503
        assert "(QUEUE_TIMEOUT_S=0.1)" in rejected.json()["error"]["message"]
        assert (server.limiter.running, server.limiter.waiting) == (1, 0)


async def test_a_stream_holds_its_permit_to_its_end_and_the_next_gets_it(simulator: Simulator) -> None:
    async with served(simulator, max_num_queued_reqs=1) as server:
        async with server.client.stream("POST", CHAT, json=SLOW):
            queued = asyncio.create_task(server.client.post(CHAT, json=chat()))
            await server.until(running=1, waiting=1)
        assert (await queued).status_code == 200
        await server.until(running=0)


async def test_a_client_that_disconnects_leaves_the_queue(simulator: Simulator) -> None:
    async with served(simulator, max_num_queued_reqs=1) as server, server.client.stream("POST", CHAT, json=SLOW):
        queued = asyncio.create_task(server.client.post(CHAT, json=chat()))
        await server.until(running=1, waiting=1)
        queued.cancel()

        await server.until(running=1, waiting=0)


OUTCOMES = {
    "JSON": (chat(), 200),
    "stream": (chat(stream=True), 200),
    "rejected by this server": (chat(temperature=9), 400),
    "rejected by OpenAI": (chat("[sim fault=rate_limit]"), 429),
    "failed": (chat("[sim fault=overloaded]"), 503),
    "cut": (chat("[sim fault=cut after=3]", stream=True), 200),
}


@pytest.mark.parametrize(("body", "status"), OUTCOMES.values(), ids=OUTCOMES)
async def test_every_outcome_releases_the_permit(simulator: Simulator, body: dict[str, Any], status: int) -> None:
    async with served(simulator, upstream_max_attempts=1) as server:
        assert (await server.client.post(CHAT, json=body)).status_code == status

        await server.until(running=0)


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_of_many_calls_do_not_deadlock(simulator: Simulator, stream: bool) -> None:
    # The long prompt is counted before its call is made; the others have their permits by then.
    prompts = ["[sim tokens=5 ttft=0.02]" + " word" * 60_000, *["[sim tokens=5 ttft=0.02]"] * 8]
    body = {"prompt": prompts, "stream": stream}
    async with served(simulator, max_upstream_calls=3, max_num_queued_reqs=100) as server:
        responses = await asyncio.gather(*(server.client.post(COMPLETIONS, json=body) for _ in range(4)))

        assert [response.status_code for response in responses] == [200] * 4
        assert not [response.text for response in responses if '"error"' in response.text]
        await server.until(running=0)


async def test_a_later_call_of_a_stream_without_a_permit_is_an_error_event(simulator: Simulator) -> None:
    queued = asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = await read_request(reader)
        writer.write(SSE_HEAD + http_chunk(event(GOOD)))
        if b"first" in received:
            await queued.wait()
            writer.write(http_chunk(event(FINISH) + b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await reader.read()

    limits = {"max_upstream_calls": 2, "max_num_queued_reqs": 1}
    async with raw_server(converse) as url, served(simulator, openai_base_url=url, **limits) as server:
        body = {"prompt": ["first", "second", "third"], "stream": True}
        streaming = asyncio.create_task(server.client.post(COMPLETIONS, json=body))
        await server.until(running=2)
        # It needs two permits, so it still waits, and the queue is full, when the first call has released one.
        waiting = asyncio.create_task(server.client.post(COMPLETIONS, json={"prompt": ["a", "b"], "stream": True}))
        await server.until(running=2, waiting=1)
        queued.set()
        response = await streaming
        waiting.cancel()

    assert response.status_code == 200
    assert "(MAX_NUM_QUEUED_REQS=1)" in response.text
    assert response.text.endswith("data: [DONE]\n\n")


async def test_a_permit_granted_to_a_cancelled_waiter_is_released() -> None:
    limiter = ConcurrencyLimiter(max_calls=1, max_queued=1, queue_timeout_s=TIMEOUT_S)
    await limiter.acquire()
    queued = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0)
    limiter.release()
    queued.cancel()

    with pytest.raises(asyncio.CancelledError):
        await queued
    assert (limiter.running, limiter.waiting) == (0, 0)


class Call:
    """A call that acquires permits and releases them; it may be cancelled at any point."""

    def __init__(self, limiter: ConcurrencyLimiter, permits: int) -> None:
        self._limiter = limiter
        self.permits = permits
        self.running = False
        self._released = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._limiter.acquire(self.permits)
        except Overloaded:
            return
        self.running = True
        try:
            await self._released.wait()
        finally:
            self.running = False
            self._limiter.release(self.permits)

    def release(self) -> None:
        self._released.set()


STEPS = st.lists(
    st.tuples(st.sampled_from(["acquire", "release", "cancel", "loop step"]), st.integers(1, 3)), max_size=60
)


async def _run_steps(steps: Sequence[tuple[str, int]]) -> None:
    limiter = ConcurrencyLimiter(max_calls=3, max_queued=2, queue_timeout_s=TIMEOUT_S)
    calls: list[Call] = []
    for action, number in steps:
        if action == "acquire":
            calls.append(Call(limiter, number))
        elif action == "loop step":
            await asyncio.sleep(0)
        elif calls:
            call = calls[number % len(calls)]
            call.release() if action == "release" else call.task.cancel()
        assert sum(call.permits for call in calls if call.running) <= limiter.running <= 3
        assert limiter.waiting <= 2
    for call in calls:
        call.release()
    await asyncio.wait_for(asyncio.gather(*(call.task for call in calls), return_exceptions=True), TIMEOUT_S)
    assert (limiter.running, limiter.waiting) == (0, 0)


@given(STEPS)
def test_the_limit_is_never_exceeded_and_all_permits_are_released(steps: Sequence[tuple[str, int]]) -> None:
    asyncio.run(_run_steps(steps))
