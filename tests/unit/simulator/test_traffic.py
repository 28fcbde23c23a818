"""Recorded requests and counters, above all of disconnected clients."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from app.simulator.server import Simulator, Traffic

URL = "/chat/completions"


def chat(directive: str, **members: Any) -> dict[str, Any]:
    text = f"[sim {directive}] What grows in a garden?"
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **members}


LEAVING = [
    pytest.param(chat("ttft=600"), id="whole"),
    pytest.param(chat("fault=slow seconds=600"), id="whole, slow"),
    pytest.param(chat("fault=slow seconds=600", stream=True), id="before the status line"),
    pytest.param(chat("ttft=600", stream=True), id="before the first event"),
    pytest.param(chat("itl=600", stream=True), id="between events"),
    pytest.param(chat("fault=stall seconds=600", stream=True), id="in a stall"),
    pytest.param(chat("itl=0.001 tokens=16000", stream=True), id="while events come"),
]


@pytest.mark.parametrize("body", LEAVING)
async def test_a_disconnect_is_counted_immediately(simulator: Simulator, body: dict[str, Any]) -> None:
    headers = {"Authorization": "Bearer sk-a"}
    async with httpx.AsyncClient(base_url=simulator.base_url, headers=headers) as client:
        request = asyncio.create_task(client.post(URL, json=body))
        await simulator.traffic.wait_for(lambda traffic: traffic.live == 1)
        request.cancel()
        await asyncio.wait([request])
        await simulator.traffic.wait_for(lambda traffic: traffic.abandoned == 1)
    assert simulator.traffic.to_json() == {"live": 0, "answered": 0, "abandoned": 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_complete_response_is_counted_as_answered(
    simulator: Simulator, client: httpx.AsyncClient, *, stream: bool
) -> None:
    await client.post(URL, json=chat("itl=0", stream=stream))
    assert simulator.traffic.to_json() == {"live": 0, "answered": 1, "abandoned": 0}


@pytest.mark.parametrize(
    "body", [chat("fault=reset"), chat("fault=cut"), chat("fault=cut", stream=True)], ids=["reset", "half", "cut"]
)
async def test_a_hang_up_by_the_simulator_is_not_counted_as_abandoned(
    simulator: Simulator, client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    with pytest.raises(httpx.TransportError):
        await client.post(URL, json=body)
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 0)
    assert simulator.traffic.to_json() == {"live": 0, "answered": 1, "abandoned": 0}


async def test_errors_are_counted_as_answered(simulator: Simulator, client: httpx.AsyncClient) -> None:
    await client.post(URL, json={})
    await client.get("/nowhere")
    await client.get("/models", headers={"Authorization": ""})
    assert simulator.traffic.answered == 3


async def test_concurrent_requests_are_counted_as_live(simulator: Simulator, client: httpx.AsyncClient) -> None:
    requests = [asyncio.create_task(client.post(URL, json=chat("ttft=600"))) for _ in range(20)]
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 20)
    for request in requests:
        request.cancel()
    await asyncio.wait(requests)
    await simulator.traffic.wait_for(lambda traffic: traffic.abandoned == 20)


async def test_waiting_has_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        await Traffic().wait_for(lambda traffic: traffic.live == 1, timeout_s=0.01)


async def test_a_condition_that_already_holds_returns_immediately() -> None:
    await Traffic().wait_for(lambda traffic: traffic.live == 0, timeout_s=0.01)


async def test_a_request_is_recorded_as_it_arrived(simulator: Simulator, client: httpx.AsyncClient) -> None:
    content = b'{"model" : "nope", "top_k": 1}'
    await client.post(URL, content=content, headers={"Content-Type": "application/json", "X-Trace": "a"})
    (exchange,) = simulator.traffic.exchanges
    assert (exchange.method, exchange.path) == ("POST", "/v1/chat/completions")
    assert exchange.headers["x-TRACE"] == "a"
    assert exchange.body == {"model": "nope", "top_k": 1}
    assert exchange.raw == content


async def test_a_request_is_recorded_before_its_response(simulator: Simulator, client: httpx.AsyncClient) -> None:
    request = asyncio.create_task(client.post(URL, json=chat("ttft=600")))
    await simulator.traffic.wait_for(lambda traffic: len(traffic.exchanges) == 1)
    assert not request.done()
    request.cancel()


async def test_a_body_that_is_not_json_is_recorded_raw(simulator: Simulator, client: httpx.AsyncClient) -> None:
    await client.post(URL, content=b"{")
    assert (simulator.traffic.exchanges[0].body, simulator.traffic.exchanges[0].raw) == (None, b"{")


async def test_only_the_last_hundred_requests_are_kept(simulator: Simulator, client: httpx.AsyncClient) -> None:
    for number in range(101):
        await client.get(f"/models/{number}")
    paths = [exchange.path for exchange in simulator.traffic.exchanges]
    assert paths == [f"/v1/models/{number}" for number in range(1, 101)]


async def test_the_counters_can_be_read_over_http(simulator: Simulator, client: httpx.AsyncClient) -> None:
    await client.get("/models")
    async with httpx.AsyncClient() as stranger:
        shown = await stranger.get(simulator.base_url.replace("/v1", "/simulator/traffic"))
    assert shown.json() == {"live": 0, "answered": 1, "abandoned": 0}
    assert len(simulator.traffic.exchanges) == 1


async def test_the_requests_can_be_read_over_http_without_their_key(
    simulator: Simulator, client: httpx.AsyncClient
) -> None:
    await client.post(URL, json={"model": "nope"}, headers={"Authorization": "Bearer sk-secret"})
    async with httpx.AsyncClient() as stranger:
        shown = await stranger.get(simulator.base_url.replace("/v1", "/simulator/exchanges"))
    (exchange,) = json.loads(shown.text)
    assert exchange["method"] == "POST"
    assert exchange["path"] == "/v1/chat/completions"
    assert exchange["body"] == {"model": "nope"}
    assert exchange["headers"]["Authorization"] == "***"
    assert "sk-secret" not in shown.text
