"""Client keys: which paths need one, and which keys are valid."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from app.__main__ import parse_arguments
from app.core.config import SettingsError, load_settings
from app.core.middleware.authentication import ClientKeys
from app.main import create_app
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import served, served_over, settings_for

BODY = {"messages": [{"role": "user", "content": "hi"}]}
KEYS = "first-key,second key"

PROTECTED = [
    ("POST", CHAT),
    ("POST", "/v1/chat/completions/batch"),
    ("POST", "/v1/completions"),
    ("GET", "/v1/models"),
    ("GET", CHAT),
    ("GET", "/v1/nope"),
    ("GET", "/v1x"),
    ("GET", "/%761/models"),
    ("POST", "/v2/embed"),
    ("GET", "/inference"),
    ("GET", "/cohere/x"),
]
OPEN = [
    ("GET", "/health", 200),
    ("GET", "/ping", 200),
    ("POST", "/ping", 200),
    ("GET", "/version", 200),
    ("GET", "/metrics", 200),
    ("GET", "/load", 200),
    ("GET", "/openapi.json", 200),
    ("POST", "/tokenize", 400),
    ("POST", "/detokenize", 400),
    ("POST", "/invocations", 400),
    ("GET", "/nope", 404),
    ("GET", "//v1/models", 404),
    ("OPTIONS", CHAT, 405),
]
NOT_A_KEY = {
    "none": {},
    "wrong": {"Authorization": "Bearer wrong-key"},
    "a prefix": {"Authorization": "Bearer first-ke"},
    "longer": {"Authorization": "Bearer first-key1"},
    "the whole list": {"Authorization": f"Bearer {KEYS}"},
    "empty": {"Authorization": "Bearer"},
    "another scheme": {"Authorization": "Basic first-key"},
    "no scheme": {"Authorization": "first-key"},
    "two spaces": {"Authorization": "Bearer  first-key"},
    "another header": {"x-api-key": "first-key"},
    "odd host": {"Host": "a/?x="},
    "odd host and wrong": {"Host": "a/?x=", "Authorization": "Bearer wrong-key"},
}


@pytest.fixture
async def protected(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        served_over(simulator.base_url, vllm_api_key=KEYS) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client


@pytest.mark.parametrize("headers", NOT_A_KEY.values(), ids=NOT_A_KEY)
async def test_protected_paths_need_a_key(protected: httpx.AsyncClient, headers: dict[str, str]) -> None:
    for method, path in PROTECTED:
        response = await protected.request(
            method, path, headers={**headers, "Origin": "http://a", "X-Request-Id": "mine"}
        )

        assert (response.status_code, response.text) == (401, '{"error":"Unauthorized"}'), (method, path)
        assert response.headers["x-request-id"] == "mine"
        assert not {"vary", "www-authenticate"} & set(response.headers)


async def test_other_paths_are_open(protected: httpx.AsyncClient) -> None:
    for kind, headers in NOT_A_KEY.items():
        statuses = [
            (method, path, (await protected.request(method, path, headers=headers)).status_code)
            for method, path, _ in OPEN
        ]

        assert statuses == OPEN, kind


@pytest.mark.parametrize("given", ["Bearer first-key", "bearer second key", "BEARER first-key"])
async def test_any_of_the_keys_is_accepted(protected: httpx.AsyncClient, simulator: Simulator, given: str) -> None:
    response = await protected.post(CHAT, json=BODY, headers={"Authorization": given})

    assert response.status_code == 200
    assert [exchange.headers["authorization"] for exchange in simulator.traffic.exchanges] == ["Bearer sk-test-key"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/nope", "/v1x"])
async def test_a_server_with_a_root_path_needs_a_key_too(simulator: Simulator, path: str) -> None:
    app = create_app(settings_for(simulator.base_url, vllm_api_key=KEYS))

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        # As uvicorn does with --root-path.
        paths = {"root_path": "/mounted", "path": f"/mounted{scope['path']}"} if scope["type"] == "http" else {}
        await app({**scope, **paths}, receive, send)

    async with served(mounted) as url, httpx.AsyncClient(base_url=url) as client:
        without_key = await client.get(path)
        with_key = await client.get(path, headers={"Authorization": "Bearer first-key"})

    assert (without_key.status_code, with_key.status_code) == (401, 200 if path == "/v1/models" else 404)


async def test_a_401_does_not_wait_for_the_body(protected: httpx.AsyncClient) -> None:
    url = urlsplit(str(protected.base_url))
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{{".encode())

    async with asyncio.timeout(60):
        line = await reader.readline()

    writer.close()
    assert line == b"HTTP/1.1 401 Unauthorized\r\n"


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    compare = secrets.compare_digest

    def record(given: bytes, known: bytes) -> bool:
        compared.append((len(given), len(known)))
        return compare(given, known)

    monkeypatch.setattr(secrets, "compare_digest", record)
    keys = ClientKeys(["a", "b", "c"])

    assert [keys.position(b"Bearer " + key) for key in (b"a", b"c", b"", b"x" * 99)] == [0, 2, None, None]
    assert compared == [(32, 32)] * 12


async def test_no_header_of_a_client_reaches_openai(client: httpx.AsyncClient, simulator: Simulator) -> None:
    headers = {
        "Authorization": "Bearer theirs",
        "Host": "elsewhere",
        "X-Forwarded-Host": "elsewhere",
        "OpenAI-Organization": "org-theirs",
        "OpenAI-Project": "proj_theirs",
        "X-Base-Url": "http://elsewhere",
        "Cookie": "a=b",
    }
    body = {**BODY, "base_url": "http://elsewhere", "api_key": "theirs", "extra_headers": {"Authorization": "theirs"}}
    response = await client.post(CHAT, json=body, headers=headers)

    sent = simulator.traffic.exchanges[0]
    assert response.status_code == 200
    assert sent.headers["authorization"] == "Bearer sk-test-key"
    assert not [
        value for value in [*sent.headers.values(), str(sent.body)] if "theirs" in value or "elsewhere" in value
    ]


def test_the_flag_replaces_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "a,b")
    keys = load_settings(**parse_arguments(["--api-key", "c,d", "", "e"])).vllm_api_key

    assert [key.get_secret_value() for key in keys] == ["c,d", "e"]


def test_an_empty_list_of_keys_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", " , ")

    with pytest.raises(SettingsError, match="VLLM_API_KEY: must contain at least one key"):
        load_settings()
