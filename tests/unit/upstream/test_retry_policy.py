"""Which calls to OpenAI are retried, when, and how often."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import httpx
import openai
import pytest
import trustme

from app.core.request_record import RequestRecord, begin_record
from app.simulator.server import Simulator
from app.upstream import retry_policy
from app.upstream.retry_policy import CallRetries, RetryBudget, RetryReason, retry_after_s, status_retry_reason
from tests.conftest import CHAT
from tests.raw_upstream import OK, client_of, http_response, raw_server, read_request, request
from tests.serving import served_over
from tests.unit.core.test_metrics import counted


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_policy, "FIRST_BACKOFF_S", 0.01)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "9", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "9", "retry-after-ms": "soon"}, 9.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0),
        ({"retry-after": "Sun, 06 Nov 999999 08:49:37 GMT"}, None),
    ],
    ids=str,
)
def test_retry_after_headers_are_parsed(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_a_retry_after_date_is_parsed() -> None:
    seconds = retry_after_s({"retry-after": formatdate(time.time() + 100, usegmt=True)})

    assert seconds == pytest.approx(100, abs=30)


def test_only_transient_statuses_are_retried() -> None:
    reasons = {status: status_retry_reason(status, {}) for status in range(400, 600)}

    assert {status for status, reason in reasons.items() if reason} == {408, 409, 500, 502, 503, 504}
    assert set(reasons.values()) == {"status", None}


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (429, {"retry-after": "5"}, "rate_limit"),
        (429, {"retry-after": "5.1"}, None),
        (429, {"x-should-retry": "true"}, "rate_limit"),
        (429, {"retry-after": "1", "x-should-retry": "false"}, None),
        (503, {"retry-after": "5"}, "status"),
        (503, {"retry-after": "6"}, None),
        (503, {"retry-after": "6", "x-should-retry": "true"}, None),
        (500, {"x-should-retry": "false"}, None),
        (418, {"x-should-retry": "true"}, "status"),
        (500, {"x-should-retry": "perhaps"}, "status"),
    ],
    ids=str,
)
def test_response_headers_decide_about_a_retry(
    status: int, headers: dict[str, str], reason: RetryReason | None
) -> None:
    assert status_retry_reason(status, headers) == reason


def test_the_wait_is_the_requested_one_plus_a_growing_random_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_policy, "FIRST_BACKOFF_S", 0.5)
    longest = [0.0] * 7
    for _ in range(300):
        call = CallRetries(8, RetryBudget())
        for number in range(7):
            wait_s = call.wait_s("status", requested_s=2.0, remaining_s=60)
            assert wait_s is not None
            assert wait_s >= 2.0
            longest[number] = max(longest[number], wait_s - 2.0)

    bounds = [0.5, 1, 2, 4, 8, 8, 8]
    assert all(bound * 0.9 < seen <= bound for seen, bound in zip(longest, bounds, strict=True))


def test_a_retry_after_the_deadline_is_not_made_and_costs_no_budget() -> None:
    budget = RetryBudget()
    call = CallRetries(3, budget)

    assert call.wait_s("status", requested_s=2.0, remaining_s=1.0) is None
    assert sum(budget.spend() for _ in range(20)) == 10


def test_ten_retries_are_saved_and_ten_calls_earn_another() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend() for _ in range(20)) == 10

    for _ in range(11):
        budget.earn()
    assert sum(budget.spend() for _ in range(20)) == 1


@dataclass
class Outcome:
    """The response to a client, and the calls and retries made for it."""

    response: httpx.Response
    calls: int
    retries: dict[str, float]


async def outcome_of(simulator: Simulator, directive: str, *, stream: bool = False, **settings: object) -> Outcome:
    body = {"messages": [{"role": "user", "content": f"[sim {directive}] hi"}], "stream": stream}
    async with served_over(simulator.base_url, **settings) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post(CHAT, json=body)
        metrics = await counted(client)
    reasons = ("connect", "closed", "status", "rate_limit", "key")
    made = {name: metrics[f'llm_server_upstream_retries_total{{reason="{name}"}}'] for name in reasons}
    return Outcome(response, len(simulator.traffic.exchanges), {name: n for name, n in made.items() if n})


RETRIED = [
    pytest.param("fault=server_error times=1", 200, 2, "status", id="500"),
    pytest.param("fault=bad_gateway times=1", 200, 2, "status", id="502"),
    pytest.param("fault=overloaded times=2", 200, 3, "status", id="503 twice"),
    pytest.param("fault=overloaded retry_after=0.01 times=1", 200, 2, "status", id="503 with Retry-After"),
    pytest.param("fault=status status=408 times=1", 200, 2, "status", id="408"),
    pytest.param("fault=status status=409 times=1", 200, 2, "status", id="409"),
    pytest.param("fault=status status=504 times=1", 200, 2, "status", id="504"),
    pytest.param("fault=status status=418 should_retry=true times=1", 200, 2, "status", id="x-should-retry true"),
    pytest.param("fault=rate_limit retry_after=0.01 times=1", 200, 2, "rate_limit", id="short 429"),
    pytest.param("fault=server_error", 500, 3, "status", id="500 every time"),
]
NOT_RETRIED = [
    pytest.param("fault=status status=400", 400, id="400"),
    pytest.param("fault=status status=404", 502, id="404"),
    pytest.param("fault=status status=501", 502, id="501"),
    pytest.param("fault=status status=429", 429, id="429 without Retry-After"),
    pytest.param("fault=rate_limit retry_after=7", 429, id="long 429"),
    pytest.param("fault=overloaded retry_after=7", 503, id="long 503"),
    pytest.param("fault=server_error should_retry=false", 500, id="x-should-retry false"),
    pytest.param("fault=rate_limit retry_after=0.01 should_retry=false", 429, id="429 with x-should-retry false"),
    pytest.param("fault=quota", 429, id="empty account"),
    pytest.param("fault=quota should_retry=true retry_after=0.01", 429, id="empty account with x-should-retry true"),
    pytest.param("fault=not_json", 502, id="not JSON"),
    pytest.param("fault=reset", 502, id="reset after the request was sent"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("directive", "status", "calls", "reason"), RETRIED)
async def test_transient_failures_are_retried(
    simulator: Simulator, directive: str, status: int, calls: int, reason: str, stream: bool
) -> None:
    outcome = await outcome_of(simulator, directive, stream=stream)

    assert (outcome.response.status_code, outcome.calls) == (status, calls)
    assert outcome.response.headers["x-upstream-attempts"] == str(calls)
    assert outcome.retries == {reason: calls - 1}


@pytest.mark.parametrize(("directive", "status", "calls", "reason"), RETRIED)
async def test_with_one_attempt_nothing_is_retried(
    simulator: Simulator, directive: str, status: int, calls: int, reason: str
) -> None:
    outcome = await outcome_of(simulator, directive, upstream_max_attempts=1)

    assert (outcome.response.is_error, outcome.calls, outcome.retries) == (True, 1, {})


@pytest.mark.parametrize(("directive", "status"), NOT_RETRIED)
async def test_permanent_failures_are_not_retried(simulator: Simulator, directive: str, status: int) -> None:
    outcome = await outcome_of(simulator, directive)

    assert (outcome.response.status_code, outcome.calls, outcome.retries) == (status, 1, {})
    assert outcome.response.headers["x-upstream-attempts"] == "1"


@pytest.mark.parametrize("fault", ["rate_limit", "overloaded"])
async def test_a_long_retry_after_is_left_to_the_client(simulator: Simulator, fault: str) -> None:
    outcome = await outcome_of(simulator, f"fault={fault} retry_after=7")

    assert outcome.response.headers["retry-after"] == "7"


async def test_a_short_retry_after_is_waited_for(simulator: Simulator) -> None:
    began = time.perf_counter()
    outcome = await outcome_of(simulator, "fault=rate_limit retry_after=0.3 times=1")

    assert outcome.response.status_code == 200
    assert time.perf_counter() - began >= 0.3
    assert "retry-after" not in outcome.response.headers


async def test_quota_errors_tell_the_client_not_to_retry(simulator: Simulator) -> None:
    outcome = await outcome_of(simulator, "fault=quota should_retry=true")

    assert outcome.response.headers["x-should-retry"] == "false"


async def test_a_response_without_a_call_has_no_attempts_header(client: httpx.AsyncClient) -> None:
    for response in (await client.post(CHAT, json={}), await client.get("/v1/models"), await client.get("/health")):
        assert "x-upstream-attempts" not in response.headers


async def test_retries_do_not_amplify_an_outage(simulator: Simulator) -> None:
    async with client_of(simulator.base_url) as client:
        for number in range(30):
            with pytest.raises(openai.InternalServerError):
                await client.create_chat_completion(request(f"[sim fault=server_error] {number}"))

    assert 30 + 10 <= len(simulator.traffic.exchanges) <= 30 + 13


async def test_no_retry_starts_after_the_total_timeout(simulator: Simulator) -> None:
    outcome = await outcome_of(simulator, "fault=overloaded retry_after=5", upstream_total_timeout_s=4.9)

    # It would be a 504 at the limit, had there been a wait.
    assert (outcome.response.status_code, outcome.calls) == (503, 1)


async def test_a_disconnect_ends_the_wait_for_a_retry(simulator: Simulator) -> None:
    body = {"messages": [{"role": "user", "content": "[sim fault=rate_limit retry_after=4] hi"}]}
    async with served_over(simulator.base_url) as url, httpx.AsyncClient(base_url=url) as client:
        posting = asyncio.create_task(client.post(CHAT, json=body))
        await simulator.traffic.wait_for(lambda traffic: traffic.answered == 1)
        posting.cancel()
        async with asyncio.timeout(60):
            while (await client.get("/load")).json()["server_load"]:
                pass

    assert len(simulator.traffic.exchanges) == 1


async def attempts_at(url: str, **options: Any) -> int:
    """The attempts of a call that fails without a response."""
    record = RequestRecord()
    begin_record(record)
    async with client_of(url, **options) as client:
        with pytest.raises(openai.APIConnectionError):
            await client.create_chat_completion(request())
    return record.upstream_attempts


@pytest.mark.parametrize("max_attempts", [1, 3])
async def test_a_refused_connection_is_retried(max_attempts: int) -> None:
    async with raw_server(read_request) as url:  # type: ignore[arg-type]  # closed before the call
        pass

    assert await attempts_at(url, max_attempts=max_attempts) == max_attempts


async def test_an_invalid_certificate_is_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        assert await attempts_at(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1") == 1


@asynccontextmanager
async def closing_when_reused(partial_response: bytes = b"") -> AsyncIterator[tuple[str, list[bytes]]]:
    """An upstream that closes a connection at its second request, after `partial_response`; and its requests."""
    requests: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(http_response(OK))
        requests.append(await read_request(reader))
        writer.write(partial_response)

    async with raw_server(converse) as url:
        yield url, requests


async def test_a_stale_connection_is_retried() -> None:
    async with closing_when_reused() as (url, requests), client_of(url) as client:
        for _ in range(3):
            await client.create_chat_completion(request())

    assert len(requests) == 5


async def test_with_one_attempt_a_stale_connection_is_not_retried() -> None:
    async with closing_when_reused() as (url, requests), client_of(url, max_attempts=1) as client:
        await client.create_chat_completion(request())
        with pytest.raises(openai.APIConnectionError):
            await client.create_chat_completion(request())

    assert len(requests) == 2


@pytest.mark.parametrize("partial_response", [b"H", b"HTTP/1.1 200 OK\r\nx: y", http_response(OK)[:-9]])
async def test_a_partial_response_is_not_retried(partial_response: bytes) -> None:
    async with closing_when_reused(partial_response) as (url, requests), client_of(url) as client:
        await client.create_chat_completion(request())
        with pytest.raises(openai.APIConnectionError):
            await client.create_chat_completion(request())

    assert len(requests) == 2


async def test_headers_of_an_earlier_attempt_are_not_forwarded(simulator: Simulator) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        busy = http_response(b"{}", status="503 Busy", headers="retry-after: 0\r\nx-request-id: req_1\r\n")
        writer.write(busy)
        # The next attempt, on the same connection, gets an incomplete response.
        await read_request(reader)
        writer.write(b"H")

    record = RequestRecord()
    begin_record(record)
    async with raw_server(converse) as url, client_of(url) as client:
        with pytest.raises(openai.APIConnectionError):
            await client.create_chat_completion(request())

    assert (record.upstream_attempts, record.upstream_headers) == (2, {})
