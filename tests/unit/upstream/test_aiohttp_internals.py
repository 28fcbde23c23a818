"""The parts of aiohttp that docs/decisions/0001 lists. Read it again if this fails after an update."""

import asyncio
import inspect

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

from app.upstream.aiohttp_internals import BorrowedTransport, ConnectionPool, connect_timeout
from app.upstream.session import new_session
from tests.raw_upstream import raw_server

TIMEOUT = connect_timeout(30)


async def stay_silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Send nothing until the client disconnects."""
    await reader.read()


async def test_connect_takes_a_request_traces_and_a_timeout() -> None:
    assert list(inspect.signature(aiohttp.BaseConnector.connect).parameters) == ["self", "req", "traces", "timeout"]


async def test_a_handler_notices_unsolicited_bytes() -> None:
    handler = ResponseHandler(asyncio.get_running_loop())
    assert (handler.should_close, handler.transport) == (False, None)

    handler.data_received(b"unsolicited")

    assert (handler.should_close, handler._tail) == (True, b"unsolicited")
    handler.abort()


@pytest.mark.parametrize("proxy", [None, "http://user:secret@127.0.0.1:9"])
async def test_a_pool_has_a_request_for_the_connector(proxy: str | None) -> None:
    async with new_session() as session:
        pool = ConnectionPool(session, "POST", "https://example.test/v1/models?a=b", {"X-A": "1"}, proxy)

        assert (pool.request.method, pool.request.is_ssl(), pool.closes_connections) == ("POST", True, False)
        assert (pool.request.url.raw_path_qs, pool.request.headers["X-A"]) == ("/v1/models?a=b", "1")
        assert pool.request.connection_key is pool.request.connection_key
        assert str(pool.request.proxy or "") == (proxy or "")


async def test_a_closed_session_has_no_pool() -> None:
    session = new_session()
    await session.close()

    with pytest.raises(RuntimeError, match="closed"):
        ConnectionPool(session, "GET", "http://127.0.0.1:9/", {}, None)


async def test_a_released_connection_is_reused_and_marked() -> None:
    async with raw_server(stay_silent) as url, new_session() as session:
        pool = ConnectionPool(session, "GET", url, {}, None)
        first = BorrowedTransport(await pool.connect(TIMEOUT))
        first.release()

        second = BorrowedTransport(await pool.connect(TIMEOUT))

        assert (first.is_reused, second.is_reused) == (False, True)
        assert second.transport is first.transport
        second.abort()
        assert second.transport.is_closing()


async def test_a_closed_connection_is_not_borrowed() -> None:
    async with raw_server(stay_silent) as url, new_session() as session:
        connection = await ConnectionPool(session, "GET", url, {}, None).connect(TIMEOUT)
        connection.close()

        with pytest.raises(aiohttp.ClientConnectionResetError):
            BorrowedTransport(connection)
