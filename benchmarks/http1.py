"""As much of HTTP/1.1 as the benchmark needs to read (RFC 9112)."""

import re

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"transfer-encoding: *chunked", re.IGNORECASE)


class WrongAnswer(Exception):
    """A candidate answered something else than what was asked for."""


def is_complete(message: bytes) -> bool:
    """Whether these bytes are a whole request or answer; nothing of a second one may follow."""
    head, separator, body = message.partition(b"\r\n\r\n")
    if not separator:
        return False
    if length := _LENGTH.search(head):
        return len(body) >= int(length[1])
    return not _CHUNKED.search(head) or body.endswith(b"0\r\n\r\n")


def content_of(answer: bytes) -> bytes:
    """The body of a whole HTTP answer, without its chunks' frames.

    Raises:
        WrongAnswer: the status is not 200.
    """
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise WrongAnswer(answer[:300].decode(errors="replace"))
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
