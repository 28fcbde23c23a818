"""Searches what the server answers and logs, during the whole test run, for what must not be in it."""

import html
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Keys, masked ones too, and the ids of organizations and projects.
_SECRETS = re.compile(r"(?<![\w-])(?:sk-[\w*-]+|org-\w+|proj_\w+)", re.ASCII)
_JSON_ESCAPE = re.compile(r"\\+(?:u00([0-9a-fA-F]{2})|/)")
_TELLING_CHARACTERS = 10
"""A shorter key may be in anything."""
_OTHERS_LOGGERS = ("aiohttp.server", "httpx", "httpcore")
"""The simulator's, and those of the tests' own clients."""

found: list[str] = []
"""In which test something was found, and where."""
searches = False
"""Whether anything is searched: not by the benchmark, which counts calls."""

_configured: set[str] = set()


def watch(secrets: Iterable[str]) -> None:
    """Search for these from now on too, whatever they look like."""
    _configured.update(secret for secret in secrets if len(secret) >= _TELLING_CHARACTERS)


def search(said: bytes | str, where: str) -> None:
    """Note a secret in what was said, in JSON's escapes, percent-encoding and HTML's entities too."""
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
