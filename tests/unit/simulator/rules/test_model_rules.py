"""Model-specific behaviour: existence, limits, and what a family supports."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any

import httpx
import pytest

from app.simulator.server import Catalogue, Simulator

URL = "/chat/completions"
FUNCTION = {"type": "function", "function": {"name": "f"}}
CUSTOM = {"type": "custom", "custom": {"name": "c"}}


def chat(model: str, text: Any = "Hi", **members: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **members}


def no_parameter(name: str, hint: str = "") -> tuple[str, str, str]:
    return f"Unsupported parameter: '{name}' is not supported with this model.{hint}", name, "unsupported_parameter"


def no_value(name: str, value: str, supported: str) -> tuple[str, str, str]:
    message = f"Unsupported value: '{name}' does not support {value} with this model. {supported}"
    return message, name, "unsupported_value"


def no_functions(model: str, way_out: str = " or set reasoning_effort to 'none'") -> tuple[str, str, None]:
    message = (
        f"Function tools with reasoning_effort are not supported for {model} in /v1/chat/completions. "
        f"To use function tools, use /v1/responses{way_out}."
    )
    return message, "reasoning_effort", None


def too_large(name: str, requested: int, maximum: int) -> tuple[str, str, str]:
    message = (
        f"max_tokens is too large: {requested}. This model supports at most {maximum} completion tokens, "
        f"whereas you provided {requested}."
    )
    return message, name, "invalid_value"


ONLY_ONE = "Only the default (1) value is supported."
SAMPLING = {"top_p": 0.5, "logprobs": True}
NEVER = {"presence_penalty": 0.5, "frequency_penalty": 0.5, "logit_bias": {"5": 1}, "stop": "x"}

REJECTED = [
    *(
        pytest.param(chat(model, **{name: value}), no_parameter(name), id=f"{model} {name}")
        for model in ("o3", "gpt-5", "gpt-5.5", "gpt-6.1-sol", "gpt-6.2-sol", "gpt-6.2-astra", "chat-latest")
        for name, value in (SAMPLING | NEVER).items()
    ),
    *(
        pytest.param(chat(model, **{name: value}), no_parameter(name), id=f"{model} {name}")
        for model in ("gpt-5.1", "gpt-5.2", "gpt-5.4")
        for name, value in NEVER.items()
    ),
    *(
        pytest.param(
            chat("gpt-5.2", reasoning_effort="low", **{name: value}), no_parameter(name), id=f"gpt-5.2 thinking {name}"
        )
        for name, value in SAMPLING.items()
    ),
    pytest.param(
        chat("gpt-5", logprobs=True, top_logprobs=2), no_parameter("logprobs"), id="logprobs before top_logprobs"
    ),
    pytest.param(
        chat("o3-2025-04-16", max_tokens=5),
        no_parameter("max_tokens", " Use 'max_completion_tokens' instead."),
        id="max_tokens",
    ),
    pytest.param(chat("o3", tools=[FUNCTION], parallel_tool_calls=True), no_parameter("parallel_tool_calls"), id="o3"),
    pytest.param(chat("gpt-5", temperature=0.3), no_value("temperature", "0.3", ONLY_ONE), id="temperature"),
    pytest.param(chat("gpt-5", temperature=0), no_value("temperature", "0", ONLY_ONE), id="temperature 0"),
    pytest.param(
        chat("gpt-5.1", temperature=0.3, reasoning_effort="low"),
        no_value("temperature", "0.3", ONLY_ONE),
        id="temperature while thinking",
    ),
    pytest.param(
        chat("o3", reasoning_effort="minimal"),
        no_value("reasoning_effort", "'minimal'", "Supported values are: 'low', 'medium', and 'high'."),
        id="effort of o3",
    ),
    pytest.param(
        chat("gpt-5.1", reasoning_effort="xhigh"),
        no_value("reasoning_effort", "'xhigh'", "Supported values are: 'none', 'low', 'medium', and 'high'."),
        id="effort of gpt-5.1",
    ),
    pytest.param(
        chat("gpt-6.1-sol", reasoning_effort="none"),
        no_value("reasoning_effort", "'none'", "Supported values are: 'low', 'medium', 'high', and 'xhigh'."),
        id="effort of gpt-6.1-sol",
    ),
    pytest.param(
        chat("gpt-4o", reasoning_effort="low"),
        ("Unrecognized request argument supplied: reasoning_effort", None, None),
        id="effort of a classic model",
    ),
    pytest.param(
        chat("gpt-4.1", verbosity="low"),
        no_value("verbosity", "'low'", "Supported values are: 'medium'."),
        id="verbosity of a classic model",
    ),
    pytest.param(
        chat("gpt-5.4", tools=[FUNCTION], reasoning_effort="low"), no_functions("gpt-5.4"), id="functions, thinking"
    ),
    pytest.param(chat("gpt-5.6-luna", tools=[FUNCTION]), no_functions("gpt-5.6-luna"), id="functions, default effort"),
    pytest.param(chat("gpt-6.1-sol", tools=[FUNCTION]), no_functions("gpt-6.1-sol", ""), id="functions never"),
    pytest.param(
        chat("gpt-6.1-terra", tools=[FUNCTION], reasoning_effort="none"),
        no_functions("gpt-6.1-terra", ""),
        id="functions on Responses only",
    ),
    pytest.param(chat("chat-latest", temperature=0.3), no_parameter("temperature"), id="temperature of chat-latest"),
    pytest.param(
        chat("gpt-5-search-api", temperature=1),
        ("Model incompatible request argument supplied: temperature", None, None),
        id="temperature of a search model",
    ),
    pytest.param(
        chat("gpt-5-search-api", n=2, tools=[FUNCTION]),
        ("Model incompatible request arguments supplied: n, tools", None, None),
        id="functions and choices of a search model",
    ),
    pytest.param(
        chat(
            "gpt-audio",
            response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        ),
        (
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model. Learn more "
            "about supported models at the Structured Outputs guide: "
            "https://platform.openai.com/docs/guides/structured-outputs",
            "response_format",
            None,
        ),
        id="schema of a model that follows none",
    ),
    pytest.param(
        chat("gpt-4o-2024-05-13", max_tokens=4_097), too_large("max_tokens", 4_097, 4_096), id="snapshot of its own"
    ),
    pytest.param(chat("gpt-4o", max_tokens=20480), too_large("max_tokens", 20480, 16384), id="max_tokens too large"),
    pytest.param(
        chat("o3", max_completion_tokens=100_001),
        too_large("max_completion_tokens", 100_001, 100_000),
        id="max_completion_tokens too large",
    ),
    pytest.param(
        chat("gpt-4o-mini", " word" * 129_993),
        (
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 tokens. "
            "Please reduce the length of the messages.",
            "messages",
            "context_length_exceeded",
        ),
        id="context",
    ),
]


@pytest.mark.parametrize(("body", "expected"), REJECTED)
async def test_a_model_rejects_what_it_does_not_support(
    client: httpx.AsyncClient, body: dict[str, Any], expected: tuple[str, str | None, str | None]
) -> None:
    message, param, code = expected
    response = await client.post(URL, json=body)
    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": message,
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(chat("gpt-5", temperature=1, reasoning_effort="minimal", verbosity="low"), id="gpt-5"),
        pytest.param(chat("gpt-5", max_completion_tokens=128_000), id="output limit"),
        pytest.param(chat("gpt-5.1", temperature=0.3, logprobs=True, top_logprobs=1), id="gpt-5.1"),
        pytest.param(chat("gpt-5.5", temperature=0.3, reasoning_effort="none"), id="gpt-5.5 without thinking"),
        pytest.param(chat("gpt-5.4", tools=[FUNCTION]), id="gpt-5.4 functions"),
        pytest.param(chat("gpt-5.5", tools=[FUNCTION], reasoning_effort="none"), id="gpt-5.5 functions"),
        pytest.param(chat("gpt-5.5", tools=[CUSTOM]), id="gpt-5.5 custom tools"),
        pytest.param(chat("gpt-6.1-sol", reasoning_effort="xhigh"), id="gpt-6.1-sol"),
        pytest.param(chat("o3", tools=[FUNCTION]), id="o3 functions"),
        pytest.param(chat("gpt-6-luna", temperature=0, logprobs=True, reasoning_effort="none"), id="gpt-6-luna"),
        pytest.param(chat("chat-latest", temperature=1, tools=[FUNCTION]), id="chat-latest"),
        pytest.param(chat("gpt-4.1-mini", max_tokens=32_768, verbosity="medium"), id="gpt-4.1-mini"),
        pytest.param(chat("gpt-4.1", " word" * 129_993), id="long context"),
    ],
)
async def test_a_model_accepts_what_its_family_supports(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    response = await client.post(URL, json=body)
    assert response.status_code == 200, response.text


async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json=chat("nope"))
    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": "The model `nope` does not exist or you do not have access to it.",
        "type": "invalid_request_error",
        "param": None,
        "code": "model_not_found",
    }


async def test_the_list_has_every_model_and_snapshot(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/models")).json()
    names = [entry["id"] for entry in listed["data"]]
    assert listed["object"] == "list"
    assert {"gpt-4o-mini", "gpt-4o-mini-2024-07-18", "gpt-6.1-sol"} <= set(names)
    assert len(names) == len(set(names))


async def test_a_model_has_openais_form(client: httpx.AsyncClient) -> None:
    shown = (await client.get("/models/gpt-4o-mini")).json()
    assert shown == {
        "id": "gpt-4o-mini",
        "object": "model",
        "created": 1721172741,
        "owned_by": "system",
        "shutdown_date": "2027-01-14",
    }


async def test_an_unknown_model_is_not_shown(client: httpx.AsyncClient) -> None:
    response = await client.get("/models/nope")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


async def test_a_model_without_a_shutdown_date_has_none(client: httpx.AsyncClient) -> None:
    assert (await client.get("/models/gpt-6-luna")).json()["shutdown_date"] is None


@asynccontextmanager
async def client_on(day: date, *, shutdown_dates: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    catalogue = Catalogue(day, shutdown_dates=shutdown_dates)
    async with (
        Simulator(catalogue=catalogue) as simulator,
        httpx.AsyncClient(base_url=simulator.base_url, headers={"Authorization": "Bearer sk-a"}, timeout=5) as client,
    ):
        yield client


@pytest.mark.parametrize("name", ["gpt-4o-mini", "gpt-4o-mini-2024-07-18"])
async def test_a_model_is_available_until_the_day_before_its_shutdown(name: str) -> None:
    async with client_on(date(2027, 1, 13)) as client:
        assert (await client.post(URL, json=chat(name))).status_code == 200
    async with client_on(date(2027, 1, 14)) as client:
        response = await client.post(URL, json=chat(name))
        shown = await client.get(f"/models/{name}")
    assert response.status_code == shown.status_code == 404
    assert response.json()["error"] == {
        "message": (
            f"The model `{name}` has been deprecated, learn more here: https://platform.openai.com/docs/deprecations"
        ),
        "type": "invalid_request_error",
        "param": None,
        "code": "model_not_found",
    }


@pytest.mark.parametrize(("shutdown_dates", "listed"), [(True, "2027-01-14"), (False, None)])
async def test_a_shut_down_model_is_listed_with_its_date_or_omitted(shutdown_dates: bool, listed: str | None) -> None:
    async with client_on(date(2027, 1, 15), shutdown_dates=shutdown_dates) as client:
        entries = (await client.get("/models")).json()["data"]
    dates = {entry["id"]: entry.get("shutdown_date") for entry in entries}
    assert dates.get("gpt-4o-mini") == listed
    assert "gpt-6-luna" in dates
    assert all(("shutdown_date" in entry) is shutdown_dates for entry in entries)


async def test_a_deployment_is_another_name_for_a_model() -> None:
    async with (
        Simulator(catalogue=Catalogue(deployments={"my-deployment": "gpt-5.2"})) as simulator,
        httpx.AsyncClient(base_url=simulator.base_url, headers={"Authorization": "Bearer sk-a"}) as client,
    ):
        response = await client.post(URL, json=chat("my-deployment", stop="x"))
        listed = await client.get("/models/my-deployment")
    assert response.json()["error"]["code"] == "unsupported_parameter"
    assert listed.json()["id"] == "my-deployment"
