"""Error responses for failed calls to OpenAI: a table with a row for each exception class of the SDK."""

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import openai

from app.core.errors.request_errors import ErrorResponse
from app.core.errors.upstream_message import upstream_message
from app.core.logs.records import exception_for_log

logger = logging.getLogger(__name__)

UpstreamError = openai.OpenAIError
"""Any failure of a call to OpenAI."""
_DO_NOT_RETRY = {"x-should-retry": "false"}

_WORD = re.compile(r"[\w.-]{1,64}", re.ASCII)

_QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    }
)


def is_quota_exhausted(exc: openai.APIError) -> bool:
    """True if the account has no credit left, as opposed to a reached rate limit: retries do not help."""
    # `type` and `code` may be any JSON value, also an unhashable one.
    return any(isinstance(value, str) and value in _QUOTA_CODES for value in (exc.type, exc.code))


def error_response_for(exc: BaseException) -> ErrorResponse:
    """The response to an upstream failure, from the row of its class or of its nearest ancestor."""
    return next(_UPSTREAM[cls] for cls in type(exc).__mro__ if cls in _UPSTREAM)(exc)


def log_upstream_failure(exc: openai.OpenAIError, response: ErrorResponse) -> None:
    """Log what the operator needs to know of an upstream failure; errors of the client (4xx below 429) are not logged.

    OpenAI's message stays out of the log, because it may quote the prompt.
    """
    if response.status < 429:
        return
    level = logging.ERROR if response is _CREDENTIALS_ERROR else logging.WARNING
    logger.log(level, "OpenAI: %s, answered with %d", ", ".join(_facts(exc)), response.status)


def _facts(exc: openai.OpenAIError) -> Iterator[str]:
    """Facts for the log: class, our message, cause; then status, request id, type and code, each if a single word."""
    ours = f": {exc.message}" if isinstance(exc, openai.APIConnectionError) else ""
    cause = f" ({exception_for_log(exc.__cause__)})" if exc.__cause__ else ""
    yield f"{type(exc).__name__}{ours}{cause}"
    fields: dict[str, object] = {}
    if isinstance(exc, openai.APIStatusError):
        fields = {"status": str(exc.status_code), "request": exc.response.headers.get("x-request-id")}
    if isinstance(exc, openai.APIError):
        fields |= {"type": exc.type, "code": exc.code}
    yield from (f"{name} {word}" for name, word in fields.items() if isinstance(word, str) and _WORD.fullmatch(word))


def _text(exc: openai.APIError, fallback: str) -> str:
    return upstream_message(exc.body) or fallback


def _param(exc: openai.APIError) -> str | None:
    return exc.param if isinstance(exc.param, str) else None


def _code_header(exc: openai.APIError) -> dict[str, str]:
    # vLLM's `code` is the HTTP status, so OpenAI's code ("context_length_exceeded") goes into a header.
    code = exc.code if isinstance(exc.code, str) and re.fullmatch(r"\w{1,64}", exc.code, re.ASCII) else None
    return {"x-openai-error-code": code} if code else {}


def _client_error(status: int) -> Callable[[Any], ErrorResponse]:
    """The request was invalid: pass on OpenAI's message and parameter."""

    def response(exc: openai.APIStatusError) -> ErrorResponse:
        return ErrorResponse(
            status, _text(exc, "The upstream rejected the request."), _param(exc), headers=_code_header(exc)
        )

    return response


def _fixed(status: int, message: str) -> Callable[[Any], ErrorResponse]:
    """The upstream failed: a fixed message."""
    response = ErrorResponse(status, message)
    return lambda _exc: response


def _credentials(_exc: openai.APIStatusError) -> ErrorResponse:
    return _CREDENTIALS_ERROR


def _not_found(exc: openai.NotFoundError) -> ErrorResponse:
    if exc.code != "model_not_found":
        return ErrorResponse(502, "The upstream service does not have this endpoint: check OPENAI_BASE_URL.")
    return ErrorResponse(400, _text(exc, "The model does not exist."), "model", headers=_code_header(exc))


def _rate_limited(exc: openai.RateLimitError) -> ErrorResponse:
    headers = _code_header(exc) | (_DO_NOT_RETRY if is_quota_exhausted(exc) else {})
    return ErrorResponse(429, _text(exc, "The upstream's rate limit is reached."), _param(exc), headers=headers)


def _server_error(exc: openai.InternalServerError) -> ErrorResponse:
    status = exc.status_code if exc.status_code in {500, 502, 503, 504} else 502
    return ErrorResponse(status, _text(exc, f"The upstream service failed with status {exc.status_code}."))


def _other_status(exc: openai.APIStatusError) -> ErrorResponse:
    status = 413 if exc.status_code == 413 else 502
    return ErrorResponse(status, _text(exc, f"The upstream service responded with status {exc.status_code}."))


def _error_event(exc: openai.APIError) -> ErrorResponse:
    return ErrorResponse(500, _text(exc, "The upstream service failed."))


def _connection_error(exc: openai.APIConnectionError) -> ErrorResponse:
    return ErrorResponse(502, exc.message)


def _timeout(exc: openai.APITimeoutError) -> ErrorResponse:
    return ErrorResponse(504, exc.message)


_CREDENTIALS_ERROR = ErrorResponse(
    502, "The upstream service rejected this server's credentials.", headers=_DO_NOT_RETRY
)
_GENERIC = _fixed(502, "The upstream service failed.")

# One row for each exception class that the SDK exports; a test fails when the SDK adds one.
_UPSTREAM: dict[type[BaseException], Callable[[Any], ErrorResponse]] = {
    openai.BadRequestError: _client_error(400),
    openai.UnprocessableEntityError: _client_error(422),
    openai.NotFoundError: _not_found,
    openai.ConflictError: _fixed(503, "The upstream service is busy with a conflicting request."),
    openai.AuthenticationError: _credentials,
    openai.OAuthError: _credentials,
    openai.PermissionDeniedError: _credentials,
    openai.RateLimitError: _rate_limited,
    openai.InternalServerError: _server_error,
    openai.APIStatusError: _other_status,
    openai.APITimeoutError: _timeout,
    openai.APIConnectionError: _connection_error,
    openai.APIResponseValidationError: _fixed(502, "The upstream service's response could not be understood."),
    openai.APIError: _error_event,
    openai.LengthFinishReasonError: _GENERIC,
    openai.ContentFilterFinishReasonError: _GENERIC,
    openai.InvalidWebhookSignatureError: _GENERIC,
    openai.WebSocketConnectionClosedError: _GENERIC,
    openai.WebSocketQueueFullError: _GENERIC,
    openai.OpenAIError: _GENERIC,
}
