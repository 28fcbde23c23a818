"""Metrics as Prometheus reads them from `/metrics`."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import served_over

IN_FLIGHT = "llm_server_upstream_calls_in_flight"


async def counted(client: httpx.AsyncClient) -> dict[str, float]:
    """Every sample of `/metrics` by name and labels."""
    text = (await client.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {name_of(sample.name, sample.labels): sample.value for sample in samples}


def name_of(name: str, labels: dict[str, str]) -> str:
    label_text = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{label_text}}}" if label_text else name


async def wait_until(client: httpx.AsyncClient, condition: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """The samples, once they meet the condition."""
    async with asyncio.timeout(60):
        while not condition(samples := await counted(client)):
            pass
    return samples


async def attempts(client: httpx.AsyncClient) -> dict[str, float]:
    """The outcomes of the calls to OpenAI, once none is in flight."""
    samples = await wait_until(client, lambda samples: samples[IN_FLIGHT] == 0)
    outcomes = ("answered", "refused", "failed", "cancelled")
    ended = {name: samples[f'llm_server_upstream_attempts_total{{outcome="{name}"}}'] for name in outcomes}
    return {name: number for name, number in ended.items() if number}


TIMEOUTS = {"slow": {"upstream_first_byte_timeout_s": 0.2}, "stall": {"upstream_idle_timeout_s": 0.2}}
"""The timeout that a fault runs into; no other fault has one, however slow the machine."""


def body(directive: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"[sim {directive}] hi"}], **fields}


async def test_the_content_type_is_vllms(client: httpx.AsyncClient) -> None:
    response = await client.get("/metrics")

    assert response.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"
    assert "x-request-id" not in response.headers


async def test_every_series_is_there_from_the_start(client: httpx.AsyncClient) -> None:
    samples = await counted(client)

    assert samples[IN_FLIGHT] == 0
    for outcome in ("answered", "refused", "failed", "cancelled"):
        assert samples[f'llm_server_upstream_attempts_total{{outcome="{outcome}"}}'] == 0
    for reason in ("connect", "closed", "status", "rate_limit", "key"):
        assert samples[f'llm_server_upstream_retries_total{{reason="{reason}"}}'] == 0


async def test_each_application_has_its_own_metrics(simulator: Simulator, client: httpx.AsyncClient) -> None:
    async with served_over(simulator.base_url) as url, httpx.AsyncClient(base_url=url) as other:
        await other.post(CHAT, json=body("tokens=3"))

        assert await attempts(other) == {"answered": 1}
    assert await attempts(client) == {}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("directive", "outcomes"),
    [
        pytest.param("tokens=3", {"answered": 1}, id="answered"),
        pytest.param("fault=cut", {"answered": 1}, id="cut short"),
        pytest.param("fault=not_json", {"answered": 1}, id="not JSON"),
        pytest.param("fault=error_event", {"answered": 1}, id="error event"),
        pytest.param("fault=status status=400", {"refused": 1}, id="error status"),
        pytest.param("fault=quota", {"refused": 1}, id="empty account"),
        pytest.param("fault=reset", {"failed": 1}, id="reset"),
        pytest.param("fault=slow", {"failed": 1}, id="timeout"),
        pytest.param("fault=stall", {"answered": 1}, id="stalled"),
    ],
)
async def test_a_completed_call_is_not_in_flight(
    simulator: Simulator, directive: str, outcomes: dict[str, float], stream: bool
) -> None:
    limits = TIMEOUTS.get(directive.removeprefix("fault="), {})
    async with (
        served_over(simulator.base_url, upstream_max_attempts=1, **limits) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        await client.post(CHAT, json=body(directive, stream=stream))

        assert await attempts(client) == outcomes


@pytest.mark.parametrize(
    ("directive", "stream", "outcomes"),
    [
        pytest.param("fault=slow seconds=600", False, {"cancelled": 1}, id="whole"),
        pytest.param("fault=slow seconds=600", True, {"cancelled": 1}, id="before the first byte"),
        pytest.param("fault=stall seconds=600 after=1", True, {"answered": 1}, id="mid-stream"),
    ],
)
async def test_a_call_is_not_in_flight_after_the_client_disconnects(
    client: httpx.AsyncClient, simulator: Simulator, directive: str, stream: bool, outcomes: dict[str, float]
) -> None:
    posting = asyncio.create_task(client.post(CHAT, json=body(directive, stream=stream)))
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 1)
    await wait_until(client, lambda samples: samples[IN_FLIGHT] == 1)
    if outcomes == {"answered": 1}:
        name = 'llm_server_upstream_attempts_total{outcome="answered"}'
        await wait_until(client, lambda samples: samples[name] == 1)

    posting.cancel()

    assert await attempts(client) == outcomes


async def test_a_stream_is_in_flight_until_it_is_closed(client: httpx.AsyncClient) -> None:
    async with client.stream("POST", CHAT, json=body("fault=stall seconds=600 after=1", stream=True)) as response:
        assert response.status_code == 200
        assert (await counted(client))[IN_FLIGHT] == 1

    assert await attempts(client) == {"answered": 1}
