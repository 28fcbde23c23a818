"""uvicorn's access log: a filter for paths and queries, and a cheaper formatter."""

import logging
from collections.abc import Set
from copy import deepcopy
from http import HTTPStatus
from typing import Any

from uvicorn.config import LOGGING_CONFIG

ACCESS_LOGGER = logging.getLogger("uvicorn.access")
_PATH = 2
"""Index of the path, with its query, in the arguments of uvicorn's log record."""


class AccessLogFilter(logging.Filter):
    """Drops lines of polled paths, and the query from all others, because a client may put a key into it."""

    def __init__(self, polled: Set[str]) -> None:
        super().__init__()
        self._polled = polled

    def filter(self, record: logging.LogRecord) -> bool:
        """Remove the query; False if the path is a polled one."""
        if not isinstance(record.args, tuple) or len(record.args) <= _PATH:
            return True
        arguments: list[Any] = list(record.args)
        arguments[_PATH] = str(arguments[_PATH]).partition("?")[0]
        record.args = tuple(arguments)
        return arguments[_PATH] not in self._polled


def install_access_log_filter(polled: Set[str]) -> None:
    """Add the filter to uvicorn's access log, once per process."""
    if not any(isinstance(each, AccessLogFilter) for each in ACCESS_LOGGER.filters):
        ACCESS_LOGGER.addFilter(AccessLogFilter(polled))


class AccessLogFormatter(logging.Formatter):
    """Formats as uvicorn does without colours, but does not copy each record."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one response."""
        if not isinstance(record.args, tuple):
            return super().format(record)
        client, method, path, version, status = record.args
        return f'INFO:     {client} - "{method} {path} HTTP/{version}" {_STATUSES.get(status, status)}'


_STATUSES: dict[object, str] = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


def logging_config() -> dict[str, Any]:
    """uvicorn's logging configuration with `AccessLogFormatter`."""
    config: dict[str, Any] = deepcopy(LOGGING_CONFIG)
    config["formatters"]["access"] = {"()": AccessLogFormatter}
    return config


def disable_unused_log_fields() -> None:
    """Turn off LogRecord fields that no format string uses: thread, process, task and caller.

    See "Optimization" in Python's logging HOWTO. Applies to the whole process.
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.logAsyncioTasks = False  # type: ignore[attr-defined,unused-ignore]  # since Python 3.12
    logging._srcfile = None
