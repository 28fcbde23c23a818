"""The filter of uvicorn's access log."""

import logging

import httpx
import pytest

from app.core.http.asgi_scope import PROBE_PATHS
from app.core.logs.access_log import ACCESS_LOGGER


async def test_the_access_log_omits_probes_and_queries(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, ACCESS_LOGGER.name)
    ACCESS_LOGGER.addHandler(caplog.handler)
    try:
        for path in sorted(PROBE_PATHS):
            await client.get(path)
        await client.get("/v1/models?api_key=secret")
    finally:
        ACCESS_LOGGER.removeHandler(caplog.handler)

    lines = {record.getMessage() for record in caplog.records if record.name == ACCESS_LOGGER.name}
    assert len(lines) == 1
    assert lines.pop().endswith('"GET /v1/models HTTP/1.1" 200')
