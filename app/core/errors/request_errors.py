"""Errors that this server reports, in vLLM's form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

_BUSY = (
    "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
)

# vLLM's own names; any other status uses its HTTP phrase ("Bad Gateway"). Python 3.13 changed the phrase of 413.
_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    413: "Request Entity Too Large",
    422: "UnprocessableEntityError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}

# Messages and parameter paths quote the request, which may be long.
_MESSAGE_CHARACTERS = 12_000
_PARAM_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error response in vLLM's form. `type` defaults to vLLM's name for the status."""

    status: int
    message: str
    param: str | None = None
    type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The JSON body; `code` repeats the HTTP status as an integer."""
        type_ = self.type or _TYPES.get(self.status) or HTTPStatus(self.status).phrase
        message, param = _cut(self.message, _MESSAGE_CHARACTERS), _cut(self.param, _PARAM_CHARACTERS)
        return {"error": {"message": message, "type": type_, "param": param, "code": self.status}}


def _cut(text: str | None, characters: int) -> str | None:
    return text if text is None or len(text) <= characters else f"{text[:characters]}...[truncated]"


class RequestError(Exception):
    """A request that this server rejects itself: 400, unless a subclass says otherwise."""

    def __init__(self, message: str, *, param: str | None = None, type: str = "") -> None:  # noqa: A002 - vLLM's key
        super().__init__(message)
        self.response = ErrorResponse(400, message, param, type)


class Overloaded(RequestError):
    """No permit was free and the queue was full, or the wait took too long: vLLM's 503, which names the setting."""

    def __init__(self, setting: str) -> None:
        super().__init__(f"{_BUSY} ({setting})")
        self.response = ErrorResponse(503, str(self), type="Service Unavailable", headers={"retry-after": "1"})


class RateLimitReached(RequestError):
    """A request beyond a rate limit of its client key. Its `type` differs from that of a rate limit at OpenAI."""

    def __init__(self, setting: str, *, retry_after_s: int) -> None:
        super().__init__(f"The limit {setting} of this server is reached. Please try again in {retry_after_s} s.")
        headers = {"retry-after": str(retry_after_s)}
        self.response = ErrorResponse(429, str(self), type="RateLimitError", headers=headers)


class ClientDisconnected(Exception):
    """The client closed its connection; its work has been cancelled."""


INTERNAL_ERROR = ErrorResponse(500, "The server failed while it handled this request.")
SHUTTING_DOWN = ErrorResponse(503, "The server is shutting down.", headers={"connection": "close", "retry-after": "1"})
