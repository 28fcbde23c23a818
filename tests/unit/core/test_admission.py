"""What is answered when there are more calls than places."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.admission import Admission
from app.core.errors import Overloaded
from app.main import create_app
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import serving, settings_for
from tests.unit.features.llm.test_client import raw_server, read_request
from tests.unit.features.llm.test_client_damage import FINISH, GOOD, SSE_HEAD, event, http_chunk

LIMIT_S = 60
COMPLETIONS = "/v1/completions"


class Served:
    """A server with few places, a client of it, and its count of them."""

    def __init__(self, client: httpx.AsyncClient, admission: Admission) -> None:
        self.client = client
        self.admission = admission

    async def until(self, *, running: int, waiting: int = 0) -> None:
        """Return once so many calls run and wait."""
        async with asyncio.timeout(LIMIT_S):
            while (self.admission.running, self.admission.waiting) != (running, waiting):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.005)


@asynccontextmanager
async def served(simulator: Simulator, **settings: object) -> AsyncIterator[Served]:
    app = create_app(
        settings_for(
            simulator.base_url,
            **{"max_upstream_calls": 1, "max_num_queued_reqs": 0, "queue_timeout_s": LIMIT_S, **settings},
        )
    )
    components = app.state.components
    async with (
        serving(app, components.lifecycle) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        yield Served(client, components.admission)


def chat(text: str = "hi", **fields: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


SLOW = chat("[sim fault=stall seconds=600 after=1]", stream=True)


async def test_beyond_places_and_queue_vllms_503_names_the_setting(simulator: Simulator) -> None:
    async with served(simulator) as here, here.client.stream("POST", CHAT, json=SLOW):
        await here.until(running=1)
        refused = await here.client.post(CHAT, json=chat())

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["error"] == {
        "message": "The engine is currently busy and cannot accept new requests. Please try again later or on a "
        "different instance. (MAX_NUM_QUEUED_REQS=0)",
        "type": "Service Unavailable",
        "param": None,
        "code": 503,
    }


async def test_a_wait_in_the_queue_has_a_limit(simulator: Simulator) -> None:
    async with (
        served(simulator, max_num_queued_reqs=1, queue_timeout_s=0.1) as here,
        here.client.stream("POST", CHAT, json=SLOW),
    ):
        refused = await here.client.post(CHAT, json=chat())

        assert refused.status_code == 503
        assert "(QUEUE_TIMEOUT_S=0.1)" in refused.json()["error"]["message"]
        assert (here.admission.running, here.admission.waiting) == (1, 0)


async def test_a_stream_holds_its_place_to_its_end_and_the_next_has_it(simulator: Simulator) -> None:
    async with served(simulator, max_num_queued_reqs=1) as here:
        async with here.client.stream("POST", CHAT, json=SLOW):
            queued = asyncio.create_task(here.client.post(CHAT, json=chat()))
            await here.until(running=1, waiting=1)
        assert (await queued).status_code == 200
        await here.until(running=0)


async def test_a_client_that_leaves_the_queue_frees_its_place_there(simulator: Simulator) -> None:
    async with served(simulator, max_num_queued_reqs=1) as here, here.client.stream("POST", CHAT, json=SLOW):
        queued = asyncio.create_task(here.client.post(CHAT, json=chat()))
        await here.until(running=1, waiting=1)
        queued.cancel()

        await here.until(running=1, waiting=0)


ENDINGS = {
    "whole": (chat(), 200),
    "stream": (chat(stream=True), 200),
    "refused here": (chat(temperature=9), 400),
    "refused upstream": (chat("[sim fault=rate_limit]"), 429),
    "failed": (chat("[sim fault=overloaded]"), 503),
    "cut": (chat("[sim fault=cut after=3]", stream=True), 200),
}


@pytest.mark.parametrize(("body", "status"), ENDINGS.values(), ids=ENDINGS)
async def test_every_ending_gives_the_place_back(simulator: Simulator, body: dict[str, Any], status: int) -> None:
    async with served(simulator, upstream_max_attempts=1) as here:
        assert (await here.client.post(CHAT, json=body)).status_code == status

        await here.until(running=0)


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_of_many_calls_do_not_wait_for_each_other(simulator: Simulator, stream: bool) -> None:
    # The long one is counted before it is called, when the others have their places.
    prompts = ["[sim tokens=5 ttft=0.02]" + " word" * 60_000, *["[sim tokens=5 ttft=0.02]"] * 8]
    body = {"prompt": prompts, "stream": stream}
    async with served(simulator, max_upstream_calls=3, max_num_queued_reqs=100) as here:
        answers = await asyncio.gather(*(here.client.post(COMPLETIONS, json=body) for _ in range(4)))

        assert [answer.status_code for answer in answers] == [200] * 4
        assert not [answer.text for answer in answers if '"error"' in answer.text]
        await here.until(running=0)


async def test_a_later_call_of_a_stream_that_finds_no_place_is_an_error_event(simulator: Simulator) -> None:
    queued = asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await read_request(reader)
        writer.write(SSE_HEAD + http_chunk(event(GOOD)))
        if b"first" in asked:
            await queued.wait()
            writer.write(http_chunk(event(FINISH) + b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await reader.read()

    limits = {"max_upstream_calls": 2, "max_num_queued_reqs": 1}
    async with raw_server(converse) as url, served(simulator, openai_base_url=url, **limits) as here:
        body = {"prompt": ["first", "second", "third"], "stream": True}
        streaming = asyncio.create_task(here.client.post(COMPLETIONS, json=body))
        await here.until(running=2)
        # It needs two places, so it still waits, and the queue is full, when the first call has left one.
        waiting = asyncio.create_task(here.client.post(COMPLETIONS, json={"prompt": ["a", "b"], "stream": True}))
        await here.until(running=2, waiting=1)
        queued.set()
        answer = await streaming
        waiting.cancel()

    assert answer.status_code == 200
    assert "(MAX_NUM_QUEUED_REQS=1)" in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_a_turn_that_comes_as_its_guest_leaves_is_given_back() -> None:
    admission = Admission(max_calls=1, max_queued=1, queue_timeout_s=LIMIT_S)
    await admission.enter()
    queued = asyncio.create_task(admission.enter())
    await asyncio.sleep(0)
    admission.leave()
    queued.cancel()

    with pytest.raises(asyncio.CancelledError):
        await queued
    assert (admission.running, admission.waiting) == (0, 0)


class Guest:
    """Somebody who enters and leaves; cancelled at any point."""

    def __init__(self, admission: Admission, places: int) -> None:
        self._admission = admission
        self.places = places
        self.inside = False
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit())

    async def _visit(self) -> None:
        try:
            await self._admission.enter(self.places)
        except Overloaded:
            return
        self.inside = True
        try:
            await self._leave.wait()
        finally:
            self.inside = False
            self._admission.leave(self.places)

    def leave(self) -> None:
        self._leave.set()


STEPS = st.lists(st.tuples(st.sampled_from(["enter", "leave", "cancel", "turn"]), st.integers(1, 3)), max_size=60)


async def _visits(steps: Sequence[tuple[str, int]]) -> None:
    admission = Admission(max_calls=3, max_queued=2, queue_timeout_s=LIMIT_S)
    guests: list[Guest] = []
    for what, number in steps:
        if what == "enter":
            guests.append(Guest(admission, number))
        elif what == "turn":
            await asyncio.sleep(0)
        elif guests:
            guest = guests[number % len(guests)]
            guest.leave() if what == "leave" else guest.task.cancel()
        assert sum(guest.places for guest in guests if guest.inside) <= admission.running <= 3
        assert admission.waiting <= 2
    for guest in guests:
        guest.leave()
    await asyncio.wait_for(asyncio.gather(*(guest.task for guest in guests), return_exceptions=True), LIMIT_S)
    assert (admission.running, admission.waiting) == (0, 0)


@given(STEPS)
def test_places_are_never_exceeded_and_all_come_back(steps: Sequence[tuple[str, int]]) -> None:
    asyncio.run(_visits(steps))
