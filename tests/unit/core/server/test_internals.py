"""The internals of uvicorn and httptools that core/server relies on exist (docs/decisions/0008)."""

import asyncio
import inspect
from typing import Any

import httptools
import pytest
import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.__main__ import _configuration
from app.core.server.connection import HttpConnection
from app.core.server.server import Server
from app.main import create_app
from tests.serving import settings_for
from tests.unit.core.server.echo import echo

METHODS: dict[str, list[str]] = {
    "connection_made": ["transport"],
    "connection_lost": ["exc"],
    "data_received": ["data"],
    "on_message_begin": [],
    "on_url": ["url"],
    "on_header": ["name", "value"],
    "on_headers_complete": [],
    "on_body": ["body"],
    "on_message_complete": [],
    "on_response_complete": [],
    "shutdown": [],
    "_start_asgi_task": ["cycle", "app"],
    "_should_upgrade": [],
    "_unset_keepalive_if_required": [],
}


@pytest.mark.parametrize("name", METHODS)
def test_uvicorns_connection_has_the_methods_we_override_or_call(name: str) -> None:
    assert list(inspect.signature(getattr(HttpToolsProtocol, name)).parameters) == ["self", *METHODS[name]]
    assert not inspect.iscoroutinefunction(getattr(HttpToolsProtocol, name))


def test_we_override_no_other_method() -> None:
    inherited = {name for name in vars(HttpToolsProtocol) if callable(getattr(HttpToolsProtocol, name))}
    overridden = inherited & set(vars(HttpConnection)) - {"__init__"}

    assert overridden <= set(METHODS)


async def connection() -> HttpConnection:
    config = uvicorn.Config(echo, http=HttpConnection, ws="none", log_config=None)
    config.load()
    return HttpConnection(config, uvicorn.server.ServerState(), {})


async def test_uvicorns_connection_has_the_attributes_we_use() -> None:
    state = vars(await connection())
    used = {"parser", "pipeline", "cycle", "flow", "transport", "loop", "headers", "url", "expect_100_continue"}

    assert used - {"url"} <= set(state)
    assert isinstance(state["parser"], httptools.HttpRequestParser)


class Transport(asyncio.Transport):
    """Collects what is written."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        """Nothing is read from this transport."""

    resume_reading = pause_reading


async def test_uvicorns_cycle_has_the_attributes_we_use() -> None:
    served = await connection()
    served.connection_made(Transport())
    served.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")

    used = "scope disconnected keep_alive waiting_for_100_continue more_body message_event response_started "
    used += "response_complete chunked_encoding expected_content_length"
    assert set(used.split()) <= set(vars(served.cycle))
    assert isinstance(served.cycle, RequestResponseCycle)
    assert served.cycle.chunked_encoding is None
    assert isinstance(served.cycle.message_event, asyncio.Event)
    # The newest is on the left.
    assert [waiting for waiting, _app in served.pipeline] == [served.cycle]
    assert {"http_version", "raw_path", "query_string"} <= set(served.cycle.scope)
    served.connection_lost(None)


def test_uvicorn_has_a_status_line_for_each_rejection() -> None:
    assert httptools_impl.STATUS_LINE[400] == b"HTTP/1.1 400 Bad Request\r\n"
    assert httptools_impl.STATUS_LINE[431] == b"HTTP/1.1 431 Request Header Fields Too Large\r\n"


class Callbacks:
    """Records the callbacks of httptools."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.calls.append("begin")

    def on_header(self, name: bytes, value: bytes) -> None:
        if value == b"unwanted":
            raise ValueError
        self.calls.append((name, value))

    def on_headers_complete(self) -> None:
        self.calls.append(("head", self.parser.get_http_version(), self.parser.should_upgrade()))

    def on_body(self, body: bytes) -> None:
        self.calls.append(body)

    def on_message_complete(self) -> None:
        self.calls.append("end")


def test_httptools_skips_an_upgrade_requests_body_and_reports_its_offset() -> None:
    head = b"POST / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\n\r\n"
    callbacks = Callbacks()
    with pytest.raises(httptools.HttpParserUpgrade) as offer:
        callbacks.parser.feed_data(memoryview(head + b"abc"))

    assert offer.value.args == (len(head),)
    assert not isinstance(offer.value, httptools.HttpParserError)
    assert callbacks.calls[-2:] == [("head", "1.1", True), "end"]


def test_httptools_chains_the_error_of_a_callback() -> None:
    with pytest.raises(httptools.HttpParserError) as error:
        Callbacks().parser.feed_data(b"GET / HTTP/1.1\r\nA: unwanted\r\nB: c\r\n\r\n")

    assert isinstance(error.value.__context__, ValueError)


def test_the_command_line_loads_no_websocket_protocol() -> None:
    settings = settings_for("http://127.0.0.1:1/v1")
    config = _configuration(create_app(settings), settings)
    config.load()

    assert config.ws_protocol_class is None


@pytest.mark.parametrize("name", ["main_loop", "startup", "shutdown", "handle_exit", "_serve", "run", "on_tick"])
def test_uvicorns_server_has_the_methods_we_override_or_call(name: str) -> None:
    assert callable(getattr(uvicorn.Server, name))


def test_uvicorns_server_has_the_attributes_we_use() -> None:
    server = uvicorn.Server(uvicorn.Config(echo))

    assert {"should_exit", "force_exit", "started", "server_state", "config"} <= set(vars(server))
    assert {"connections", "tasks"} <= set(vars(server.server_state))
    assert list(inspect.signature(uvicorn.Server.handle_exit).parameters) == ["self", "sig", "frame"]
    assert list(inspect.signature(uvicorn.Server.shutdown).parameters) == ["self", "sockets"]
    assert inspect.iscoroutinefunction(uvicorn.Server.shutdown)
    assert issubclass(Server, uvicorn.Server)
