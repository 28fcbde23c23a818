"""Several keys: which one pays for a call, and what becomes of one that fails."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import openai
import pytest

from app.core.record import RequestRecord, begin_record
from app.features.llm.client import OpenAIClient
from app.features.llm.keys import KeyRing
from app.features.llm.session import new_session
from app.simulator.server import Simulator
from tests.unit.features.llm.test_client import OK, http_answer, raw_server, read_request, request


class Clock:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ring_of(*secrets: str) -> tuple[KeyRing, Clock]:
    clock = Clock()
    return KeyRing(secrets, clock=clock), clock


# --- the ring ---------------------------------------------------------------------------------------------------------


def test_keys_take_turns() -> None:
    ring, _ = ring_of("a", "b", "c")

    assert [ring.choose().secret for _ in range(5)] == ["a", "b", "c", "a", "b"]


def test_the_key_with_the_fewest_calls_is_chosen() -> None:
    ring, _ = ring_of("a", "b", "c")
    for calls in (2, 1, 2):
        ring.choose().calls = calls

    assert [ring.choose().secret for _ in range(3)] == ["b", "b", "b"]


def test_a_key_that_is_set_aside_comes_back() -> None:
    ring, clock = ring_of("a", "b")
    ring.set_aside(ring.choose(), 10, "refused")

    assert [ring.choose().secret for _ in range(2)] == ["b", "b"]
    clock.now += 10
    assert {ring.choose().secret for _ in range(2)} == {"a", "b"}


def test_no_key_is_set_aside_for_more_than_a_minute() -> None:
    ring, clock = ring_of("a", "b")
    ring.set_aside(ring.choose(), 3600, "busy")
    clock.now += 60

    assert {ring.choose().secret for _ in range(2)} == {"a", "b"}


def test_where_all_are_set_aside_the_first_to_come_back_is_used() -> None:
    ring, _ = ring_of("a", "b", "c")
    for pause_s in (30, 10, 20):
        ring.set_aside(ring.choose(), pause_s, "refused")

    assert [ring.choose().secret for _ in range(2)] == ["b", "b"]


def test_a_short_pause_does_not_end_a_long_one() -> None:
    ring, clock = ring_of("a", "b")
    first = ring.choose()
    ring.set_aside(first, 60, "refused")
    ring.set_aside(first, 1, "busy")
    clock.now += 2

    assert [ring.choose().secret for _ in range(2)] == ["b", "b"]


def test_an_only_key_is_never_set_aside(caplog: pytest.LogCaptureFixture) -> None:
    ring, _ = ring_of("a", "a")
    ring.set_aside(ring.choose(), 60, "refused")

    assert ring.another(()) is not None
    assert not caplog.text


def test_a_text_shows_no_key_though_one_begins_with_another() -> None:
    ring, _ = ring_of("sk-1", "sk-12", "sk-3")

    assert ring.redacted(b"sk-12, sk-1 and sk-3") == b"[redacted], [redacted] and [redacted]"


def test_a_key_does_not_show_itself() -> None:
    ring, _ = ring_of("sk-secret")

    assert "secret" not in repr(ring.choose())


# --- over sockets -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def client_with(keys: Sequence[str], base_url: str, *, max_attempts: int = 1) -> AsyncIterator[OpenAIClient]:
    async with new_session() as session:
        first, *further = keys
        yield OpenAIClient(first, base_url, session=session, further_keys=further, max_attempts=max_attempts)


def keys_used(simulator: Simulator) -> list[str]:
    return [exchange.headers["Authorization"].removeprefix("Bearer ") for exchange in simulator.traffic.exchanges]


async def test_calls_are_spread_over_the_keys(simulator: Simulator) -> None:
    async with client_with(["sk-1", "sk-2"], simulator.base_url) as client:
        for _ in range(4):
            await client.create_chat_completion(request())

    assert keys_used(simulator) == ["sk-1", "sk-2", "sk-1", "sk-2"]


async def test_a_stream_is_a_load_until_it_is_closed(simulator: Simulator) -> None:
    async with client_with(["sk-1", "sk-2"], simulator.base_url) as client:
        stream = await client.stream_chat_completion(request("[sim fault=stall seconds=600 after=1]", stream=True))
        for _ in range(3):
            await client.create_chat_completion(request())
        await stream.aclose()
        await client.create_chat_completion(request())
        await client.create_chat_completion(request())

    assert keys_used(simulator) == ["sk-1", "sk-2", "sk-2", "sk-2", "sk-1", "sk-2"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("fault=status status=401 key=poor", id="401"),
        pytest.param("fault=status status=403 key=poor", id="403"),
        pytest.param("fault=quota key=poor", id="empty account"),
        pytest.param("fault=rate_limit retry_after=30 key=poor", id="rate limit"),
        pytest.param("fault=rate_limit should_retry=false key=poor", id="rate limit told not to retry"),
    ],
)
async def test_a_key_that_fails_costs_no_answer_and_is_set_aside(
    simulator: Simulator, fault: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_with(["sk-poor", "sk-rich"], simulator.base_url) as client:
        for number in range(3):
            asked = request(f"[sim {fault}] {number}", stream=stream)
            if stream:
                await (await client.stream_chat_completion(asked)).aclose()
            else:
                await client.create_chat_completion(asked)

    assert keys_used(simulator) == ["sk-poor", "sk-rich", "sk-rich", "sk-rich"]
    assert "OpenAI key 1 of 2 is set aside for" in caplog.text
    assert "sk-" not in caplog.text


async def test_a_rate_limit_without_a_time_moves_the_call_only(simulator: Simulator) -> None:
    async with client_with(["sk-poor", "sk-rich"], simulator.base_url) as client:
        for _ in range(2):
            await client.create_chat_completion(request("[sim fault=status status=429 key=poor]"))

    assert keys_used(simulator) == ["sk-poor", "sk-rich", "sk-poor", "sk-rich"]


async def test_each_key_is_tried_once_and_the_attempts_are_told(simulator: Simulator) -> None:
    record = RequestRecord()
    begin_record(record)
    async with client_with(["sk-wrong-1", "sk-wrong-2", "sk-wrong-3"], simulator.base_url, max_attempts=3) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.create_chat_completion(request())

        assert keys_used(simulator) == ["sk-wrong-1", "sk-wrong-2", "sk-wrong-3"]
        assert record.upstream_attempts == 3
        # All are set aside: one is asked anyway, and its refusal is not multiplied.
        with pytest.raises(openai.AuthenticationError):
            await client.create_chat_completion(request())

    assert keys_used(simulator)[3:] == ["sk-wrong-1"]


async def test_another_key_costs_no_retry(simulator: Simulator) -> None:
    text = "[sim fault=server_error times=1 key=rich]"
    async with client_with(["sk-wrong-1", "sk-wrong-2", "sk-rich"], simulator.base_url, max_attempts=2) as client:
        await client.create_chat_completion(request(f"{text}"))
        with pytest.raises(openai.InternalServerError):
            await client.create_chat_completion(request("[sim fault=server_error]"))

    assert keys_used(simulator) == ["sk-wrong-1", "sk-wrong-2", *["sk-rich"] * 3]


@pytest.mark.parametrize("fault", ["fault=status status=401", "fault=quota", "fault=rate_limit retry_after=30"])
async def test_an_only_key_is_asked_by_every_request(
    simulator: Simulator, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_with(["sk-1"], simulator.base_url) as client:
        for _ in range(2):
            with pytest.raises(openai.APIStatusError):
                await client.create_chat_completion(request(f"[sim {fault}]"))
        await client.create_chat_completion(request())

    assert keys_used(simulator) == ["sk-1"] * 3
    assert "set aside" not in caplog.text


@pytest.mark.parametrize("status", [400, 404, 422, 500])
async def test_a_failure_that_is_not_the_keys_sets_none_aside(simulator: Simulator, status: int) -> None:
    async with client_with(["sk-1", "sk-2"], simulator.base_url) as client:
        for _ in range(4):
            with pytest.raises(openai.APIStatusError):
                await client.create_chat_completion(request(f"[sim fault=status status={status}]"))

    assert keys_used(simulator) == ["sk-1", "sk-2"] * 2


async def test_a_model_that_is_closed_to_a_key_leaves_it_to_the_others() -> None:
    refused = json.dumps({"error": {"message": "No access to model `m`.", "code": "model_not_found"}}).encode()
    used: list[str] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            poor = b"sk-poor" in await read_request(reader)
            used.append("poor" if poor else "rich")
            writer.write(http_answer(refused, status="403 Forbidden") if poor else http_answer(OK))

    async with raw_server(converse) as url, client_with(["sk-poor", "sk-rich"], url) as client:
        for _ in range(2):
            await client.create_chat_completion(request())

    assert used == ["poor", "rich", "poor", "rich"]


async def test_no_key_is_shown_whichever_the_upstream_quotes() -> None:
    content = b'{"error":{"message":"Keys: gsk_first, gsk_second."}}'

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(http_answer(content, status="400 Bad Request"))

    async with raw_server(converse) as url, client_with(["gsk_first", "gsk_second"], url) as client:
        with pytest.raises(openai.BadRequestError, match=r"Keys: \[redacted\], \[redacted\]\."):
            await client.create_chat_completion(request())
