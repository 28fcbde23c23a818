"""What uvicorn's access log does not say."""

import logging
from collections.abc import Set
from typing import Any

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


def quiet_access_log(polled: Set[str]) -> None:
    """Have uvicorn's access log filtered so, once for this process."""
    if not any(isinstance(known, AccessLogFilter) for known in ACCESS_LOGGER.filters):
        ACCESS_LOGGER.addFilter(AccessLogFilter(polled))
