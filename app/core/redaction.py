"""Finds and replaces secrets in foreign text, also in encoded forms."""

import html
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

REDACTED = "[redacted]"
RESPONSE_TEXT_CHARACTERS = 16_000
"""Maximum text of an upstream error; the rest is dropped. More than an error response quotes."""
SHORT_SECRET_CHARACTERS = 8
"""A shorter secret may be part of an ordinary word, so it is replaced only as a whole word."""

_DECODINGS = 4
"""An error quoted in a URL quoted in an error is three encodings deep."""
_CHARACTERS_PER_ENCODED_ONE = 16

# Keys, masked ones too, ids of organizations and projects as OpenAI's texts have them, and the user of a URL.
_PATTERNS = (
    r"\b(?:sk-|org-|proj_)[\w*….-]*[\w*…]",
    r"(?<=in organization )\S+",
    r"(?<=://)[^\s/?#]+(?=@)",
)

# Each match of these patterns and encodings contains one of these.
_MARKERS = ("sk-", "org-", "proj_", "in organization ", "@", "\\", "%", "&", "\0")

# JSON, JavaScript and Python; percent-encoding; HTML; and UTF-16 that was read as UTF-8.
_ENCODED = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([^0-9A-Za-z\s\0]))|%([0-9a-fA-F]{2})|&#?\w{1,8};|\0", re.ASCII
)


class Redactor:
    """Replaces the secrets of one application, and whatever looks like an OpenAI key or account id.

    Finds them in plain text and under up to four layers of JSON escapes, percent-encoding and HTML entities, mixed in
    any way. Does not find them in base64, except for the credentials sent to a proxy.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        # The longest first: a key may begin with another one.
        longest_first = sorted(forms, key=len, reverse=True)
        self._secret = re.compile("|".join([*map(_literal, longest_first), *_PATTERNS]))
        self.markers = (*longest_first, *_MARKERS)
        """A text that contains none of them needs no redaction."""
        self._longest = max(map(len, forms), default=0) * _CHARACTERS_PER_ENCODED_ONE

    def for_response(self, value: Any) -> Any:
        """A JSON value from the upstream with all strings and object keys redacted, cut at 16,000 characters in all."""
        left = RESPONSE_TEXT_CHARACTERS

        def redacted(value: Any) -> Any:
            nonlocal left
            if isinstance(value, str):
                characters, left = left, max(left - len(value), 0)
                return self.redact(value, characters) if characters else ""
            if isinstance(value, list):
                return [redacted(item) for item in value]
            if isinstance(value, dict):
                return {redacted(name): redacted(item) for name, item in value.items()}
            return value

        return redacted(value)

    def is_clean(self, text: str) -> bool:
        """True if nothing needs redaction. Makes no calls, because it runs on the headers of each response."""
        for marker in self.markers:  # noqa: SIM110 - any() would call a generator for each
            if marker in text:
                return False
        return True

    def redact(self, text: str, characters: int) -> str:
        """The first `characters` of `text` without secrets. The cut leaves no part of a secret."""
        window = text[: characters + self._longest]
        if self.is_clean(window):
            return text[:characters]
        kept, at = [], 0
        for start, end in sorted(self._spans(window)):
            if start >= characters:
                break
            if end > at:
                kept += [window[at:start], REDACTED] if start >= at else []
                at = end
        return "".join([*kept, window[at:characters]])

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Start and end of each secret in `text`."""
        for decoded, starts in _layers(text):
            for match in self._secret.finditer(decoded):
                yield starts[match.start()], starts[match.end()]


def proxy_secrets(url: str | None) -> list[str]:
    """The password in a proxy URL, and the Basic credentials made from it (RFC 7617)."""
    credentials = (url or "").rpartition("@")[0].rpartition("//")[2]
    user, _, password = map(unquote, credentials.partition(":"))
    return [password or user, b64encode(f"{user}:{password}".encode()).decode()] if credentials else []


def _literal(secret: str) -> str:
    pattern = re.escape(secret)
    return rf"(?<!\w){pattern}(?!\w)" if len(secret) < SHORT_SECRET_CHARACTERS else pattern


def _forms(secret: str) -> Iterator[str]:
    """The secret as decoding may show it: with its own escapes decoded, and with its bytes as characters."""
    for text in (secret, secret.encode(errors="replace").decode("latin-1")):
        yield from (decoded for decoded, _starts in _layers(text) if decoded)


def _layers(text: str) -> Iterator[tuple[str, Sequence[int]]]:
    """The text with 0, 1, 2… layers of encoding removed, each with the offset of every character in `text`."""
    starts: Sequence[int] = range(len(text) + 1)
    yield text, starts
    for _ in range(_DECODINGS):
        if not _ENCODED.search(text):
            return
        text, starts = _decoded(text, starts)
        yield text, starts


def _decoded(text: str, starts: Sequence[int]) -> tuple[str, Sequence[int]]:
    parts: list[str] = []
    origins: list[int] = []
    at = 0
    for match in _ENCODED.finditer(text):
        characters = _characters(match)
        parts += text[at : match.start()], characters
        origins += [*starts[at : match.start()], *[starts[match.start()]] * len(characters)]
        at = match.end()
    return "".join([*parts, text[at:]]), [*origins, *starts[at:]]


def _characters(match: re.Match[str]) -> str:
    utf16, byte, escaped, percent = match.groups()
    if code := utf16 or byte or percent:
        return chr(int(code, 16))
    return escaped or html.unescape(match[0].strip("\0"))
