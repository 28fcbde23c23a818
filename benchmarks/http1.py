"""The parts of HTTP/1.1 parsing that the benchmark needs (RFC 9112)."""

import re

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"transfer-encoding: *chunked", re.IGNORECASE)


class WrongResponse(Exception):
    """A candidate's response is not the expected one."""


def is_complete(message: bytes) -> bool:
    """Return True if these bytes are a whole request or response; they must not contain more than one."""
    head, separator, body = message.partition(b"\r\n\r\n")
    if not separator:
        return False
    if length := _LENGTH.search(head):
        return len(body) >= int(length[1])
    return not _CHUNKED.search(head) or body.endswith(b"0\r\n\r\n")


def content_of(response: bytes) -> bytes:
    """Return the body of a whole HTTP response without chunk framing.

    Raises:
        WrongAnswer: the status is not 200.
    """
    head, _, body = response.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise WrongResponse(response[:300].decode(errors="replace"))
    return _without_chunks(body) if b"transfer-encoding: chunked" in head.lower() else body


def _without_chunks(body: bytes) -> bytes:
    pieces: list[bytes] = []
    position = 0
    while True:
        line_end = body.index(b"\r\n", position)
        size = int(body[position:line_end], 16)
        if size == 0:
            return b"".join(pieces)
        pieces.append(body[line_end + 2 : line_end + 2 + size])
        position = line_end + size + 4
