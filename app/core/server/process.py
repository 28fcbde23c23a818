"""What a process needs beside its server: standard streams that may be closed, and an end that waits for no thread."""

import contextlib
import logging
import os
import sys
from typing import NoReturn


def open_missing_streams() -> None:
    """Lead standard streams that the process was started without to nowhere.

    Otherwise the next socket would get the number of one, and what is written there would go to a client.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, and this is it.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def print_error(text: str) -> None:
    """Write one line to standard error, if anybody reads it."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"llm-server: {text}\n")
        sys.stderr.flush()


def log_nothing_of_logging() -> None:
    """Lose lines that cannot be written, where logging would write a traceback for each: a log's reader may leave."""
    logging.raiseExceptions = False


def leave(status: int) -> NoReturn:
    """End the process now. Python's own end waits for threads, and a thread may look up a name for half a minute."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
