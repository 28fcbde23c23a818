"""The one reader of what a failing upstream says: its message, in whatever JSON or text it comes."""

MAX_TEXT_CHARACTERS = 1_000
"""Of a body that is a bare text, what is repeated; an error object's own message may be longer."""

_DEPTH = 4
# OpenAI's and most others' name first, then those of FastAPI, of OAuth (RFC 6749) and of problem details (RFC 9457).
_NAMES = ("message", "msg", "detail", "error", "error_description", "title", "errors")


def upstream_message(body: object) -> str | None:
    """The message of an error's body, whatever its form; None where it has none that a person could read.

    Of objects it is the first text under a name that is in use, of lists that of the first item. HTML is no message: it
    is some proxy's page.
    """
    text = (_found(body, _DEPTH) or "").strip()
    if not text or text.startswith("<"):
        return None
    most = MAX_TEXT_CHARACTERS if isinstance(body, str) else len(text)
    return text if len(text) <= most else f"{text[:most]}...[truncated]"


def _found(value: object, depth: int) -> str | None:
    if isinstance(value, str):
        return value
    if not depth:
        return None
    if isinstance(value, list):
        return _found(value[0], depth - 1) if value else None
    if isinstance(value, dict):
        return next((text for name in _NAMES if (text := _found(value.get(name), depth - 1))), None)
    return None
