"""Finds the message in an upstream error body, which may be any JSON or text."""

MAX_TEXT_CHARACTERS = 1_000
"""Maximum length of the message if the body is plain text; the message of an error object may be longer."""

_DEPTH = 4
# OpenAI's and most others' key first, then those of FastAPI, OAuth (RFC 6749) and problem details (RFC 9457).
_NAMES = ("message", "msg", "detail", "error", "error_description", "title", "errors")


def upstream_message(body: object) -> str | None:
    """The message in an error body of any form; None if it has no readable one.

    An object's message is the first text under a known key, a list's is that of its first item. HTML is not a message:
    it is the page of some proxy.
    """
    text = (_find_message(body, _DEPTH) or "").strip()
    if not text or text.startswith("<"):
        return None
    limit = MAX_TEXT_CHARACTERS if isinstance(body, str) else len(text)
    return text if len(text) <= limit else f"{text[:limit]}...[truncated]"


def _find_message(value: object, depth: int) -> str | None:
    if isinstance(value, str):
        return value
    if not depth:
        return None
    if isinstance(value, list):
        return _find_message(value[0], depth - 1) if value else None
    if isinstance(value, dict):
        return next((text for name in _NAMES if (text := _find_message(value.get(name), depth - 1))), None)
    return None
