"""The application made from the environment, and the command line."""

import importlib
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

import app.main
from app.__main__ import main, parse_arguments
from app.core.config import SettingsError, load_settings
from app.core.dependencies import get_llm_service, get_openai_client
from app.core.lifecycle import Lifecycle
from app.core.server.server import Server
from app.features.llm.client import OpenAIClient
from app.features.llm.service import LLMService
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import served_over


@pytest.fixture(autouse=True)
def fresh_app(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(str(tmp_path))
    app.main._app_of_environment.cache_clear()
    yield
    app.main._app_of_environment.cache_clear()


def application() -> FastAPI:
    made: FastAPI = app.main.app
    return made


@pytest.mark.parametrize(
    ("served", "warned"), [('{"mine": "gpt-4o-mini"}', True), ('{"mine": "gpt-5.2"}', False)], ids=["ends", "stays"]
)
def test_a_warning_names_models_that_openai_will_shut_down(
    served: str, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("SERVED_MODELS", served)
    with TestClient(application()):
        pass

    assert ("shuts down the model served as 'mine' on 2027-01-14" in caplog.text) is warned


def test_a_model_can_be_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_MODEL", "new-model")
    monkeypatch.setenv("MODEL_FAMILIES", '{"new-model": {"context": 8192, "efforts": ["low"], "ends": "2030-01-01"}}')

    assert TestClient(application()).get("/v1/models").json()["data"][0]["max_model_len"] == 8192


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ("{", "MODEL_FAMILIES: must be JSON"),
        ("[]", "MODEL_FAMILIES: Input should be a valid dictionary"),
        ('{"m": {"contxt": 1}}', "MODEL_FAMILIES.m.contxt: Unexpected keyword argument"),
        ('{"m": {"efforts": ["much"]}}', "MODEL_FAMILIES.m.efforts.0: Input should be 'none'"),
        ('{"m": {"like": "gpt-9"}}', "MODEL_FAMILIES.m.like: no such model is known"),
        ('{"m": {"like": "gpt-4.1", "contxt": 1}}', "MODEL_FAMILIES.m.contxt: Unexpected keyword argument"),
        ('{"m": {"context": 0}}', "MODEL_FAMILIES.m.context: Input should be greater than 0"),
        ('{"m": {"default_effort": "low"}}', "MODEL_FAMILIES.m: default_effort 'low' is not one of efforts"),
    ],
)
def test_an_invalid_model_description_is_an_error(
    described: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("MODEL_FAMILIES", described)

    assert main([]) == 2
    assert words in capsys.readouterr().err


def test_importing_builds_no_application_and_needs_no_key() -> None:
    assert "app" not in vars(importlib.reload(app.main))


def test_health_and_models_work_without_the_lifespan() -> None:
    client = TestClient(application())

    assert client.get("/health").json()["status"] == "healthy"
    assert client.get("/v1/models").json()["data"][0]["id"] == "gpt-4o-mini"


def test_the_client_and_the_service_can_be_replaced() -> None:
    made = application()
    seen = []

    @made.get("/parts")
    async def parts(
        client: Annotated[object, Depends(get_openai_client)], service: Annotated[object, Depends(get_llm_service)]
    ) -> None:
        seen.extend([client, service])

    TestClient(made).get("/parts")
    made.dependency_overrides[get_openai_client] = lambda: "another client"
    TestClient(made).get("/parts")

    assert [type(part) for part in seen[:2]] == [OpenAIClient, LLMService]
    assert seen[2:] == ["another client", seen[1]]


async def post_chat(simulator: Simulator, text: str = "hi", **settings: object) -> httpx.Response:
    """The response of a server with these settings."""
    body = {"messages": [{"role": "user", "content": text}], "top_k": 5}
    async with served_over(simulator.base_url, **settings) as url, httpx.AsyncClient(base_url=url) as client:
        return await client.post(CHAT, json=body)


async def test_organization_and_project_are_sent(simulator: Simulator) -> None:
    await post_chat(simulator, openai_org_id="org-1", openai_project_id="proj_1")

    headers = simulator.traffic.exchanges[0].headers
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj_1")


async def test_several_keys_are_used(simulator: Simulator) -> None:
    response = await post_chat(simulator, openai_api_key="sk-wrong", openai_api_keys="sk-b,sk-c")

    used = [exchange.headers["authorization"] for exchange in simulator.traffic.exchanges]
    assert (response.status_code, used) == (200, ["Bearer sk-wrong", "Bearer sk-b"])


@pytest.mark.parametrize("temperature", [0.2, None])
async def test_the_default_temperature_is_sent(simulator: Simulator, temperature: float | None) -> None:
    await post_chat(simulator, default_temperature=temperature)

    sent: Any = simulator.traffic.exchanges[0].body
    assert sent.get("temperature") == temperature


@pytest.mark.parametrize(
    ("choice", "status", "ignored"), [("drop", 200, "top_k"), ("reject", 400, None), ("silent", 200, None)]
)
async def test_unsupported_params_decides_about_unsupported_fields(
    simulator: Simulator, choice: str, status: int, ignored: str | None
) -> None:
    response = await post_chat(simulator, unsupported_params=choice)

    assert (response.status_code, response.headers.get("x-ignored-params")) == (status, ignored)


@pytest.mark.parametrize("shown", [False, True])
async def test_prompt_tokens_details_are_optional(simulator: Simulator, shown: bool) -> None:
    usage = (await post_chat(simulator, enable_prompt_tokens_details=shown)).json()["usage"]

    assert (usage["prompt_tokens_details"] is not None) is shown


def test_the_application_is_built_once() -> None:
    assert application() is application()


def test_other_names_of_the_module_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="nope"):
        _ = app.main.nope


def test_without_a_key_it_does_not_start() -> None:
    with pytest.raises(SettingsError, match="OPENAI_API_KEY is not set"), TestClient(application()):
        pass


def test_with_an_invalid_setting_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_TEMPERATURE", "9")

    with pytest.raises(SettingsError, match="DEFAULT_TEMPERATURE"), TestClient(application()):
        pass


@pytest.mark.parametrize(
    ("variables", "words"),
    [({}, "OPENAI_API_KEY is not set"), ({"OPENAI_API_KEY": "sk-x", "PORT": "x"}, "PORT: ")],
)
def test_the_command_line_reports_an_error_in_one_line(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_flags_override_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000")
    words = "--port 9001 --host 127.0.0.1 --shutdown-timeout 5 --sse-keep-alive-interval 15"
    settings = load_settings(**parse_arguments([*words.split(), "--enable-tokenizer-info-endpoint"]))

    assert (settings.port, settings.host, settings.shutdown_timeout_s) == (9001, "127.0.0.1", 5)
    assert settings.sse_keep_alive_interval == 15
    assert settings.enable_tokenizer_info_endpoint


def test_an_invalid_flag_is_an_error() -> None:
    with pytest.raises(SettingsError, match="PORT: "):
        load_settings(**parse_arguments(["--port", "x"]))


def test_the_first_signal_drains_and_the_second_aborts() -> None:
    server = Server(uvicorn.Config(FastAPI()), Lifecycle())

    server.handle_exit(15, None)
    assert (server.should_exit, server.force_exit) == (True, False)
    server.handle_exit(15, None)
    assert (server.should_exit, server.force_exit) == (True, True)
