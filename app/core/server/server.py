"""uvicorn's server, but for how it ends."""

import asyncio
import logging
import math
import socket
from types import FrameType
from typing import Any

import uvicorn

from app.core.lifecycle import Lifecycle

logger = logging.getLogger("uvicorn.error")

ABORT_S = 2.0
"""How long the last words to clients may take."""
TICK_S = 0.02


class Server(uvicorn.Server):
    """Ends cleanly on a signal: the first lets requests in flight finish, the second ends at once.

    uvicorn's own would raise the signal again after that, so that the process never ends with status 0, and would end
    what takes longer than the configuration's `timeout_graceful_shutdown`, in seconds, with a traceback.
    """

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._starting_in: asyncio.AbstractEventLoop | None = None

    @property
    def refused_to_start(self) -> bool:
        """Whether the application said, before it listened, that it cannot; the log says why."""
        return not self.started and self.lifespan.should_exit

    def handle_exit(self, _signal: int, _frame: FrameType | None) -> None:
        """Note a signal. One that arrives before the start is complete also aborts what the start waits for."""
        self.force_exit = self.should_exit
        self.should_exit = True
        if self._starting_in:
            self._starting_in.call_soon_threadsafe(self._lifecycle.abort)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and listen on `sockets`."""
        self._starting_in = asyncio.get_running_loop()
        await super().startup(sockets)
        self._starting_in = None
        if sockets and not self.should_exit:
            self._log_started_message(sockets)

    async def shutdown(self, sockets: Any = None) -> None:
        """Accept nothing, finish what is in flight or give it up, and close."""
        logger.info("Shutting down")
        for server in self.servers:
            server.close()
        self._lifecycle.drain()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._finish()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self._wait_until_idle(ABORT_S)
        await self.lifespan.shutdown()

    async def _finish(self) -> None:
        limit_s = self.config.timeout_graceful_shutdown
        await self._wait_until_idle(math.inf if limit_s is None else limit_s, or_signal=True)
        if self.force_exit or not self._busy():
            return
        logger.warning("Giving up %d requests that were still being answered", len(self.server_state.tasks))
        self._lifecycle.abort()
        await self._wait_until_idle(ABORT_S, or_signal=True)

    def _busy(self) -> bool:
        return bool(self.server_state.connections or self.server_state.tasks)

    async def _wait_until_idle(self, limit_s: float, *, or_signal: bool = False) -> None:
        now = asyncio.get_running_loop().time
        end = now() + limit_s
        while self._busy() and now() < end and not (or_signal and self.force_exit):  # noqa: ASYNC110 - uvicorn's sets are no events
            await asyncio.sleep(TICK_S)
