"""uvicorn's server with a different shutdown."""

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
"""How long clients have to receive the last bytes of an aborted response."""
TICK_S = 0.02


class Server(uvicorn.Server):
    """Shuts down cleanly on a signal: the first lets requests in flight finish, the second aborts them.

    uvicorn's own server raises the signal again, so that the process never exits with status 0, and it logs a traceback
    for requests that take longer than `timeout_graceful_shutdown` (in seconds).
    """

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._startup_loop: asyncio.AbstractEventLoop | None = None

    @property
    def startup_failed(self) -> bool:
        """True if the application reported a failed startup; the log has the reason."""
        return not self.started and self.lifespan.should_exit

    def handle_exit(self, _signal: int, _frame: FrameType | None) -> None:
        """Record a signal. During startup it also aborts what startup waits for."""
        self.force_exit = self.should_exit
        self.should_exit = True
        if self._startup_loop:
            self._startup_loop.call_soon_threadsafe(self._lifecycle.abort)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and listen on `sockets`."""
        self._startup_loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._startup_loop = None
        if sockets and not self.should_exit:
            self._log_started_message(sockets)

    async def shutdown(self, sockets: Any = None) -> None:
        """Stop accepting, finish or abort the requests in flight, and close."""
        logger.info("Shutting down")
        for server in self.servers:
            server.close()
        self._lifecycle.drain()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._finish_requests()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self._wait_until_idle(ABORT_S)
        await self.lifespan.shutdown()

    async def _finish_requests(self) -> None:
        limit_s = self.config.timeout_graceful_shutdown
        await self._wait_until_idle(math.inf if limit_s is None else limit_s, or_signal=True)
        if self.force_exit or not self._busy():
            return
        self._lifecycle.abort()
        if not self.server_state.tasks:
            return
        logger.warning("Aborting %d requests that are still in flight", len(self.server_state.tasks))
        await self._wait_until_idle(ABORT_S, or_signal=True)

    def _busy(self) -> bool:
        return bool(self.server_state.connections or self.server_state.tasks)

    async def _wait_until_idle(self, limit_s: float, *, or_signal: bool = False) -> None:
        now = asyncio.get_running_loop().time
        deadline = now() + limit_s
        while self._busy() and now() < deadline and not (or_signal and self.force_exit):  # noqa: ASYNC110 - uvicorn has sets, not events
            await asyncio.sleep(TICK_S)
