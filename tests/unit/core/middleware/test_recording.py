"""Headers that the middleware adds to responses, and unexpected failures."""

import re

import httpx
import pytest
from fastapi import FastAPI

from app.core.config import SettingsError
from app.core.middleware.startup_failure import StartupFailureMiddleware
from app.core.request_record import RequestRecord, begin_record, current_record
from app.main import create_app
from tests.conftest import CHAT
from tests.serving import served, settings_for


def app_with_a_bug() -> FastAPI:
    app = create_app(settings_for("http://127.0.0.1:1/v1"))

    @app.get("/v1/bug")
    async def bug() -> None:
        raise KeyError("a secret")

    return app


async def test_a_bug_is_a_500_in_vllms_form_without_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    async with served(app_with_a_bug()) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.get("/v1/bug", headers={"x-request-id": "mine"})

    assert response.status_code == 500
    assert response.json()["error"]["type"] == "InternalServerError"
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "mine"
    assert "KeyError" in capsys.readouterr().err


async def test_error_responses_have_a_request_id(client: httpx.AsyncClient) -> None:
    assert (await client.post(CHAT, json={})).headers["x-request-id"]
    assert (await client.get("/v1/nope")).headers["x-request-id"]


async def test_an_empty_request_id_is_ignored(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/models", headers={"x-request-id": ""})

    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


def test_there_is_a_record_outside_of_requests() -> None:
    current_record().ignored_params.append("x")


def test_long_headers_are_cut_between_items() -> None:
    record = RequestRecord(ignored_params=[f"messages.key{number}" for number in range(200)])
    begin_record(record)
    headers = {name.decode(): value.decode() for name, value in current_record().headers()}

    assert len(headers["x-ignored-params"]) <= 1024
    assert headers["x-ignored-params"].split(",") == record.ignored_params[: headers["x-ignored-params"].count(",") + 1]


class Lifespan:
    """Collects what the server receives from an application that does not start."""

    def __init__(self, problem: Exception) -> None:
        self.problem = problem
        self.messages: list[dict[str, object]] = []

    async def app(self, _scope: object, _receive: object, send: object) -> None:
        await send({"type": "lifespan.startup.failed", "message": "Traceback"})  # type: ignore[operator]
        raise self.problem

    async def start(self) -> None:
        async def send(message: object) -> None:
            self.messages.append(message)  # type: ignore[arg-type]

        with pytest.raises(type(self.problem)):
            await StartupFailureMiddleware(self.app)({"type": "lifespan"}, None, send)  # type: ignore[arg-type]


async def test_invalid_settings_are_reported_to_the_server_in_one_line() -> None:
    lifespan = Lifespan(SettingsError("OPENAI_API_KEY is not set"))
    await lifespan.start()

    assert lifespan.messages == [{"type": "lifespan.startup.failed", "message": "OPENAI_API_KEY is not set"}]


async def test_any_other_startup_failure_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    lifespan = Lifespan(OSError("disk"))
    await lifespan.start()

    assert lifespan.messages == [{"type": "lifespan.startup.failed", "message": "OSError"}]
    assert "The application failed to start or to shut down\nTraceback" in caplog.text
    assert "OSError: disk" in caplog.text
