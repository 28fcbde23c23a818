"""Searches what the server answers and logs, during the whole test run, for what must not be in it."""

import logging
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The keys that tests give to the server, and what the simulator's errors tell of the account.
_SECRETS = re.compile(rb"sk-(?:test|proj|simulator|boot)-?\w*|org-simulator|proj_\w+")

found: list[str] = []
"""Where something was found."""
searches = False
"""Whether anything is searched: not by the benchmark, which counts calls."""


def search(said: bytes | str, where: str) -> None:
    """Note a secret in what was said."""
    match = _SECRETS.search(said.encode("utf-8", "replace") if isinstance(said, str) else said)
    if match:
        found.append(f"{where}: …{match[0].decode()}…")


class Watched:
    """An application, with every byte that it sends searched while a test run is."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.state = getattr(app, "state", None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def searching(message: Message) -> None:
            search(message.get("body", b""), f"answer to {scope.get('path')}")
            search(repr(message.get("headers", "")), f"headers of the answer to {scope.get('path')}")
            await send(message)

        await self.app(scope, receive, searching if searches else send)


class SearchingHandler(logging.Handler):
    """Searches every record that is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        """Search one, its traceback included."""
        search(logging.Formatter().format(record), f"log of {record.name}")
