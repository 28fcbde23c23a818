"""The days around a model's shutdown: the startup log, responses and /v1/models."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.simulator.server import Catalogue, Simulator
from tests.conftest import CHAT
from tests.openai_schema import violations
from tests.serving import serving, settings_for

BEFORE, AFTER = date(2027, 1, 13), date(2027, 1, 15)
OPENAI = "http://api.openai.com/v1"
MODES = ["auto", "switch", "refuse"]
USUAL = {"temperature": 0, "max_tokens": 64, "stop": ["\n\n"], "logprobs": True, "top_logprobs": 2}


@dataclass
class Clock:
    """The date for the server."""

    day: date

    def __call__(self) -> date:
        return self.day


@dataclass
class World:
    """A server with OpenAI on some date."""

    client: httpx.AsyncClient
    openai: Simulator
    catalogue: Catalogue
    clock: Clock
    lines: "Lines"

    async def ask(self, **members: Any) -> httpx.Response:
        return await self.client.post(CHAT, json={"messages": [{"role": "user", "content": "Hi"}], **USUAL, **members})

    async def root(self) -> str:
        (card,) = (await self.client.get("/v1/models")).json()["data"]
        root: str = card["root"]
        return root

    def asked_for(self) -> list[str]:
        return [exchange.body["model"] for exchange in self.openai.traffic.exchanges if exchange.method == "POST"]


class Lines(logging.Handler):
    """The server's log lines, which a test can wait for."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self.came = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.came.set()

    async def first(self) -> str:
        async with asyncio.timeout(10):
            await self.came.wait()
        return self.texts[0]


@pytest.fixture
def lines() -> Any:
    handler = Lines()
    logging.getLogger("app").addHandler(handler)
    yield handler
    logging.getLogger("app").removeHandler(handler)


@asynccontextmanager
async def world(
    day: date,
    lines: Lines,
    patch: pytest.MonkeyPatch,
    *,
    today: date | None = None,
    model: str = "gpt-4o-mini",
    shutdown_dates: bool = True,
    on_openai: bool = True,
    **settings: Any,
) -> AsyncIterator[World]:
    """A day at OpenAI, and `today` for the server where it takes it for another.

    The simulator stands in for api.openai.com as the proxy that all calls to it go through.
    """
    catalogue, clock = Catalogue(day, shutdown_dates=shutdown_dates), Clock(today or day)
    async with Simulator(catalogue=catalogue) as openai:
        patch.setenv("HTTP_PROXY", openai.base_url.removesuffix("/v1"))
        patch.setenv("NO_PROXY", "127.0.0.1")
        base_url = OPENAI if on_openai else openai.base_url
        given = {"served_models": {"mine": model}, "startup_check": "warn", **settings}
        app = create_app(settings_for(base_url, **given), today=clock)
        async with (
            serving(app, app.state.components.lifecycle) as server,
            httpx.AsyncClient(base_url=server.url, timeout=10, trust_env=False) as client,
        ):
            yield World(client, openai, catalogue, clock, lines)
        assert violations(openai.traffic.exchanges) == []


with_and_without_dates = pytest.mark.parametrize("shutdown_dates", [True, False], ids=["dates", "no dates"])


@pytest.mark.parametrize("on_openai", [True, False], ids=["OpenAI", "another host"])
@with_and_without_dates
@pytest.mark.parametrize("mode", MODES)
async def test_before_a_shutdown_the_startup_log_names_the_successor(
    mode: str, shutdown_dates: bool, on_openai: bool, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(
        BEFORE, lines, monkeypatch, shutdown_dates=shutdown_dates, on_openai=on_openai, retired_models=mode
    ) as around:
        assert await lines.first() == (
            "OpenAI shuts down the model served as 'mine' on 2027-01-14: "
            "set DEFAULT_MODEL or SERVED_MODELS to gpt-6-luna"
        )
        response = await around.ask()
        assert response.status_code == 200
        assert "x-adjusted-params" not in response.headers
        assert await around.root() == "gpt-4o-mini"
        assert len(lines.texts) == 1


@with_and_without_dates
@pytest.mark.parametrize(
    ("mode", "model", "successor"),
    [
        ("auto", "gpt-4o-mini", "gpt-6-luna"),
        ("auto", "gpt-4o-mini-2024-07-18", "gpt-6-luna"),
        ("switch", "gpt-4o-mini", "gpt-6-luna"),
        ("switch", "gpt-4.1", "gpt-6-luna"),
    ],
)
async def test_after_a_shutdown_requests_use_the_successor(
    mode: str, model: str, successor: str, shutdown_dates: bool, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(
        AFTER, lines, monkeypatch, model=model, shutdown_dates=shutdown_dates, retired_models=mode
    ) as around:
        said = await lines.first()
        responses = [await around.ask(), await around.ask(reasoning_effort="high")]
        streamed = await around.ask(stream=True)
        assert await around.root() == successor
        assert around.asked_for() == [successor] * 3
        assert {exchange.body["reasoning_effort"] for exchange in list(around.openai.traffic.exchanges)[-3:]} == {
            "none"
        }

    assert said.startswith(
        f"OpenAI shut down {model} (served as 'mine') on 2027-01-14: requests go on with {successor} at its lowest"
    )
    assert len(lines.texts) == 1
    for response in responses:
        assert response.status_code == 200, response.text
        choice = response.json()["choices"][0]
        assert choice["message"]["content"]
        assert choice["logprobs"]["content"]
        assert response.json()["model"] == "mine"
        assert response.headers["x-upstream-attempts"] == "1"
    assert responses[0].headers["x-adjusted-params"] == f"model={successor}"
    assert responses[1].headers["x-adjusted-params"] == f"model={successor},reasoning_effort=none"
    assert streamed.headers["x-adjusted-params"] == f"model={successor}"
    assert streamed.text.endswith("data: [DONE]\n\n")


@with_and_without_dates
@pytest.mark.parametrize(
    ("mode", "model"),
    [("auto", "gpt-4o"), ("auto", "gpt-4.1-mini"), ("refuse", "gpt-4o-mini"), ("refuse", "gpt-4o")],
)
async def test_after_a_shutdown_other_models_are_rejected_with_their_successor(
    mode: str, model: str, shutdown_dates: bool, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(
        AFTER, lines, monkeypatch, model=model, shutdown_dates=shutdown_dates, retired_models=mode
    ) as around:
        said = await lines.first()
        response = await around.ask()
        root = await around.root()
        assert around.asked_for() == []

    ended = f"The model `{model}` was shut down by OpenAI on 2027-01-14. Its successor is `gpt-6-luna`."
    assert said == f"{ended} Requests for it are refused: set DEFAULT_MODEL or SERVED_MODELS"
    assert len(lines.texts) == 1
    assert response.status_code == 400
    assert response.json()["error"] == {"message": ended, "type": "BadRequestError", "param": "model", "code": 400}
    assert root == model


@with_and_without_dates
@pytest.mark.parametrize("mode", MODES)
async def test_openais_dates_do_not_apply_to_other_hosts(
    mode: str, shutdown_dates: bool, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(
        AFTER, lines, monkeypatch, shutdown_dates=shutdown_dates, on_openai=False, retired_models=mode
    ) as around:
        said = await lines.first()
        response = await around.ask()
        assert await around.root() == "gpt-4o-mini"
        assert around.asked_for() == ["gpt-4o-mini"]

    assert said.startswith(
        "OpenAI was to shut down the model served as 'mine' on 2027-01-14: "
        if shutdown_dates
        else "OpenAI has no model 'gpt-4o-mini' (served as 'mine') for this key"
    )
    assert response.status_code == 400
    assert "has been deprecated" in response.json()["error"]["message"]


@pytest.mark.parametrize("mode", MODES)
async def test_the_tables_date_alone_retires_no_model(mode: str, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(BEFORE, lines, monkeypatch, today=AFTER, shutdown_dates=False, retired_models=mode) as around:
        assert (await lines.first()).startswith("OpenAI was to shut down the model served as 'mine' on 2027-01-14")
        response = await around.ask()
        assert await around.root() == "gpt-4o-mini"

    assert response.status_code == 200
    assert "x-adjusted-params" not in response.headers


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("startup_check", ["off", "require"])
async def test_a_service_keeps_running_through_a_shutdown_date(
    startup_check: str, stream: bool, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(BEFORE, lines, monkeypatch, startup_check=startup_check) as around:
        before = await around.ask(stream=stream)
        around.clock.day = around.catalogue.today = AFTER
        after = [await around.ask(stream=stream) for _ in range(2)]
        together = await around.client.post(
            f"{CHAT}/batch", json={"messages": [[{"role": "user", "content": "Hi"}]] * 3}
        )
        completed = await around.client.post("/v1/completions", json={"prompt": ["Hi", "Ho"], "stream": stream})
        assert await around.root() == "gpt-6-luna"

    assert "x-adjusted-params" not in before.headers
    assert [response.status_code for response in (before, *after, together, completed)] == [200] * 5
    assert [response.headers["x-adjusted-params"] for response in after] == ["model=gpt-6-luna"] * 2
    assert [response.headers["x-upstream-attempts"] for response in after] == ["2", "1"]
    assert sum("requests go on with gpt-6-luna" in line for line in lines.texts) == 1


async def test_concurrent_requests_all_use_the_successor(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(AFTER, lines, monkeypatch, startup_check="off") as around:
        responses = await asyncio.gather(*(around.ask() for _ in range(8)))

    assert {response.status_code for response in responses} == {200}
    assert sum("requests go on with gpt-6-luna" in line for line in lines.texts) == 1


async def test_a_model_rejected_at_runtime_is_logged_once(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(AFTER, lines, monkeypatch, model="gpt-4o", startup_check="off") as around:
        responses = [await around.ask() for _ in range(2)]
        assert around.asked_for() == ["gpt-4o"]

    assert {response.status_code for response in responses} == {400}
    assert all("Its successor is `gpt-6-luna`" in response.json()["error"]["message"] for response in responses)
    assert sum("Requests for it are refused" in line for line in lines.texts) == 1


async def test_a_model_not_found_before_its_date_is_not_retired(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(AFTER, lines, monkeypatch, today=BEFORE, startup_check="off") as around:
        response = await around.ask()
        assert await around.root() == "gpt-4o-mini"

    assert response.status_code == 400
    assert response.headers["x-openai-error-code"] == "model_not_found"


async def test_a_fine_tuned_model_is_not_replaced(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(
        AFTER, lines, monkeypatch, model="ft:gpt-4o-mini-2024-07-18:acme::abc", startup_check="off"
    ) as around:
        response = await around.ask()

    assert response.status_code == 400
    assert "was shut down by OpenAI on 2027-01-14" in response.json()["error"]["message"]


async def test_with_every_model_served_a_retired_one_is_replaced_too(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(AFTER, lines, monkeypatch, startup_check="off", served_models="*") as around:
        responses = [await around.ask(model=model) for model in ("gpt-4o-mini", "gpt-4o")]
        cards = (await around.client.get("/v1/models")).json()["data"]

    assert [response.status_code for response in responses] == [200, 400]
    assert {card["id"]: card["root"] for card in cards}["gpt-4o-mini"] == "gpt-6-luna"
