"""Fixtures: a simulator on a real socket, and a client with a valid key."""

from collections.abc import AsyncIterator

import httpx
import pytest

from app.simulator.server import Simulator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": "Bearer sk-test"}
    async with httpx.AsyncClient(base_url=simulator.base_url, headers=headers) as connected:
        yield connected
