"""docs/decisions/0001 lists what is used of aiohttp's inside. Where this fails after an update, read it again."""

import asyncio
import inspect

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

from app.upstream.aiohttp_internals import BorrowedTransport, ConnectionPool, connect_timeout
from app.upstream.session import new_session
from tests.unit.features.llm.test_client import raw_server

LIMIT = connect_timeout(30)


async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Wait until the client leaves."""
    await reader.read()


async def test_a_connector_takes_a_request_traces_and_a_timeout() -> None:
    assert list(inspect.signature(aiohttp.BaseConnector.connect).parameters) == ["self", "req", "traces", "timeout"]


async def test_a_handler_notices_unsolicited_bytes() -> None:
    handler = ResponseHandler(asyncio.get_running_loop())
    assert (handler.should_close, handler.transport) == (False, None)

    handler.data_received(b"unsolicited")

    assert (handler.should_close, handler._tail) == (True, b"unsolicited")
    handler.abort()


@pytest.mark.parametrize("proxy", [None, "http://user:secret@127.0.0.1:9"])
async def test_a_request_for_a_connector_can_be_made(proxy: str | None) -> None:
    async with new_session() as session:
        pool = ConnectionPool(session, "POST", "https://example.test/v1/models?a=b", {"X-A": "1"}, proxy)

        assert (pool.request.method, pool.request.is_ssl(), pool.closes_connections) == ("POST", True, False)
        assert (pool.request.url.raw_path_qs, pool.request.headers["X-A"]) == ("/v1/models?a=b", "1")
        assert pool.request.connection_key is pool.request.connection_key
        assert str(pool.request.proxy or "") == (proxy or "")


async def test_a_closed_session_has_no_connections() -> None:
    session = new_session()
    await session.close()

    with pytest.raises(RuntimeError, match="closed"):
        ConnectionPool(session, "GET", "http://127.0.0.1:9/", {}, None)


async def test_a_transport_given_back_is_handed_out_again_as_reused() -> None:
    async with raw_server(say_nothing) as url, new_session() as session:
        pool = ConnectionPool(session, "GET", url, {}, None)
        first = BorrowedTransport(await pool.connect(LIMIT))
        first.give_back()

        second = BorrowedTransport(await pool.connect(LIMIT))

        assert (first.is_reused, second.is_reused) == (False, True)
        assert second.transport is first.transport
        second.drop()
        assert second.transport.is_closing()


async def test_a_closed_connection_is_not_borrowed() -> None:
    async with raw_server(say_nothing) as url, new_session() as session:
        connection = await ConnectionPool(session, "GET", url, {}, None).connect(LIMIT)
        connection.close()

        with pytest.raises(aiohttp.ClientConnectionResetError):
            BorrowedTransport(connection)
