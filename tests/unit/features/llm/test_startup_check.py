"""What the operator is told before a client meets it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.features.llm.catalogue import Catalogue
from app.features.llm.startup_check import startup_problem
from app.simulator.server import Simulator
from tests.unit.features.llm.test_client import client_of, http_answer, raw_server


async def problem_at(url: str, **served: str) -> str | None:
    async with client_of(url) as client:
        return await startup_problem(client, Catalogue(served), url)


@asynccontextmanager
async def answering(status: str, body: bytes) -> AsyncIterator[str]:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http_answer(body, status=status))

    async with raw_server(converse) as url:
        yield url


async def test_where_all_is_well_there_is_nothing_to_tell(simulator: Simulator) -> None:
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
async def test_an_answer_that_is_no_list_is_explained_in_one_line(status: str, words: str) -> None:
    async with answering(status, b'{"error": {"message": "No:\\n sk-proj-abc*** of org-abc."}}') as url:
        problem = await problem_at(url)

    assert problem is not None
    assert problem.startswith(words)
    assert "\n" not in problem
    assert "abc" not in problem


async def test_an_openai_that_cannot_be_reached_is_told() -> None:
    async with answering("200 OK", b"") as url:
        pass
    problem = await problem_at(url)

    assert problem is not None
    assert problem.startswith(f"OpenAI cannot be reached at OPENAI_BASE_URL {url}: Cannot connect to host")
