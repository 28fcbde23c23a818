"""The search for secrets under all tests finds them wherever the server could tell one."""

import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from app.simulator.delivery.faults import CONFIDENTIAL
from tests import leaks
from tests.processes import started
from tests.serving import served

KEY = "configured+key/1"


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What this test lets out, which is no failure; its records are as Python makes them."""
    monkeypatch.setattr(leaks, "found", [])
    monkeypatch.setattr(leaks, "_configured", {KEY})
    safe = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    yield leaks.found
    logging.setLogRecordFactory(safe)


@pytest.mark.parametrize(
    "secret",
    [
        "sk-test-key",
        "sk-proj-abc***def",
        "org-simulator",
        "proj_simulator",
        CONFIDENTIAL,
        KEY,
        "configured\\u002bkey\\/1",
        "configured%2Bkey%2f1",
        "configured&#43;key&#x2f;1",
        "\\u0073k-test-key",
    ],
)
def test_a_secret_in_a_log_is_found(secret: str, found: list[str]) -> None:
    logging.getLogger("app.anywhere").warning("%s is refused", secret)

    assert "test_a_secret_in_a_log_is_found" in found[0]


async def fail(_request: Request) -> Response:
    raise KeyError("sk-" + "a" * 9)


async def test_a_secret_in_a_traceback_of_uvicorns_is_found(found: list[str]) -> None:
    async with served(Starlette(routes=[Route("/", fail)])) as url, httpx.AsyncClient() as client:
        await client.get(url)

    assert "log of uvicorn.error" in found[0]


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(Response("a sk-test-key b"), id="body"),
        pytest.param(Response(headers={"x-organization": "org-simulator"}), id="header"),
        pytest.param(StreamingResponse(iter(["a", "proj_simulator"])), id="stream"),
    ],
)
async def test_a_secret_in_an_answer_is_found(response: Response, found: list[str]) -> None:
    async def answer(_request: Request) -> Response:
        return response

    async with served(Starlette(routes=[Route("/", answer)])) as url, httpx.AsyncClient() as client:
        await client.get(url)

    assert "response to /" in found[0]


async def test_a_secret_in_a_processs_output_is_found(tmp_path: Path, found: list[str]) -> None:
    async with started("-c", "raise SystemExit('sk-test-key')", cwd=tmp_path) as process:
        await process.ended()

    assert "log of a process" in found[0]
