"""What the answer to a failure is, from an openai SDK exception, a validation error or a refusal of our own.

No I/O but the line in the log that tells the operator what the client is not told.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import openai

logger = logging.getLogger(__name__)

UpstreamError = openai.OpenAIError
"""Any failure of a call to OpenAI."""

VLLM_ERROR = "vllm"
"""The pydantic error type of vLLM's own checks; its context carries `param`."""

_BUSY = (
    "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
)
_DO_NOT_RETRY = {"x-should-retry": "false"}

# vLLM's own names; any other status goes by its HTTP phrase ("Bad Gateway"). Python 3.13 has a new phrase for 413.
_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    413: "Request Entity Too Large",
    422: "UnprocessableEntityError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}


# Texts and places repeat what the client sent, and that may be long.
_MESSAGE_CHARACTERS = 12_000
_PARAM_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error as vLLM answers it. `type` defaults to vLLM's name for the status."""

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


class Refusal(Exception):
    """A request that this server refuses itself, with a 400 that names the field."""

    def __init__(self, message: str, *, param: str | None = None, type: str = "") -> None:  # noqa: A002 - vLLM's key
        super().__init__(message)
        self.answer = ErrorAnswer(400, message, param, type)


class Overloaded(Refusal):
    """A call for which there is no place now, refused with vLLM's 503, extended by the setting that says so."""

    def __init__(self, setting: str) -> None:
        super().__init__(f"{_BUSY} ({setting})")
        self.answer = ErrorAnswer(503, str(self), type="Service Unavailable", headers={"retry-after": "1"})


class KeyLimitReached(Refusal):
    """A request beyond a limit of its client's key. Its type tells it from a limit of OpenAI's."""

    def __init__(self, setting: str, *, retry_after_s: int) -> None:
        super().__init__(f"The limit {setting} of this server is reached. Please try again in {retry_after_s} s.")
        headers = {"retry-after": str(retry_after_s)}
        self.answer = ErrorAnswer(429, str(self), type="RateLimitError", headers=headers)


class ClientDisconnected(Exception):
    """The client closed its connection; whatever was being done for it has been cancelled."""


INTERNAL_ERROR = ErrorAnswer(500, "The server failed while it handled this request.")
SHUTTING_DOWN = ErrorAnswer(503, "The server is shutting down.", headers={"connection": "close", "retry-after": "1"})

# --- upstream ---------------------------------------------------------------------------------------------------------

# OpenAI's texts quote masked keys and the ids of the account's organization and projects.
_SECRETS = re.compile(r"\b(?:sk-|org-|proj_)[\w*….-]*[\w*…]|(?<=in organization )\S+")

_OUT_OF_MONEY = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    }
)


def scrubbed(text: str) -> str:
    """Text of the upstream without keys, organization and project ids."""
    return _SECRETS.sub("[redacted]", text)


def is_out_of_money(exc: openai.APIError) -> bool:
    """Whether an account is empty, rather than its rate limit reached: no retry helps until somebody pays."""
    return exc.type in _OUT_OF_MONEY or exc.code in _OUT_OF_MONEY


def upstream_answer(exc: BaseException) -> ErrorAnswer:
    """The answer to a failure of the upstream, by the row of its class or of its nearest ancestor."""
    return next(_UPSTREAM[cls] for cls in type(exc).__mro__ if cls in _UPSTREAM)(exc)


def log_upstream_failure(exc: openai.OpenAIError, answer: ErrorAnswer) -> None:
    """Tell the operator what the client is not told; what the client did wrong is no news to the operator."""
    if answer.status < 429:
        return
    cause = f" ({type(exc.__cause__).__name__}: {exc.__cause__})" if exc.__cause__ else ""
    level = logging.ERROR if answer is _CREDENTIALS_ANSWER else logging.WARNING
    logger.log(level, "OpenAI: %s, answered with %d", scrubbed(f"{type(exc).__name__}: {exc}{cause}"), answer.status)


def _text(exc: openai.APIError, fallback: str) -> str:
    message = exc.body.get("message") if isinstance(exc.body, dict) else None
    return scrubbed(message) if isinstance(message, str) and message else fallback


def _param(exc: openai.APIError) -> str | None:
    return scrubbed(exc.param) if isinstance(exc.param, str) else None


def _code_header(exc: openai.APIError) -> dict[str, str]:
    # vLLM's `code` is the status, so OpenAI's own ("context_length_exceeded") travels beside the body.
    code = exc.code if isinstance(exc.code, str) and re.fullmatch(r"\w{1,64}", exc.code, re.ASCII) else None
    return {"x-openai-error-code": code} if code else {}


def _refused(status: int) -> Callable[[Any], ErrorAnswer]:
    """The client's request was at fault: OpenAI's own words and parameter."""

    def answer(exc: openai.APIStatusError) -> ErrorAnswer:
        return ErrorAnswer(
            status, _text(exc, "The upstream refused the request."), _param(exc), headers=_code_header(exc)
        )

    return answer


def _failed(status: int, message: str) -> Callable[[Any], ErrorAnswer]:
    """The upstream was at fault: a fixed text."""
    answer = ErrorAnswer(status, message)
    return lambda _exc: answer


def _credentials(_exc: openai.APIStatusError) -> ErrorAnswer:
    return _CREDENTIALS_ANSWER


def _not_found(exc: openai.NotFoundError) -> ErrorAnswer:
    if exc.code != "model_not_found":
        return ErrorAnswer(502, "The upstream service does not have this endpoint: check OPENAI_BASE_URL.")
    return ErrorAnswer(400, _text(exc, "The model does not exist."), "model", headers=_code_header(exc))


def _rate_limited(exc: openai.RateLimitError) -> ErrorAnswer:
    headers = _code_header(exc) | (_DO_NOT_RETRY if is_out_of_money(exc) else {})
    return ErrorAnswer(429, _text(exc, "The upstream's rate limit is reached."), _param(exc), headers=headers)


def _upstream_failed(exc: openai.InternalServerError) -> ErrorAnswer:
    status = exc.status_code if exc.status_code in {500, 502, 503, 504} else 502
    return ErrorAnswer(status, _text(exc, f"The upstream service failed with status {exc.status_code}."))


def _other_status(exc: openai.APIStatusError) -> ErrorAnswer:
    status = 413 if exc.status_code == 413 else 502
    return ErrorAnswer(status, _text(exc, f"The upstream service answered with status {exc.status_code}."))


def _error_event(exc: openai.APIError) -> ErrorAnswer:
    return ErrorAnswer(500, _text(exc, "The upstream service failed."))


def _not_reached(exc: openai.APIConnectionError) -> ErrorAnswer:
    return ErrorAnswer(502, scrubbed(exc.message))


def _too_late(exc: openai.APITimeoutError) -> ErrorAnswer:
    return ErrorAnswer(504, scrubbed(exc.message))


_CREDENTIALS_ANSWER = ErrorAnswer(
    502, "The upstream service rejected this server's credentials.", headers=_DO_NOT_RETRY
)
_GENERIC = _failed(502, "The upstream service failed.")

# One row for every exception class the SDK exports; a test fails when it gains one.
_UPSTREAM: dict[type[BaseException], Callable[[Any], ErrorAnswer]] = {
    openai.BadRequestError: _refused(400),
    openai.UnprocessableEntityError: _refused(422),
    openai.NotFoundError: _not_found,
    openai.ConflictError: _failed(503, "The upstream service is busy with a conflicting request."),
    openai.AuthenticationError: _credentials,
    openai.OAuthError: _credentials,
    openai.PermissionDeniedError: _credentials,
    openai.RateLimitError: _rate_limited,
    openai.InternalServerError: _upstream_failed,
    openai.APIStatusError: _other_status,
    openai.APITimeoutError: _too_late,
    openai.APIConnectionError: _not_reached,
    openai.APIResponseValidationError: _failed(502, "The upstream service's answer could not be understood."),
    openai.APIError: _error_event,
    openai.LengthFinishReasonError: _GENERIC,
    openai.ContentFilterFinishReasonError: _GENERIC,
    openai.InvalidWebhookSignatureError: _GENERIC,
    openai.WebSocketConnectionClosedError: _GENERIC,
    openai.WebSocketQueueFullError: _GENERIC,
    openai.OpenAIError: _GENERIC,
}

# --- validation -------------------------------------------------------------------------------------------------------

_SHOWN_ERRORS = 10
_SHOWN_ERROR_CHARACTERS = 1000
_SHOWN_INPUT_CHARACTERS = 200
_BRANCH_NAMES = frozenset(
    {"str", "int", "float", "bool", "none", "dict", "constrained-str", "constrained-int", "nullable"}
)


def validation_answer(errors: Sequence[Mapping[str, Any]]) -> ErrorAnswer:
    """The answer to pydantic's errors about a request, worded as vLLM words them.

    vLLM checks types first, all at once, and values after that, one at a time.
    """
    plain = [error for error in errors if error["type"] != VLLM_ERROR]
    if not plain:
        return ErrorAnswer(400, errors[0]["msg"], errors[0]["ctx"]["param"])
    lines = [_shown_error(error) for error in plain[:_SHOWN_ERRORS]]
    if len(plain) > _SHOWN_ERRORS:
        lines.append(f"  ...and {len(plain) - _SHOWN_ERRORS} more errors")
    heading = f"{len(plain)} validation error{'s' if len(plain) > 1 else ''}:"
    return ErrorAnswer(400, "\n".join([heading, *lines]), _shown_location(plain[0]["loc"]), "Bad Request")


def _shown_error(error: Mapping[str, Any]) -> str:
    shown = {
        "type": error["type"],
        "loc": _shown_location(error["loc"]),
        "msg": error["msg"],
        "input": _shown_input(error.get("input")),
    }
    if error.get("ctx"):
        shown["ctx"] = {name: _shown_input(value) for name, value in error["ctx"].items()}
    return f"  {shown}"[:_SHOWN_ERROR_CHARACTERS]


def _shown_location(location: Sequence[int | str]) -> str:
    # Beside fields and indexes pydantic lists the branch of a union it tried; that is no place in the request.
    return ".".join(str(part) for part in location if not _is_branch(part))


def _is_branch(part: int | str) -> bool:
    return isinstance(part, str) and (part in _BRANCH_NAMES or not part.isidentifier())


def _shown_input(value: object) -> str:
    if isinstance(value, dict | list | tuple | set):
        name = "dict" if isinstance(value, dict) else "list"
        return f"<{name} of {len(value)} items>"
    text = str(value)
    return text if len(text) <= _SHOWN_INPUT_CHARACTERS else f"{text[:_SHOWN_INPUT_CHARACTERS]}...[truncated]"
