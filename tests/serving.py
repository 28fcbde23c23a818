"""Serves the application on a real socket in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import uvicorn
from starlette.types import ASGIApp

from app.core.config import Settings
from app.core.dependencies import Components
from app.core.lifecycle import Lifecycle
from app.core.server.connection import HttpConnection
from app.core.server.server import Server
from app.main import create_app
from tests import leaks


class ReadyServer(Server):
    """A server that signals when it listens, ends on an event, and installs no signal handlers."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle) -> None:
        super().__init__(config, lifecycle)
        self.ready = asyncio.Event()
        self.ending = asyncio.Event()
        self.ended = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup()
        self.ready.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.ending.wait()

    async def serve_here(self) -> None:
        try:
            await self._serve()
        finally:
            self.ready.set()
            self.ended.set()


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """Serve `app` on a free port for the block; yields the base URL."""
    async with serving(app) as server:
        yield server.url


@asynccontextmanager
async def serving(
    app: ASGIApp,
    lifecycle: Lifecycle | None = None,
    *,
    shutdown_timeout_s: int = 1,
    http: type[HttpConnection] = HttpConnection,
) -> AsyncIterator[ReadyServer]:
    """Serve `app` on a free port until the block ends or `ending` is set."""
    config = uvicorn.Config(
        leaks.Watched(app),
        host="127.0.0.1",
        port=0,
        http=http,
        log_level="warning",
        timeout_graceful_shutdown=shutdown_timeout_s,
    )
    server = ReadyServer(config, lifecycle or Lifecycle())
    running = asyncio.create_task(server.serve_here())
    await server.ready.wait()
    if not server.started:
        await running
        raise RuntimeError("the application did not start")
    try:
        yield server
    finally:
        server.ending.set()
        await running


def settings_for(upstream: str, **settings: object) -> Settings:
    """Return settings for the API at `upstream`, independent of the environment and `.env`."""
    given = {"openai_api_key": "sk-test-key", "openai_base_url": upstream, "_env_file": None, **settings}
    made = Settings(**given)  # type: ignore[arg-type]  # pydantic-settings' own parameters are untyped
    leaks.watch(made.secrets)
    return made


@asynccontextmanager
async def served_over(upstream: str, **settings: object) -> AsyncIterator[str]:
    """Serve the application with the API at `upstream`; yields the base URL."""
    app = create_app(settings_for(upstream, **settings))
    async with serving(app, app.state.components.lifecycle) as server:
        yield server.url


def held_by(components: Components) -> tuple[int, int, int, int]:
    """Return requests, upstream calls (by the metrics and by the keys), and connections in use."""
    upstream = components.openai_client._upstream
    assert upstream.session is not None
    assert upstream.session.connector is not None
    return (
        components.server_load.requests,
        components.metrics.upstream.in_flight,
        sum(key.calls_in_flight for key in upstream.keys._keys),
        len(upstream.session.connector._acquired),
    )


async def nothing_is_held_by(components: Components) -> None:
    """Wait until nothing is held; a failure shows what is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(60):
            while any(held_by(components)):  # noqa: ASYNC110 - numbers are no events
                await asyncio.sleep(0)
    assert held_by(components) == (0, 0, 0, 0)
