"""uvicorn's access log: what it does not say, and how it says the rest at less cost."""

import logging
from collections.abc import Set
from copy import deepcopy
from http import HTTPStatus
from typing import Any

from uvicorn.config import LOGGING_CONFIG

ACCESS_LOGGER = logging.getLogger("uvicorn.access")
_PATH = 2
"""Where the path with the query is in the arguments of uvicorn's line."""


class AccessLogFilter(logging.Filter):
    """Leaves out the lines of paths that are polled, and of the others the query: a client may put a key there."""

    def __init__(self, polled: Set[str]) -> None:
        super().__init__()
        self._polled = polled

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written, without its query."""
        if not isinstance(record.args, tuple) or len(record.args) <= _PATH:
            return True
        arguments: list[Any] = list(record.args)
        arguments[_PATH] = str(arguments[_PATH]).partition("?")[0]
        record.args = tuple(arguments)
        return arguments[_PATH] not in self._polled


def install_access_log_filter(polled: Set[str]) -> None:
    """Have uvicorn's access log filtered so, once for this process."""
    if not any(isinstance(known, AccessLogFilter) for known in ACCESS_LOGGER.filters):
        ACCESS_LOGGER.addFilter(AccessLogFilter(polled))


class AccessLogFormatter(logging.Formatter):
    """Writes uvicorn's lines as uvicorn does where there are no colours, without copying each record for it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one answer."""
        if not isinstance(record.args, tuple):
            return super().format(record)
        client, method, path, version, status = record.args
        return f'INFO:     {client} - "{method} {path} HTTP/{version}" {_STATUSES.get(status, status)}'


_STATUSES: dict[object, str] = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


def logging_config() -> dict[str, Any]:
    """uvicorn's configuration of logging with that formatter."""
    config: dict[str, Any] = deepcopy(LOGGING_CONFIG)
    config["formatters"]["access"] = {"()": AccessLogFormatter}
    return config


def disable_unused_log_fields() -> None:
    """Have no record look up threads, processes, tasks and callers, which no line of this process names.

    These are the switches of Python's logging HOWTO, "Optimization". They hold for the process.
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.logAsyncioTasks = False  # type: ignore[attr-defined,unused-ignore]  # since Python 3.12
    logging._srcfile = None
