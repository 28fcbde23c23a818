"""Finds and replaces secrets in foreign text, also in encoded forms."""

import html
import re
import sys
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
"""Layers of encoding to remove. An error quoted in a URL that is quoted in an error has three."""
_CHARACTERS_PER_ENCODED_ONE = 36

# Keys, masked ones too, ids of organizations and projects as OpenAI's texts have them, and the user of a URL.
_PATTERNS = (
    r"\b(?:sk-|org-|proj_)[\w*….-]*[\w*…]",
    r"(?<=in organization )\S+",
    r"(?<=://)[^\s/?#]+(?=@)",
)

# Each match of these patterns and encodings contains one of these.
_MARKERS = ("sk-", "org-", "proj_", "in organization ", "@", "\\", "%", "&", "\0")

# JSON, JavaScript, Python and octal; percent-encoding; HTML; and UTF-16 that was read as UTF-8.
_HEX = "([0-9a-fA-F]{%s})"
_ENCODED = re.compile(
    rf"\\(?:u{_HEX % 4}|u\{{{_HEX % '1,6'}\}}|U00{_HEX % 6}|x{_HEX % 2}|([0-3][0-7][0-7])|([^0-9A-Za-z\s\0]))"
    rf"|%u{_HEX % 4}|%{_HEX % 2}|&#(?:\d{{1,30}}|[xX][0-9a-fA-F]{{1,30}});?|&\w{{1,30}};|\0",
    re.ASCII,
)
_OCTAL, _ITSELF = 5, 6

# Invisible interruptions of a secret: line ends with indentation, other control characters, soft hyphens,
# characters of no width. "=" ends a line of quoted-printable text.
_GAP = re.compile("=?[\0-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+[ \t]*")


class Redactor:
    """Replaces the secrets of one application, and whatever looks like an OpenAI key or account id.

    Finds them in plain text and under up to four layers of JSON escapes, percent-encoding and HTML entities, mixed in
    any way, and the application's own across line ends and invisible characters. Does not find them in base64, except
    for the credentials sent to a proxy.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        # The longest first: a key may begin with another one.
        longest_first = sorted(forms, key=len, reverse=True)
        self._secret = re.compile("|".join([*map(_literal, longest_first), *_PATTERNS]))
        # Joined lines may contain a short secret by chance.
        long = [form for form in longest_first if len(form) >= SHORT_SECRET_CHARACTERS]
        self._own = re.compile("|".join(map(re.escape, long))) if long else None
        self.markers = (*longest_first, *_MARKERS)
        """A printable text that contains none of them needs no redaction."""
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
        """True if nothing needs redaction. Makes no Python call, because it runs on the headers of each response."""
        for marker in self.markers:
            if marker in text:
                return False
        return text.isprintable()

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
            if self._own and _GAP.search(decoded):
                for start, end in _broken(decoded, self._own):
                    yield starts[start], starts[end]


def proxy_secrets(url: str | None) -> list[str]:
    """The password in a proxy URL, and the Basic credentials made from it (RFC 7617)."""
    credentials = (url or "").rpartition("@")[0].rpartition("//")[2]
    user, _, password = map(unquote, credentials.partition(":"))
    return [password or user, b64encode(f"{user}:{password}".encode()).decode()] if credentials else []


def _literal(secret: str) -> str:
    pattern = re.escape(secret)
    return rf"(?<!\w){pattern}(?!\w)" if len(secret) < SHORT_SECRET_CHARACTERS else pattern


def _forms(secret: str) -> Iterator[str]:
    """Forms in which the secret may appear: as it is or misread as Latin-1, each also with its escapes decoded."""
    for text in (secret, secret.encode(errors="replace").decode("latin-1")):
        yield from (decoded for decoded, _starts in _layers(text) if decoded)


def _broken(text: str, secret: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Start and end in `text` of each secret that is interrupted by gaps."""
    ends = [0, *[place for gap in _GAP.finditer(text) for place in gap.span()], len(text)]
    kept = [place for start, end in zip(ends[::2], ends[1::2], strict=True) for place in range(start, end)]
    for match in secret.finditer("".join([text[place] for place in kept])):
        yield kept[match.start()], kept[match.end() - 1] + 1


def _layers(text: str) -> Iterator[tuple[str, Sequence[int]]]:
    """Decode `text` layer by layer. Yield each result, `text` first, with each character's offset in `text`."""
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
    if match.lastindex == _ITSELF:
        return match[_ITSELF]
    if match.lastindex:
        return chr(min(int(match[match.lastindex], 8 if match.lastindex == _OCTAL else 16), sys.maxunicode))
    return html.unescape(match[0].strip("\0"))
