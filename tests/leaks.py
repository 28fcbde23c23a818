"""Searches what the server answers and logs, during the whole test run, for what must not be in it."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Keys, masked ones too, and the ids of organizations and projects.
_SECRETS = re.compile(rb"(?<![\w-])(?:sk-[\w*-]+|org-\w+|proj_\w+)")
_OTHERS_LOGGERS = ("aiohttp.server", "httpx", "httpcore")
"""The simulator's, and those of the tests' own clients."""

found: list[str] = []
"""In which test something was found, and where."""
searches = False
"""Whether anything is searched: not by the benchmark, which counts calls."""


def search(said: bytes | str, where: str) -> None:
    """Note a secret in what was said."""
    match = _SECRETS.search(said.encode("utf-8", "replace") if isinstance(said, str) else said)
    if match:
        found.append(f"{os.environ.get('PYTEST_CURRENT_TEST')}: {where}: …{match[0].decode()}…")


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


@contextmanager
def searching_logs() -> Iterator[None]:
    """Search every record as its logger lets it pass: uvicorn's hand theirs to no handler of the root."""
    call_handlers = logging.Logger.callHandlers
    formatted = logging.Formatter().format

    def search_and_call(logger: logging.Logger, record: logging.LogRecord) -> None:
        if not record.name.startswith(_OTHERS_LOGGERS):
            search(formatted(record), f"log of {record.name}")
        call_handlers(logger, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.Logger, "callHandlers", search_and_call)
        yield
