"""Selection among several API keys, and the cooldown of one that fails."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import openai
import pytest

from app.core.request_record import RequestRecord, begin_record
from app.features.llm.client import OpenAIClient
from app.simulator.server import Simulator
from app.upstream.api_keys import ApiKeyPool
from app.upstream.session import new_session
from tests.raw_upstream import OK, http_response, raw_server, read_request, request


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pool_of(*secrets: str) -> tuple[ApiKeyPool, Clock]:
    clock = Clock()
    return ApiKeyPool(secrets, clock=clock), clock


def test_keys_are_used_round_robin() -> None:
    pool, _ = pool_of("a", "b", "c")

    assert [pool.choose().secret for _ in range(5)] == ["a", "b", "c", "a", "b"]


def test_the_key_with_the_fewest_calls_is_chosen() -> None:
    pool, _ = pool_of("a", "b", "c")
    for calls in (2, 1, 2):
        pool.choose().calls_in_flight = calls

    assert [pool.choose().secret for _ in range(3)] == ["b", "b", "b"]


def test_a_key_returns_after_its_cooldown() -> None:
    pool, clock = pool_of("a", "b")
    pool.cool_down(pool.choose(), 10, "rejected")

    assert [pool.choose().secret for _ in range(2)] == ["b", "b"]
    clock.now += 10
    assert {pool.choose().secret for _ in range(2)} == {"a", "b"}


def test_a_cooldown_lasts_at_most_a_minute() -> None:
    pool, clock = pool_of("a", "b")
    pool.cool_down(pool.choose(), 3600, "busy")
    clock.now += 60

    assert {pool.choose().secret for _ in range(2)} == {"a", "b"}


def test_if_all_keys_cool_down_the_first_to_return_is_used() -> None:
    pool, _ = pool_of("a", "b", "c")
    for cooldown_s in (30, 10, 20):
        pool.cool_down(pool.choose(), cooldown_s, "rejected")

    assert [pool.choose().secret for _ in range(2)] == ["b", "b"]


def test_a_short_cooldown_does_not_end_a_long_one() -> None:
    pool, clock = pool_of("a", "b")
    first = pool.choose()
    pool.cool_down(first, 60, "rejected")
    pool.cool_down(first, 1, "busy")
    clock.now += 2

    assert [pool.choose().secret for _ in range(2)] == ["b", "b"]


def test_a_single_key_never_cools_down(caplog: pytest.LogCaptureFixture) -> None:
    pool, _ = pool_of("a", "a")
    pool.cool_down(pool.choose(), 60, "rejected")

    assert pool.choose_other(()) is not None
    assert not caplog.text


def test_the_repr_of_a_key_hides_its_secret() -> None:
    pool, _ = pool_of("sk-secret")

    assert "secret" not in repr(pool.choose())


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


async def test_a_stream_counts_as_in_flight_until_it_is_closed(simulator: Simulator) -> None:
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
        pytest.param("fault=rate_limit should_retry=false key=poor", id="rate limit with x-should-retry false"),
    ],
)
async def test_a_failing_key_cools_down_and_another_is_used(
    simulator: Simulator, fault: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_with(["sk-poor", "sk-rich"], simulator.base_url) as client:
        for number in range(3):
            body = request(f"[sim {fault}] {number}", stream=stream)
            if stream:
                await (await client.stream_chat_completion(body)).aclose()
            else:
                await client.create_chat_completion(body)

    assert keys_used(simulator) == ["sk-poor", "sk-rich", "sk-rich", "sk-rich"]
    assert "OpenAI key 1 of 2 is not used for" in caplog.text
    assert "sk-" not in caplog.text


async def test_a_rate_limit_without_retry_after_switches_keys_without_cooldown(simulator: Simulator) -> None:
    async with client_with(["sk-poor", "sk-rich"], simulator.base_url) as client:
        for _ in range(2):
            await client.create_chat_completion(request("[sim fault=status status=429 key=poor]"))

    assert keys_used(simulator) == ["sk-poor", "sk-rich", "sk-poor", "sk-rich"]


async def test_each_key_is_tried_once_and_counted_as_an_attempt(simulator: Simulator) -> None:
    record = RequestRecord()
    begin_record(record)
    async with client_with(["sk-wrong-1", "sk-wrong-2", "sk-wrong-3"], simulator.base_url, max_attempts=3) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.create_chat_completion(request())

        assert keys_used(simulator) == ["sk-wrong-1", "sk-wrong-2", "sk-wrong-3"]
        assert record.upstream_attempts == 3
        # All keys are cooling down: one of them is used, and its failure is not retried with the others.
        with pytest.raises(openai.AuthenticationError):
            await client.create_chat_completion(request())

    assert keys_used(simulator)[3:] == ["sk-wrong-1"]


async def test_switching_keys_does_not_count_as_a_retry(simulator: Simulator) -> None:
    content = "[sim fault=server_error times=1 key=rich]"
    async with client_with(["sk-wrong-1", "sk-wrong-2", "sk-rich"], simulator.base_url, max_attempts=2) as client:
        await client.create_chat_completion(request(content))
        with pytest.raises(openai.InternalServerError):
            await client.create_chat_completion(request("[sim fault=server_error]"))

    assert keys_used(simulator) == ["sk-wrong-1", "sk-wrong-2", *["sk-rich"] * 3]


@pytest.mark.parametrize("fault", ["fault=status status=401", "fault=quota", "fault=rate_limit retry_after=30"])
async def test_a_single_key_is_used_after_it_failed(
    simulator: Simulator, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_with(["sk-1"], simulator.base_url) as client:
        for _ in range(2):
            with pytest.raises(openai.APIStatusError):
                await client.create_chat_completion(request(f"[sim {fault}]"))
        await client.create_chat_completion(request())

    assert keys_used(simulator) == ["sk-1"] * 3
    assert "is not used" not in caplog.text


@pytest.mark.parametrize("status", [400, 404, 422, 500])
async def test_a_failure_of_the_request_cools_no_key_down(simulator: Simulator, status: int) -> None:
    async with client_with(["sk-1", "sk-2"], simulator.base_url) as client:
        for _ in range(4):
            with pytest.raises(openai.APIStatusError):
                await client.create_chat_completion(request(f"[sim fault=status status={status}]"))

    assert keys_used(simulator) == ["sk-1", "sk-2"] * 2


async def test_a_key_without_access_to_a_model_does_not_cool_down() -> None:
    no_access = json.dumps({"error": {"message": "No access to model `m`.", "code": "model_not_found"}}).encode()
    used: list[str] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            poor = b"sk-poor" in await read_request(reader)
            used.append("poor" if poor else "rich")
            writer.write(http_response(no_access, status="403 Forbidden") if poor else http_response(OK))

    async with raw_server(converse) as url, client_with(["sk-poor", "sk-rich"], url) as client:
        for _ in range(2):
            await client.create_chat_completion(request())

    assert used == ["poor", "rich", "poor", "rich"]


async def test_keys_in_an_error_message_are_redacted() -> None:
    content = b'{"error":{"message":"Keys: gsk_first, gsk_second."}}'

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(http_response(content, status="400 Bad Request"))

    async with raw_server(converse) as url, client_with(["gsk_first", "gsk_second"], url) as client:
        with pytest.raises(openai.BadRequestError, match=r"Keys: \[redacted\], \[redacted\]\."):
            await client.create_chat_completion(request())
