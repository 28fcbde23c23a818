"""No key and no prompt is in a log or a response, whatever fails."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.simulator.directives import FAULTS
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import serving, settings_for

OUR_KEYS = ("sk-proj-Our1stMarkedKey00000000000001", "sk-proj-Our2ndMarkedKey00000000000002")
CLIENTS_KEY = "sk-clients-MarkedKey0000000003"
PROMPT = "MarkedPrompt0000000004"
MARKS = (*OUR_KEYS, "MarkedKey", CLIENTS_KEY, PROMPT)
OURS = {"httpx", "httpcore"}
"""Loggers of the test's client."""
LOGGERS = (
    "",
    "app",
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "aiohttp",
    "openai",
    "httpx2",
    "asyncio",
    "pydantic",
)


@pytest.fixture(autouse=True)
def every_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    kept = {name: logging.getLogger(name).propagate for name in LOGGERS}
    for name in LOGGERS:
        caplog.set_level(logging.DEBUG, name)
    yield caplog
    for name, propagate in kept.items():
        logging.getLogger(name).propagate = propagate


class Witness:
    """A client that sends its key and prompt everywhere and keeps the responses."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.heard: list[str] = []

    async def send(self, method: str, path: str, **sent: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {CLIENTS_KEY}", "x-api-key": CLIENTS_KEY, **sent.pop("headers", {})}
        response = await self.client.request(method, f"{path}?api_key={CLIENTS_KEY}", headers=headers, **sent)
        said = response.text if response.status_code >= 400 or method == "GET" else _error_events(response.text)
        self.heard += [str(response.headers.raw), said]
        return response

    async def ask(self, directive: str = "", **fields: Any) -> httpx.Response:
        message = {"role": "user", "content": f"{PROMPT} {directive}"}
        return await self.send("POST", CHAT, json={"messages": [message], **fields})


def _error_events(text: str) -> str:
    # What the simulator answers may well be about the prompt.
    return "\n".join(line for line in text.splitlines() if '"error"' in line)


@pytest.fixture
async def server(simulator: Simulator) -> AsyncIterator[tuple[Witness, Any]]:
    first, second = OUR_KEYS
    settings = settings_for(
        simulator.base_url,
        openai_api_key=first,
        openai_api_keys=[second],
        upstream_max_attempts=1,
        unsupported_params="drop",
    )
    app = create_app(settings)

    @app.get("/v1/bug")
    async def bug() -> None:
        raise KeyError("a bug")

    async with (
        serving(app, app.state.components.lifecycle) as running,
        httpx.AsyncClient(base_url=running.url) as client,
    ):
        logging.getLogger("uvicorn.access").setLevel(logging.DEBUG)
        yield Witness(client), app


WRONG: dict[str, Any] = {
    "temperature": 7,
    "n": "x",
    "messages": [{"role": "user", "content": [{"type": "text", "text": PROMPT}, 1]}],
    "model": "nobody",
    "stop": [PROMPT] * 9,
    "tools": [{"type": "function"}],
    "response_format": {"type": "json_schema"},
    "chat_template": PROMPT,
    "seed": 2**70,
}
BROKEN = {
    "no JSON": f'{{"messages":[{{"role":"user","content":"{PROMPT}"'.encode(),
    "no UTF-8": f'{{"messages":[{{"role":"user","content":"{PROMPT}'.encode() + b'\xff"}]}',
    "a surrogate": f'{{"messages":[{{"role":"user","content":"{PROMPT}\\ud800"}}]}}'.encode(),
    "deep": f'{{"messages":[{{"role":"user","content":"{PROMPT}"}}],"x":{"[" * 999}'.encode(),
}


async def fail_in_every_way(witness: Witness) -> None:
    for stream in (False, True):
        for fault in FAULTS:
            await witness.ask(f"[sim fault={fault} seconds=0 status=403 tokens=9]", stream=stream)
    for name, value in WRONG.items():
        await witness.ask(**{name: value})
    for body in BROKEN.values():
        await witness.send("POST", CHAT, content=body, headers={"content-type": "application/json"})
    await witness.send("POST", CHAT, content=PROMPT.encode())
    for path in ("/v1/bug", "/v1/nope", "/v1/models", "/metrics", "/openapi.json", "/version", "/load"):
        await witness.send("GET", path)


def marks_in(text: str) -> list[str]:
    return [mark for mark in MARKS if mark in text]


async def test_no_key_and_no_prompt_leaks(
    server: tuple[Witness, Any], every_log: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    witness, app = server
    await fail_in_every_way(witness)
    components = app.state.components

    formatted = logging.Formatter("%(name)s %(message)s").format
    logged = "\n".join(formatted(record) for record in every_log.records if record.name.split(".")[0] not in OURS)
    written = capfd.readouterr()
    assert "OpenAI: " in logged
    assert "KeyError" in logged
    assert "uvicorn.access" in logged
    assert not marks_in(logged)
    assert not marks_in(written.out + written.err)
    assert [marks_in(said) for said in witness.heard if marks_in(said)] == []
    assert not marks_in(repr(components) + repr(components.settings) + repr(vars(components.openai_client)))
