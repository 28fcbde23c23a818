"""What every test can ask for: a simulator of OpenAI, our server over it, and a client of our server."""

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
"""These need what a test cannot make itself, a running server or a Docker engine; they run only when they are named."""

HUNG_S = 60
"""A wait as long as this hangs. It ends a run that is broken; what is slow never comes near it."""

# No verdict is the machine's speed: an example may take any time to make and to run. Each run has other examples.
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
    """No setting of the developer's shell reaches a test."""
    names = [*Settings.model_fields, "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE"]
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.delenv(name.upper(), raising=False)
            patch.delenv(name.lower(), raising=False)
        # It would be one more request for every server that a test starts, also to the real OpenAI.
        patch.setenv("STARTUP_CHECK", "off")
        yield


@pytest.fixture(autouse=True, scope="session")
def spared_garbage_collector() -> None:
    """It need not look at modules and test items again and again, which takes a seventh of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True, scope="session")
def patient_clients() -> Iterator[None]:
    """httpx waits longer than its five seconds, and its clients share what takes 20 ms of CPU to make for each."""
    with pytest.MonkeyPatch.context() as patch:
        for defaults in (httpx.Client.__init__.__kwdefaults__, httpx.AsyncClient.__init__.__kwdefaults__):
            assert defaults is not None
            patch.setitem(defaults, "timeout", httpx.Timeout(HUNG_S))
            patch.setitem(defaults, "verify", httpx.create_ssl_context())
        yield


@pytest.fixture(autouse=True, scope="session")
def no_secret_is_told() -> Iterator[None]:
    """No key and no account id is in any answer or log of the whole run."""
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
