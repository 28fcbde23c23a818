"""Every fault of the simulator, with and without streaming and retries: what the client gets."""

import json
from dataclasses import dataclass

import httpx
import pytest

from app.simulator.directives import FAULTS
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import served_over

GOOD = 200
LIMITS = {"slow": {"upstream_first_byte_timeout_s": 0.3}, "stall": {"upstream_idle_timeout_s": 0.3}}
"""The timeout that a fault must hit. Other faults have a long one, so that a slow machine does not hit it."""


@dataclass(frozen=True)
class Row:
    """What becomes of a fault that does not pass.

    `whole` is the status of an answer that is no stream; `stream` that of a stream, or `error`, the code of its error
    event. `attempts` are the calls that are made where several may be.
    """

    fault: str
    whole: int
    stream: int = GOOD
    error: int | None = None
    attempts: int = 1


TABLE = [
    Row("rate_limit", 429, 429),
    Row("rate_limit retry_after=0.01", 429, 429, attempts=3),
    Row("quota", 429, 429),
    Row("server_error retry_after=0.01", 500, 500, attempts=3),
    Row("bad_gateway", 502, 502, attempts=3),
    Row("overloaded retry_after=0.01", 503, 503, attempts=3),
    Row("status status=400", 400, 400),
    Row("status status=401", 502, 502),
    Row("status status=403", 502, 502),
    Row("status status=418", 502, 502),
    Row("not_json", 502, 502),
    Row("empty", 502, 502),
    Row("slow", 504, 504),
    Row("reset", 502, 502),
    Row("reset after=2", 502, error=502),
    Row("cut", 502, error=502),
    Row("cut after=0", 502, error=502),
    Row("cut after=99", 502, error=502),
    Row("early_end", 502, error=502),
    Row("early_end after=0", 502, error=502),
    # An answer that is no stream has no events that could be wrong.
    Row("stall", GOOD, error=504),
    Row("no_done", GOOD, error=502),
    Row("error_event", GOOD, error=500),
    Row("error_event after=0", GOOD, error=500),
    Row("bad_event", GOOD, error=502),
    # These are unusual, and no faults of an answer.
    Row("crlf", GOOD),
    Row("dribble", GOOD),
]
PARAMETERS = [pytest.param(row, id=row.fault) for row in TABLE]
FURTHER = pytest.mark.parametrize("further", [True, False], ids=["further attempts", "one attempt"])


def test_every_fault_has_a_row() -> None:
    assert {row.fault.split()[0] for row in TABLE} == FAULTS


async def answer_to(simulator: Simulator, fault: str, *, stream: bool, further: bool) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": f"[sim tokens=5 fault={fault}] hi"}], "stream": stream}
    limits = LIMITS.get(fault, {})
    async with (
        served_over(simulator.base_url, upstream_max_attempts=3 if further else 1, **limits) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        return await client.post(CHAT, json=body)


def assert_is_error(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"]["code"] == status


@FURTHER
@pytest.mark.parametrize("row", PARAMETERS)
async def test_a_response_is_complete_or_an_error(simulator: Simulator, row: Row, further: bool) -> None:
    answer = await answer_to(simulator, row.fault, stream=False, further=further)

    assert answer.headers["x-upstream-attempts"] == str(row.attempts if further else 1)
    if row.whole != GOOD:
        assert_is_error(answer, row.whole)
    else:
        assert answer.json()["choices"][0]["finish_reason"] == "stop"


@FURTHER
@pytest.mark.parametrize("row", PARAMETERS)
async def test_a_stream_is_complete_or_ends_with_an_error(simulator: Simulator, row: Row, further: bool) -> None:
    answer = await answer_to(simulator, row.fault, stream=True, further=further)

    assert answer.headers["x-upstream-attempts"] == str(row.attempts if further else 1)
    if row.stream != GOOD:
        assert_is_error(answer, row.stream)
        return
    assert answer.status_code == GOOD
    *events, done, end = answer.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    read = [json.loads(event.removeprefix("data: ")) for event in events]
    errors = [event["error"]["code"] for event in read if "error" in event]
    assert errors == ([] if row.error is None else [row.error])
    if row.error is None:
        assert read[-1]["choices"][0]["finish_reason"] == "stop"
    else:
        assert "error" in read[-1]
