"""The simulator's HTTP server: sockets, routes, counters and headers."""

import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from aiohttp import web

from app.simulator import authorization, chat
from app.simulator.delivery import headers
from app.simulator.delivery.pacing import Pacing
from app.simulator.delivery.sending import HangUpError
from app.simulator.errors import ErrorBody, OpenAIError
from app.simulator.generation import embeddings
from app.simulator.json_text import indented, parse
from app.simulator.models import Catalogue
from app.simulator.traffic import Exchange, Traffic

__all__ = ["Catalogue", "Exchange", "Pacing", "Simulator", "Traffic"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OWN_PATHS = "/simulator/"
# OpenAI's, and Azure's v1 API.
BASE_PATHS = ("/v1", "/openai/v1")
WILDCARD_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
# Responses still in flight when the simulator closes belong to clients that have stopped reading.
SHUTDOWN_TIMEOUT_S = 0.1

EXCHANGE: web.RequestKey[Exchange] = web.RequestKey("exchange", Exchange)
STARTED: web.RequestKey[float] = web.RequestKey("started", float)


class Simulator:
    """The OpenAI API on its own socket, within an ``async with`` block."""

    def __init__(
        self,
        *,
        api_key: str | None = None,
        pacing: Pacing = Pacing(),  # noqa: B008 - a frozen value
        host: str = "127.0.0.1",
        port: int = 0,
        catalogue: Catalogue | None = None,
    ) -> None:
        self.traffic = Traffic()
        self._catalogue = catalogue or Catalogue()
        self._api_key = api_key
        self._pacing = pacing
        self._host = host
        self._port = port
        self._runner = web.AppRunner(
            self._application(), handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S
        )

    async def __aenter__(self) -> "Simulator":
        """Listen.

        Raises:
            OSError: the port is taken, or the host is not one of this machine.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        """The base URL for OpenAI clients."""
        port = self._runner.addresses[0][1]
        host = WILDCARD_HOSTS.get(self._host, f"[{self._host}]" if ":" in self._host else self._host)
        return f"http://{host}:{port}/v1"

    def _application(self) -> web.Application:
        # OpenAI's limit is the model's context, not the size of the body.
        application = web.Application(middlewares=[self._serve], client_max_size=0)
        application.on_response_prepare.append(_add_headers)
        application.add_routes(
            [
                route
                for base in BASE_PATHS
                for route in (
                    web.post(base + "/chat/completions", self._chat),
                    web.post(base + "/embeddings", _embeddings),
                    web.get(base + "/models", self._show_models, allow_head=False),
                    web.get(base + "/models/{name:.+}", self._show_model, allow_head=False),
                )
            ]
        )
        application.add_routes(
            [
                web.get(OWN_PATHS + "traffic", self._show_traffic),
                web.get(OWN_PATHS + "exchanges", self._show_exchanges),
            ]
        )
        return application

    @web.middleware
    async def _serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        request[STARTED] = time.perf_counter()
        if request.path.startswith(OWN_PATHS):
            return await handler(request)
        request[EXCHANGE] = exchange = await _exchange(request)
        self.traffic.record(exchange)
        with self.traffic.count_request():
            try:
                response = await self._respond(request, handler)
                # Sent here, so that a client that disconnects meanwhile is counted as abandoned.
                await response.prepare(request)
                await response.write_eof()
            except HangUpError:
                # Never sent: aiohttp requires a response, but the connection is closed.
                return web.Response()
        return response

    async def _respond(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.match_info.http_exception is None:
                authorization.authorize(request.headers.get("Authorization"), api_key=self._api_key)
            return await handler(request)
        except OpenAIError as error:
            return _error_response(error)
        except web.HTTPNotFound:
            return _error_response(_invalid_url("Invalid URL", request, status=404))
        except web.HTTPMethodNotAllowed:
            return _error_response(_invalid_url("Invalid method for URL", request, status=405))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await chat.respond(request, request[EXCHANGE], self._pacing, self.traffic, self._catalogue)

    async def _show_models(self, _: web.Request) -> web.StreamResponse:
        return _json({"object": "list", "data": self._catalogue.listed()})

    async def _show_model(self, request: web.Request) -> web.StreamResponse:
        return _json(self._catalogue.shown(request.match_info["name"]))

    async def _show_traffic(self, _: web.Request) -> web.StreamResponse:
        return _json(self.traffic.to_json())

    async def _show_exchanges(self, _: web.Request) -> web.StreamResponse:
        return _json([exchange.to_json() for exchange in self.traffic.exchanges])


async def _embeddings(request: web.Request) -> web.StreamResponse:
    return _json(embeddings.respond(request[EXCHANGE]))


async def _exchange(request: web.Request) -> Exchange:
    raw = await request.read()
    try:
        # Parsing on the event loop is fast enough: a megabyte takes a few milliseconds.
        body = parse(raw)
    except ValueError:
        body = None
    return Exchange(request.method, request.path, request.headers, body, raw)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(headers.response_headers(started=request[STARTED]))


def _json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=indented(value), status=status, content_type="application/json")


def _error_response(error: OpenAIError) -> web.Response:
    response = _json(error.body.to_json(), status=error.status)
    response.headers.update(error.headers)
    return response


def _invalid_url(problem: str, request: web.Request, *, status: int) -> OpenAIError:
    return OpenAIError(status, ErrorBody(f"{problem} ({request.method} {request.path})"))
