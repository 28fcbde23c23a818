"""Checks of request framing beyond those of httptools. Whatever two parsers may read differently is an error.

httptools itself rejects Content-Length together with Transfer-Encoding or given twice, bare LF, obs-fold, NUL, white
space before a colon, and chunk sizes that are not plain hexadecimal numbers; tests cover that.
"""

from collections.abc import Sequence

import httptools

Fields = Sequence[tuple[bytes, bytes]]
"""Header fields in order, names in lower case."""

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_CONNECTION = frozenset({b"connection", b"proxy-connection", b"upgrade"})
_VERSIONS = frozenset({"1.0", "1.1"})
_OWS = b" \t"
_ABSOLUTE = frozenset({b"http", b"https"})


class InvalidRequestError(Exception):
    """A request's head is not valid HTTP/1.1 or HTTP/1.0, or its length is ambiguous. The text gives the reason."""


def check_head(version: str, fields: Fields) -> None:
    """Check the version, Host and Transfer-Encoding (RFC 9112, 3.2 and 6.1).

    Raises:
        InvalidRequestError: one is invalid; the connection must not be read any further.
    """
    if version not in _VERSIONS:
        raise InvalidRequestError("this server speaks HTTP/1.1 and HTTP/1.0")
    names = [name for name, _ in fields]
    hosts = names.count(b"host")
    if hosts > 1 or (not hosts and version == "1.1"):
        raise InvalidRequestError("exactly one Host header is required")
    if b"transfer-encoding" in names:
        _check_transfer_encoding(version, fields)


def _check_transfer_encoding(version: str, fields: Fields) -> None:
    if version == "1.0":
        raise InvalidRequestError("HTTP/1.0 has no Transfer-Encoding")
    if [value.strip(_OWS).lower() for name, value in fields if name == b"transfer-encoding"] != [b"chunked"]:
        raise InvalidRequestError("the only Transfer-Encoding is chunked")


def check_trailer(name: bytes) -> None:
    """Check that a trailer field does not control the connection, which httptools would allow (RFC 9110, 6.5.1).

    Raises:
        InvalidRequestError: it does.
    """
    if name in _CONNECTION:
        raise InvalidRequestError("a trailer cannot control the connection")


def origin_form(target: bytes) -> bytes:
    """Path and query of a request target that does not begin with a slash (RFC 9112, 3.2.2 to 3.2.4).

    Raises:
        InvalidRequestError: it is neither an http(s) URL nor an asterisk.
    """
    if target == b"*":
        return target
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        url = None
    if url is None or url.schema is None or url.schema.lower() not in _ABSOLUTE:
        raise InvalidRequestError("the request target is neither a path nor an http(s) URL")
    path = url.path or b"/"
    return path if url.query is None else b"%b?%b" % (path, url.query)


def head_with_framing_of(fields: Fields) -> bytes:
    """A minimal request head with the same body framing as `fields`."""
    lines = b"".join(b"%b: %b\r\n" % field for field in fields if field[0] in _FRAMING)
    return b"POST / HTTP/1.1\r\n%b\r\n" % lines


def http10_keeps_alive(fields: Fields) -> bool:
    """True if an HTTP/1.0 client asks to keep the connection open (RFC 9112, 9.3)."""
    values = b",".join(value for name, value in fields if name == b"connection").lower()
    options = {option.strip(_OWS) for option in values.split(b",")}
    return b"keep-alive" in options and b"close" not in options
