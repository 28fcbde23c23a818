"""A request that is cancelled at any step of the event loop leaks nothing."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message

from app.core.dependencies import Components
from app.main import create_app
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import held_by, nothing_is_held_by, settings_for

COMPLETIONS = "/v1/completions"
TEXT = "[sim tokens=3] hi"
MESSAGES = [{"role": "user", "content": TEXT}]


class Request:
    """A request sent to the ASGI application."""

    def __init__(self, app: Any, path: str, body: dict[str, Any]) -> None:
        self._path = path
        self._body = json.dumps(body).encode()
        self._read = False
        self.left = asyncio.Event()
        self.sent: list[Message] = []
        self.answering = asyncio.ensure_future(app(self._scope(), self._receive, self._send))

    def _scope(self) -> dict[str, Any]:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self._body))]
        return {
            "type": "http",
            "method": "POST",
            "path": self._path,
            "raw_path": self._path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "http_version": "1.1",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }

    async def _receive(self) -> Message:
        if not self._read:
            self._read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    async def outcome(self) -> object:
        """None, or the exception it ended with."""
        async with asyncio.timeout(60):
            return (await asyncio.gather(self.answering, return_exceptions=True))[0]

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()


def cancel(request: Request, _components: Components) -> None:
    request.answering.cancel()


def leave(request: Request, _components: Components) -> None:
    request.left.set()


def leave_and_cancel(request: Request, _components: Components) -> None:
    request.left.set()
    request.answering.cancel()


def abort(_request: Request, components: Components) -> None:
    components.lifecycle.abort()


def abort_and_leave(request: Request, components: Components) -> None:
    components.lifecycle.abort()
    request.left.set()


async def ended_after(steps: int, upstream: str, path: str, body: dict[str, Any], end: Any) -> tuple[Request, bool]:
    """Cancel a request after `steps` steps; return it and whether it was complete."""
    app = create_app(settings_for(upstream))
    components: Components = app.state.components
    async with app.router.lifespan_context(app):
        request = Request(app, path, body)
        for _ in range(steps):
            await asyncio.sleep(0)
        complete = request.answering.done()
        end(request, components)
        outcome = await request.outcome()
        await nothing_is_held_by(components)
    assert outcome is None or isinstance(outcome, asyncio.CancelledError)
    return request, complete


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(CHAT, {"messages": MESSAGES}, id="whole"),
        pytest.param(CHAT, {"messages": MESSAGES, "stream": True}, id="stream"),
        pytest.param(f"{CHAT}/batch", {"messages": [MESSAGES] * 3}, id="batch"),
        pytest.param(COMPLETIONS, {"prompt": [TEXT] * 3}, id="prompts, whole"),
        pytest.param(COMPLETIONS, {"prompt": [TEXT] * 3, "stream": True}, id="prompts, stream"),
    ],
)
@pytest.mark.parametrize("end", [cancel, leave, leave_and_cancel, abort, abort_and_leave])
async def test_a_request_cancelled_at_any_step_leaks_nothing(
    simulator: Simulator, end: Callable[[Request, Components], None], path: str, body: dict[str, Any]
) -> None:
    steps, complete = 0, False
    while not complete:
        request, complete = await ended_after(steps, simulator.base_url, path, body, end)
        if end is abort:
            assert request.sent[0]["status"] == 200
            assert '"finish_reason":"abort"' in request.text or '"finish_reason":"stop"' in request.text
        steps += 1
    assert steps > 10


async def test_a_leak_is_detected(simulator: Simulator) -> None:
    app = create_app(settings_for(simulator.base_url))
    async with app.router.lifespan_context(app):
        request = Request(app, CHAT, {"messages": [{"role": "user", "content": "[sim fault=slow seconds=600]"}]})
        await simulator.traffic.wait_for(lambda traffic: traffic.live == 1)

        assert held_by(app.state.components) == (1, 1, 1, 1)
        request.left.set()
        await request.outcome()
