"""What uvicorn's access log says of a request, and of which it says nothing."""

import logging

import httpx
import pytest

from app.core.http.asgi_scope import PROBE_PATHS
from app.core.logs.access_log import ACCESS_LOGGER


async def test_the_access_log_leaves_out_probes_and_queries(
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

    said = {record.getMessage() for record in caplog.records if record.name == ACCESS_LOGGER.name}
    assert len(said) == 1
    assert said.pop().endswith('"GET /v1/models HTTP/1.1" 200')
