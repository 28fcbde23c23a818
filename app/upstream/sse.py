"""Server-sent events out of bytes, and bytes out of them, without I/O (WHATWG HTML, 9.2 Server-sent events)."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import to_json

BOM = b"\xef\xbb\xbf"
"""A stream may begin with a byte order mark, which is no part of it."""

END = b"\n\n"
"""The empty line that ends an event, with the end of the line before it."""
_END_BYTES = len(END)

MAX_EVENT_BYTES = 8_000_000
"""Far beyond any event of OpenAI's; what is longer has no end."""


def encode_events(events: Iterable[Mapping[str, Any]]) -> bytes:
    """Events as vLLM writes them: each is one line of compact JSON."""
    return b"".join([b"data: %b\n\n" % to_json(event) for event in events])


class EventDecoder:
    """Takes bytes however the network cut them and gives the events that are complete."""

    def __init__(self) -> None:
        self._pending = b""
        self._after_cr = False
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        """The events that `data` completes, each with its `END`, all line ends being LF.

        Raises:
            ValueError: the event that was begun before grows beyond `MAX_EVENT_BYTES`.
        """
        if self._pending and len(self._pending) > MAX_EVENT_BYTES:
            raise ValueError(f"an event has no end within {MAX_EVENT_BYTES} bytes")
        if data and (self._after_cr or b"\r" in data):
            data = self._with_plain_line_ends(data)
        if self._pending:
            data = self._pending + data
        if not self._begun and len(data) >= len(BOM):
            self._begun = True
            data = data.removeprefix(BOM)
        end = data.rfind(END)
        if end < 0:
            self._pending = data
            return b""
        self._pending = data[end + _END_BYTES :]
        return data[: end + _END_BYTES]

    def _with_plain_line_ends(self, data: bytes) -> bytes:
        if self._after_cr:
            # The CR before has been taken for a whole line end; an LF now is only its second half.
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def event_data(event: bytes) -> bytes | None:
    """What an event says, given without its `END`; None if nothing."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def event_type(event: bytes) -> bytes:
    """What kind an event says that it is; empty where it says nothing."""
    types = [line[6:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"event:")]
    return types[-1] if types else b""
