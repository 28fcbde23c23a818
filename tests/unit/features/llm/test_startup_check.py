"""The problems that the startup check reports."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date

import pytest

from app.features.llm.catalogue import Catalogue, RetirementPolicy
from app.features.llm.model_families import described_family
from app.features.llm.startup_check import startup_problem
from app.simulator.server import Simulator
from tests.raw_upstream import client_of, http_response, raw_server


async def problem_at(url: str, **served: str) -> str | None:
    async with client_of(url) as client:
        return await startup_problem(client, Catalogue(served), url)


@asynccontextmanager
async def answering(status: str, body: bytes) -> AsyncIterator[str]:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http_response(body, status=status))

    async with raw_server(converse) as url:
        yield url


async def test_without_a_problem_nothing_is_reported(simulator: Simulator) -> None:
    assert await problem_at(simulator.base_url, mine="gpt-4o-mini") is None
    assert [(call.method, call.path) for call in simulator.traffic.exchanges] == [("GET", "/v1/models")]


async def test_models_that_openai_does_not_have_are_named(simulator: Simulator) -> None:
    problem = await problem_at(simulator.base_url, mine="gpt-4o-mini", old="gpt-3", new="gpt-9")

    assert problem is not None
    assert problem.startswith("OpenAI has no model 'gpt-3' (served as 'old'), 'gpt-9' (served as 'new') for this key")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("401 Unauthorized", "OPENAI_API_KEY is refused by OpenAI"),
        ("403 Forbidden", "OPENAI_API_KEY is refused by OpenAI"),
        ("404 Not Found", "OpenAI does not list its models at OPENAI_BASE_URL http://127.0.0.1"),
        ("200 OK", "OpenAI does not list its models at OPENAI_BASE_URL http://127.0.0.1"),
    ],
)
async def test_an_invalid_model_list_is_reported_in_one_line(status: str, words: str) -> None:
    async with answering(status, b'{"error": {"message": "No:\\n sk-proj-abc*** of org-abc."}}') as url:
        problem = await problem_at(url)

    assert problem is not None
    assert problem.startswith(words)
    assert "\n" not in problem
    assert "abc" not in problem


async def test_an_unreachable_openai_is_reported() -> None:
    async with answering("200 OK", b"") as url:
        pass
    problem = await problem_at(url)

    assert problem is not None
    assert problem.startswith(
        f"OpenAI cannot be reached at OPENAI_BASE_URL {url}: ClientConnectorError: Cannot connect"
    )
    assert "Connect call failed" in problem


async def test_a_silent_openai_is_reported_with_the_timeout() -> None:
    async def be_silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(be_silent) as url, client_of(url) as client:
        problem = await startup_problem(client, Catalogue({}), url, limit_s=0.1)

    assert problem == f"OpenAI cannot be reached at OPENAI_BASE_URL {url}: no response within 0.1 s"


async def test_a_closed_connection_is_reported_with_its_reason() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with raw_server(hang_up) as url:
        problem = await problem_at(url)

    assert problem is not None
    assert re.fullmatch(rf"OpenAI cannot be reached at OPENAI_BASE_URL {url}: \w+Error.*", problem)


async def test_a_host_without_an_address_is_reported() -> None:
    problem = await problem_at("http://nowhere.invalid/v1")

    assert problem is not None
    assert "ClientConnectorDNSError: Cannot connect to host nowhere.invalid:80" in problem


async def test_a_failing_proxy_is_reported_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering("407 Proxy Authentication Required", b"") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.removesuffix("/v1").replace("http://", "http://me:geheim@"))
        problem = await problem_at("https://api.example.test/v1")

    assert problem is not None
    assert "ClientHttpProxyError: 407" in problem
    assert "geheim" not in problem


AFTER_THE_END = RetirementPolicy(on_openai=True, today=lambda: date(2027, 1, 15))


@asynccontextmanager
async def listing_no_model(of_one_model: bytes, *, status: str = "200 OK") -> AsyncIterator[str]:
    """An upstream with an empty model list and this response for a single model."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            asks_for_one = head.startswith(b"GET /v1/models/")
            body = of_one_model if asks_for_one else b'{"data": []}'
            writer.write(http_response(body, status=status if asks_for_one else "200 OK"))

    async with raw_server(converse) as url:
        yield url


async def test_an_unlisted_model_that_openai_finds_is_not_retired() -> None:
    catalogue = Catalogue({"mine": "gpt-4o-mini"}, {}, AFTER_THE_END)
    async with listing_no_model(b'{"id": "gpt-4o-mini"}') as url, client_of(url) as client:
        problem = await startup_problem(client, catalogue, url)

    assert problem is not None
    assert problem.startswith("OpenAI has no model 'gpt-4o-mini' (served as 'mine') for this key")
    assert catalogue.upstream_model("mine") == "gpt-4o-mini"


async def test_a_model_whose_lookup_fails_is_not_retired() -> None:
    catalogue = Catalogue({"mine": "gpt-4o-mini"}, {}, AFTER_THE_END)
    body = b'{"error": {"message": "No such endpoint."}}'
    async with listing_no_model(body, status="404 Not Found") as url, client_of(url) as client:
        problem = await startup_problem(client, catalogue, url)

    assert problem is not None
    assert problem.startswith("OpenAI does not list its models at OPENAI_BASE_URL")
    assert catalogue.upstream_model("mine") == "gpt-4o-mini"


@pytest.mark.parametrize("shutdown_date", ["null", '"soon"', "5e99", '"2027-01-14T00:00:00Z"'])
async def test_an_invalid_shutdown_date_is_ignored(shutdown_date: str) -> None:
    catalogue = Catalogue({"mine": "gpt-5.2"}, {}, AFTER_THE_END)
    listed = f'{{"data": [{{"id": "gpt-5.2", "shutdown_date": {shutdown_date}}}]}}'.encode()
    async with answering("200 OK", listed) as url, client_of(url) as client:
        await startup_problem(client, catalogue, url)

    assert catalogue.upstream_model("mine") == "gpt-5.2"


async def test_a_deployment_elsewhere_need_not_be_listed(simulator: Simulator) -> None:
    catalogue = Catalogue({"mine": "my-deployment"}, {"my-deployment": described_family({"like": "gpt-4.1"})})
    async with client_of(simulator.base_url) as client:
        assert await startup_problem(client, catalogue, simulator.base_url) is None
