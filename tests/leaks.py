"""Searches all responses and logs of a test run for secrets."""

import html
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Keys, including masked ones, and organization and project ids.
_SECRETS = re.compile(r"(?<![\w-])(?:sk-[\w*-]+|org-\w+|proj_\w+)", re.ASCII)
_JSON_ESCAPE = re.compile(r"\\+(?:u00([0-9a-fA-F]{2})|/)")
_MIN_SECRET_CHARACTERS = 10
"""Shorter keys could occur by chance."""
_IGNORED_LOGGERS = ("aiohttp.server", "httpx", "httpcore")
"""Loggers of the simulator and of the tests' clients."""

found: list[str] = []
"""One entry for each secret found: test, place and secret."""
searches = False
"""True during a test run; False in the benchmark, which counts calls."""

_configured: set[str] = set()


def watch(secrets: Iterable[str]) -> None:
    """Also search for these secrets from now on."""
    _configured.update(secret for secret in secrets if len(secret) >= _MIN_SECRET_CHARACTERS)


def search(said: bytes | str, where: str) -> None:
    """Record a secret in this output, also in JSON escapes, percent-encoding and HTML entities."""
    text = said if isinstance(said, str) else said.decode("utf-8", "replace")
    for form in _forms(text):
        match = _SECRETS.search(form)
        secrets = {match[0]} if match else {secret for secret in _configured if secret in form}
        if secrets:
            found.append(f"{os.environ.get('PYTEST_CURRENT_TEST')}: {where}: …{secrets}…")
            return


def _forms(text: str) -> Iterator[str]:
    yield text
    if "\\" in text:
        text = _JSON_ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else "/", text)
        yield text
    if "%" in text:
        text = unquote(text)
        yield text
    if "&" in text:
        yield html.unescape(text)


class Watched:
    """An ASGI application whose output is searched during a test run."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.state = getattr(app, "state", None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def searching(message: Message) -> None:
            search(message.get("body", b""), f"response to {scope.get('path')}")
            search(repr(message.get("headers", "")), f"headers of the response to {scope.get('path')}")
            await send(message)

        await self.app(scope, receive, searching if searches else send)


@contextmanager
def searching_logs() -> Iterator[None]:
    """Search every log record at its logger, because uvicorn's loggers do not propagate to the root."""
    call_handlers = logging.Logger.callHandlers
    formatted = logging.Formatter().format

    def search_and_call(logger: logging.Logger, record: logging.LogRecord) -> None:
        if not record.name.startswith(_IGNORED_LOGGERS):
            search(formatted(record), f"log of {record.name}")
        call_handlers(logger, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.Logger, "callHandlers", search_and_call)
        yield
