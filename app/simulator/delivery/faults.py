"""Faults: error responses, and responses that end early or are malformed.

A stream is a script: writes, possibly followed by a hang-up. A fault transforms the script, so no fault needs access
to the socket.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from app.simulator import json_text
from app.simulator.directives import Directive
from app.simulator.errors import ErrorBody, OpenAIError

DEFAULT_AFTER = 2
DEFAULT_RETRY_AFTER_S = 7.0
SERVER_ERROR = "The server had an error while processing your request. Sorry about that!"
OVERLOADED = "The engine is currently overloaded, please try again later"
QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
)
# Fragments that a proxy must not pass on to its clients.
CONFIDENTIAL = "Project key sk-proj-abc***def of organization org-simulator may not do this."


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes to send after ``delay_s``; with ``alone`` they get a write of their own."""

    data: bytes
    delay_s: float = 0.0
    alone: bool = False


@dataclass(frozen=True)
class PlainResponse:
    """A whole response that is not OpenAI's JSON."""

    status: int
    content_type: str
    body: bytes


class HangUp(Enum):
    """How to end a connection before the response is complete: a close or a TCP reset."""

    CLOSE = "close"
    RESET = "reset"


Step = Write | HangUp
Events = Sequence[Write]


def _stall(events: Events, directive: Directive) -> Iterator[Step]:
    last = _after(events, directive)
    yield from events[:last]
    yield from (replace(event, delay_s=event.delay_s + directive.seconds) for event in events[last : last + 1])
    yield from events[last + 1 :]


def _cut(events: Events, directive: Directive) -> Iterator[Step]:
    yield from _early_end(events, directive)
    yield HangUp.CLOSE


def _no_done(events: Events, _: Directive) -> Iterator[Step]:
    yield from events[:-1]


def _early_end(events: Events, directive: Directive) -> Iterator[Step]:
    last = _after(events, directive)
    yield from events[:last]
    yield replace(events[last], data=events[last].data[: len(events[last].data) // 2])


def _error_event(events: Events, directive: Directive) -> Iterator[Step]:
    yield from events[: _after(events, directive)]
    error = json_text.compact(ErrorBody(SERVER_ERROR, type="server_error").to_json())
    yield Write(b"data: " + error + b"\n\n")


def _bad_event(events: Events, directive: Directive) -> Iterator[Step]:
    last = _after(events, directive)
    yield from events[:last]
    yield Write(b'data: {"id": "chatcmpl-\n\n')
    yield from events[last:]


def _reset(events: Events, directive: Directive) -> Iterator[Step]:
    yield from events[: _after(events, directive)]
    yield HangUp.RESET


def _crlf(events: Events, _: Directive) -> Iterator[Step]:
    for event in events:
        yield replace(event, data=b": ping\r\n\r\n" + event.data.replace(b"\n", b"\r\n"))


def _dribble(events: Events, _: Directive) -> Iterator[Step]:
    for event in events:
        yield Write(event.data[:1], event.delay_s, alone=True)
        yield from (Write(event.data[at : at + 1], alone=True) for at in range(1, len(event.data)))


STREAM_FAULTS: Mapping[str, Callable[[Events, Directive], Iterator[Step]]] = {
    "stall": _stall,
    "cut": _cut,
    "no_done": _no_done,
    "early_end": _early_end,
    "error_event": _error_event,
    "bad_event": _bad_event,
    "reset": _reset,
    "crlf": _crlf,
    "dribble": _dribble,
}
PLAIN_RESPONSES: Mapping[str, PlainResponse] = {
    "bad_gateway": PlainResponse(
        502,
        "text/html",
        b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>"
        b"\r\n<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n",
    ),
    "not_json": PlainResponse(200, "text/plain", b"upstream connect error or disconnect/reset before headers"),
    "empty": PlainResponse(200, "application/json", b""),
}
# The stream faults that also apply to whole responses.
BODY_FAULTS = frozenset({"cut", "early_end"})


def script(events: Events, directive: Directive) -> Iterator[Step]:
    """Return the steps that send ``events``, with the fault of ``directive`` if it has one."""
    fault = STREAM_FAULTS.get(directive.fault or "")
    return fault(events, directive) if fault else iter(events)


def resets_at_once(directive: Directive, *, stream: bool) -> bool:
    """Return True if the connection is to be reset before the status line."""
    return directive.fault == "reset" and (directive.after is None or not stream)


def raise_error(directive: Directive, *, model: str) -> None:
    """Raise the error response that ``directive`` requests, if any."""
    error = ERRORS.get(directive.fault or "")
    if error is not None:
        raised = error(directive, model)
        raised.headers = {**_advice(directive), **raised.headers}
        raise raised


def in_effect(directive: Directive, *, authorization: str, seen: int) -> Directive:
    """Return ``directive``, without its fault if that applies to another key or is used up after ``seen`` requests."""
    shown = authorization.endswith(directive.key) and (directive.times is None or seen < directive.times)
    return directive if shown else replace(directive, fault=None)


def _advice(directive: Directive) -> dict[str, str]:
    wait = None if directive.retry_after is None else f"{directive.retry_after:g}"
    advice = {"retry-after": wait, "x-should-retry": directive.should_retry}
    return {name: value for name, value in advice.items() if value is not None}


def _after(events: Events, directive: Directive) -> int:
    wanted = DEFAULT_AFTER if directive.after is None else directive.after
    return min(wanted, len(events) - 1)


def _rate_limit(directive: Directive, model: str) -> OpenAIError:
    wait_s = DEFAULT_RETRY_AFTER_S if directive.retry_after is None else directive.retry_after
    wait = f"{wait_s:g}"
    message = (
        f"Rate limit reached for {model} in organization org-simulator on requests per min (RPM): "
        f"Limit 3, Used 3, Requested 1. Please try again in {wait}s."
    )
    headers = {"retry-after": wait, "retry-after-ms": f"{wait_s * 1000:.0f}"}
    return OpenAIError(429, ErrorBody(message, type="requests", code="rate_limit_exceeded"), headers)


def _quota(_: Directive, __: str) -> OpenAIError:
    return OpenAIError(429, ErrorBody(QUOTA, type="insufficient_quota", code="insufficient_quota"))


def _server_error(_: Directive, __: str) -> OpenAIError:
    return OpenAIError(500, ErrorBody(SERVER_ERROR, type="server_error"))


def _overloaded(_: Directive, __: str) -> OpenAIError:
    return OpenAIError(503, ErrorBody(OVERLOADED, type="server_error"))


def _status(directive: Directive, _: str) -> OpenAIError:
    return OpenAIError(directive.status, ErrorBody(CONFIDENTIAL, code="simulated"))


ERRORS: Mapping[str, Callable[[Directive, str], OpenAIError]] = {
    "rate_limit": _rate_limit,
    "quota": _quota,
    "server_error": _server_error,
    "overloaded": _overloaded,
    "status": _status,
}
