"""Standard output and error that nothing waits for: a pipe that is full, for nobody reads it, would stop the server."""

import io
import select
import sys
from typing import TextIO

_FITS_BYTES = select.PIPE_BUF
"""What a pipe or a terminal that is ready takes at once (POSIX)."""


def never_wait_for_log_readers() -> None:
    """Have what cannot be written at once be lost. Handlers of logging that are made from now on use these streams."""
    sys.stdout = _text(1, sys.stdout)
    sys.stderr = _text(2, sys.stderr)


def _text(number: int, stream: TextIO | None) -> io.TextIOWrapper:
    encoding, errors = (stream.encoding, stream.errors) if stream else ("utf-8", "replace")
    return io.TextIOWrapper(_UnwaitedFile(number), encoding, errors, write_through=True)


class _UnwaitedFile(io.FileIO):
    """A file that loses what does not fit, and says how many lines those were once something fits again.

    It is asked before each write: the descriptor is not made non-blocking, because other processes share that.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._lost = 0
        self._is_torn = False
        self._ready = select.poll()
        self._ready.register(number, select.POLLOUT)

    def write(self, data: bytes) -> int:  # type: ignore[override]  # a TextIOWrapper writes nothing but bytes
        """Write a line of the log, or what fits of it."""
        if self._lost and self._ready.poll(0):
            begin = b"\n" if self._is_torn else b""
            super().write(b"%bWARNING:  %d lines of this log were lost: nobody read it\n" % (begin, self._lost))
            self._lost, self._is_torn = 0, False
        for start in range(0, len(data), _FITS_BYTES):
            if not self._ready.poll(0):
                self._lost += 1
                self._is_torn |= start > 0
                break
            super().write(data[start : start + _FITS_BYTES])
        return len(data)
