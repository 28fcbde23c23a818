"""Failed calls to OpenAI as the openai SDK's own exceptions: same class, message and attributes."""

from collections.abc import Mapping
from typing import Any

import aiohttp
import httpx2
import openai
from pydantic_core import from_json

from app.core.errors.upstream_message import upstream_message
from app.core.redaction import Redactor

_STATUS_ERRORS: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
}

_RESULTS = frozenset({"choices", "data"})

# They describe the encoded body; the exception carries the decoded one.
_BODY_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def transport_error(url: str, failure: aiohttp.ClientError | OSError) -> openai.APIConnectionError:
    """Return the SDK's exception for a connection that could not be made or broke."""
    if isinstance(failure, aiohttp.ClientConnectorError):
        return connection_error(url, "The upstream service could not be reached.")
    return connection_error(url, "The connection to the upstream service broke.")


def timeout_error(url: str, message: str) -> openai.APITimeoutError:
    """Return the SDK's exception for a timeout, with a message that says which timeout."""
    error = openai.APITimeoutError(_request(url))
    error.message, error.args = message, (message,)
    return error


def connection_error(url: str, message: str) -> openai.APIConnectionError:
    """Return the SDK's exception for a failed connection."""
    return openai.APIConnectionError(message=message, request=_request(url))


def invalid_response_error(url: str, content: bytes) -> openai.APIResponseValidationError:
    """Return the SDK's exception for a 200 response with an invalid body."""
    return openai.APIResponseValidationError(httpx2.Response(200, content=content, request=_request(url)), None)


def says_error(response: object) -> bool:
    """Whether the JSON of a 200 response or an event is an error, in any common form."""
    if not isinstance(response, dict):
        return False
    return bool(response.get("error")) or (
        not response.get("choices") and "error" in (response.get("object"), response.get("type"))
    )


def unexpected_response_error(url: str, content: bytes, redactor: Redactor) -> openai.APIError:
    """Return the exception for a 200 response in an unexpected form.

    If it reports an error, that counts as status 502; otherwise the response is invalid.
    """
    response = parse(content)
    is_bare_message = isinstance(response, dict) and not response.keys() & _RESULTS and upstream_message(response)
    if says_error(response) or is_bare_message:
        return status_error(url, 502, {}, content, redactor)
    return invalid_response_error(url, content)


def event_error(url: str, event: object, redactor: Redactor) -> openai.APIError:
    """Return the SDK's exception for an error event in a stream, its body redacted."""
    event = redactor.for_response(event)
    body = (event.get("error") or event) if isinstance(event, dict) else event
    return openai.APIError("The upstream service failed during the stream.", _request(url), body=body)


def status_error(
    url: str, status: int, headers: Mapping[str, str], content: bytes, redactor: Redactor
) -> openai.APIStatusError:
    """Return the SDK's exception for a response with an error status, its text and body redacted."""
    kept_headers = [
        (name, value) for name, value in headers.items() if name.lower() not in _BODY_HEADERS and value.isascii()
    ]
    response = httpx2.Response(status, headers=kept_headers, content=content, request=_request(url))
    body = redactor.for_response(parse(content))
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message") if isinstance(error, dict) and isinstance(body, dict) else None
    text = f"Error code: {status}" + (f" - {message}" if isinstance(message, str) and message else "")
    fallback = openai.InternalServerError if status >= 500 else openai.APIStatusError
    return _STATUS_ERRORS.get(status, fallback)(text, response=response, body=error)


def parse(content: bytes) -> Any:
    """Return the JSON of a body, else its text."""
    try:
        return from_json(content)
    except ValueError:
        return content.decode("utf-8", "replace").strip()


def _request(url: str) -> httpx2.Request:
    return httpx2.Request("POST", url)
