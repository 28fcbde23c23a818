"""Fixtures for all tests: a simulator of OpenAI, a server that uses it, and a client of the server."""

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, settings

from app.core.config import Settings
from app.simulator.server import Simulator
from tests import leaks
from tests.serving import served_over

CHAT = "/v1/chat/completions"
LIVE_TESTS = "test_llm_integration.py"
ON_REQUEST = (LIVE_TESTS, "test_container.py")
"""Tests that need a running server or a Docker engine; they run only when named on the command line."""

HANG_TIMEOUT_S = 60
"""Seconds after which a wait counts as hung; far above what a slow machine needs."""

# No result depends on the machine's speed: examples may take any time. Each run draws other examples.
settings.register_profile(
    "tests", max_examples=50, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path.name not in ON_REQUEST:
        return None
    return not any(collection_path.name in argument for argument in config.args)


@pytest.fixture(autouse=True, scope="session")
def clean_environment() -> Iterator[None]:
    """Hide the settings of the developer's shell from tests."""
    names = [*Settings.model_fields, "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE"]
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.delenv(name.upper(), raising=False)
            patch.delenv(name.lower(), raising=False)
        # The check would send an additional request for every server that a test starts, also to the real OpenAI.
        patch.setenv("STARTUP_CHECK", "off")
        yield


@pytest.fixture(autouse=True, scope="session")
def tuned_garbage_collector() -> None:
    """Keep the collector from scanning modules and test items repeatedly, which takes a seventh of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True, scope="session")
def httpx_defaults() -> Iterator[None]:
    """Raise httpx's timeout of five seconds, and share the SSL context, which takes 20 ms of CPU to create."""
    with pytest.MonkeyPatch.context() as patch:
        for defaults in (httpx.Client.__init__.__kwdefaults__, httpx.AsyncClient.__init__.__kwdefaults__):
            assert defaults is not None
            patch.setitem(defaults, "timeout", httpx.Timeout(HANG_TIMEOUT_S))
            patch.setitem(defaults, "verify", httpx.create_ssl_context())
        yield


@pytest.fixture(autouse=True, scope="session")
def no_secret_leaks() -> Iterator[None]:
    """Check that no response and no log of the whole run contains a key or an account id."""
    leaks.searches = True
    with leaks.searching_logs():
        yield
    assert leaks.found == []


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


@pytest.fixture
async def server_url(simulator: Simulator) -> AsyncIterator[str]:
    async with served_over(simulator.base_url) as url:
        yield url


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server_url) as running:
        yield running
