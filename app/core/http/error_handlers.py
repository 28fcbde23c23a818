"""Turns exceptions into HTTP error responses."""

from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response

from app.core.errors.request_errors import INTERNAL_ERROR, ClientDisconnected, ErrorResponse, RequestError
from app.core.errors.upstream_errors import UpstreamError, error_response_for, log_upstream_failure
from app.core.errors.validation_errors import validation_error_response
from app.core.http.error_response import BodyRejected, json_error_response
from app.core.request_record import current_record

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that disconnected. Only the access log shows it."""


def register_error_handlers(app: FastAPI) -> None:
    """Have `app` report every failure in vLLM's form."""
    responses: dict[type[Exception], Callable[[Any], ErrorResponse]] = {
        RequestValidationError: lambda exc: validation_error_response(exc.errors()),
        RequestError: attrgetter("response"),
        BodyRejected: attrgetter("response"),
        UpstreamError: _upstream_error,
    }
    for exception_class, response_for in responses.items():
        app.add_exception_handler(exception_class, _renderer(response_for))
    app.add_exception_handler(ClientDisconnected, _client_disconnected)
    app.add_exception_handler(Exception, _internal_error)


def _upstream_error(exc: UpstreamError) -> ErrorResponse:
    response = error_response_for(exc)
    log_upstream_failure(exc, response)
    return response


def _renderer(response_for: Callable[[Any], ErrorResponse]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def render(_request: Request, exc: Exception) -> Response:
        return json_error_response(response_for(exc))

    return render


async def _client_disconnected(_request: Request, _exc: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _internal_error(_request: Request, _exc: Exception) -> Response:
    response = json_error_response(INTERNAL_ERROR)
    # Starlette sends this response outside all middleware, so the header is added here.
    response.headers["x-request-id"] = current_record().response_id
    return response
