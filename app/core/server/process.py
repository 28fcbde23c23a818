"""Process-level care: standard streams that may be closed, and an exit that does not wait for threads."""

import contextlib
import logging
import os
import sys
from typing import NoReturn


def open_missing_streams() -> None:
    """Open /dev/null for standard streams that the process was started without.

    Otherwise a socket could get the descriptor of stdout or stderr, and output would go to a client.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # os.open() returns the lowest free descriptor, which is this one.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def print_error(text: str) -> None:
    """Write one line to standard error; ignore a closed pipe."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"llm-server: {text}\n")
        sys.stderr.flush()


def ignore_logging_errors() -> None:
    """Drop log lines that cannot be written, for example to a closed pipe, instead of a traceback for each."""
    logging.raiseExceptions = False


def exit_now(status: int) -> NoReturn:
    """Exit without waiting for threads, as Python would: a thread may resolve a host name for half a minute."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
