"""Standard output and error that never block: a full pipe without a reader must not stop the server."""

import io
import select
import sys
from typing import TextIO

_CHUNK_BYTES = select.PIPE_BUF
"""The bytes that a ready pipe accepts without blocking (POSIX)."""


def never_block_on_output() -> None:
    """Drop what cannot be written at once. Call it before handlers are created: they keep the streams they find."""
    sys.stdout = _text(1, sys.stdout)
    sys.stderr = _text(2, sys.stderr)


def _text(descriptor: int, stream: TextIO | None) -> io.TextIOWrapper:
    encoding, errors = (stream.encoding, stream.errors) if stream else ("utf-8", "replace")
    return io.TextIOWrapper(_DroppingFile(descriptor), encoding, errors, write_through=True)


class _DroppingFile(io.FileIO):
    """A file that drops what does not fit, and reports the number of lost lines once there is room again.

    It polls before each write. O_NONBLOCK is no option: other processes share the open file description.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._lost = 0
        self._is_torn = False
        self._ready = select.poll()
        self._ready.register(descriptor, select.POLLOUT)

    def write(self, data: bytes) -> int:  # type: ignore[override]  # a TextIOWrapper writes nothing but bytes
        """Write a line of the log, or what fits of it."""
        if self._lost and self._ready.poll(0):
            begin = b"\n" if self._is_torn else b""
            super().write(b"%bWARNING:  %d lines of this log were lost: nobody read it\n" % (begin, self._lost))
            self._lost, self._is_torn = 0, False
        for start in range(0, len(data), _CHUNK_BYTES):
            if not self._ready.poll(0):
                self._lost += 1
                self._is_torn |= start > 0
                break
            super().write(data[start : start + _CHUNK_BYTES])
        return len(data)
