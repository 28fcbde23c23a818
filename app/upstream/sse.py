"""Decoding and encoding of server-sent events, without I/O (WHATWG HTML, 9.2 Server-sent events)."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import to_json

BOM = b"\xef\xbb\xbf"
"""A byte order mark at the start of a stream is ignored."""

END = b"\n\n"
"""What terminates an event: the line end of its last line, and an empty line."""
_END_BYTES = len(END)

MAX_EVENT_BYTES = 8_000_000
"""Far more than any event from OpenAI. A longer event counts as endless and is rejected."""


def encode_events(events: Iterable[Mapping[str, Any]]) -> bytes:
    """Encode events as vLLM does, each as one line of compact JSON."""
    return b"".join([b"data: %b\n\n" % to_json(event) for event in events])


class EventDecoder:
    """Splits a byte stream, cut anywhere, into complete events."""

    def __init__(self) -> None:
        self._pending = b""
        self._after_cr = False
        self._bom_checked = False

    def feed(self, data: bytes) -> bytes:
        """Return the events that `data` completes, each with its `END`; all line ends become LF.

        Raises:
            ValueError: an incomplete event is longer than `MAX_EVENT_BYTES`.
        """
        if self._pending and len(self._pending) > MAX_EVENT_BYTES:
            raise ValueError(f"an event has no end within {MAX_EVENT_BYTES} bytes")
        if data and (self._after_cr or b"\r" in data):
            data = self._with_lf_line_ends(data)
        if self._pending:
            data = self._pending + data
        if not self._bom_checked and len(data) >= len(BOM):
            self._bom_checked = True
            data = data.removeprefix(BOM)
        end = data.rfind(END)
        if end < 0:
            self._pending = data
            return b""
        self._pending = data[end + _END_BYTES :]
        return data[: end + _END_BYTES]

    def _with_lf_line_ends(self, data: bytes) -> bytes:
        if self._after_cr:
            # The CR counted as a line end; an LF now is the second half of a CRLF.
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def event_data(event: bytes) -> bytes | None:
    """Return the data of an event, given without its `END`; None if it has no data field."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def event_type(event: bytes) -> bytes:
    """The event's type, from its `event` field; empty without one."""
    types = [line[6:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"event:")]
    return types[-1] if types else b""
