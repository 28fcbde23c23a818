"""Reports a failed start or shutdown in one line instead of a traceback."""

import logging
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.config import SettingsError

logger = logging.getLogger(__name__)


class StartupFailureMiddleware:
    """Reports a failure to the server as one line; only exceptions other than `SettingsError` log a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        app = self._lifespan if scope["type"] == "lifespan" else self.app
        return app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        failures: list[Message] = []

        async def hold_back_failure(message: Message) -> None:
            if message["type"].endswith(".failed"):
                failures.append(message)
            else:
                await send(message)

        try:
            await self.app(scope, receive, hold_back_failure)
        except BaseException as exc:
            if not isinstance(exc, SettingsError):
                logger.exception("The application failed to start or to shut down")
            for message in failures:
                await send({**message, "message": str(exc) if isinstance(exc, SettingsError) else type(exc).__name__})
            raise
