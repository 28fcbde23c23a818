"""The one place where an exception becomes an HTTP answer."""

from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response

from app.core.errors.errors import INTERNAL_ERROR, ClientDisconnected, ErrorAnswer, Refusal
from app.core.errors.upstream_errors import UpstreamError, log_upstream_failure, upstream_answer
from app.core.errors.validation_errors import validation_answer
from app.core.http.error_response import BodyRefused, error_response
from app.core.request_record import current_record

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that left; nobody receives it, the access log shows it."""


def register_error_handlers(app: FastAPI) -> None:
    """Make `app` answer every failure in vLLM's form."""
    answers: dict[type[Exception], Callable[[Any], ErrorAnswer]] = {
        RequestValidationError: lambda exc: validation_answer(exc.errors()),
        Refusal: attrgetter("answer"),
        BodyRefused: attrgetter("answer"),
        UpstreamError: _of_upstream,
    }
    for exception_class, answer_of in answers.items():
        app.add_exception_handler(exception_class, _rendering(answer_of))
    app.add_exception_handler(ClientDisconnected, _client_left)
    app.add_exception_handler(Exception, _failed)


def _of_upstream(exc: UpstreamError) -> ErrorAnswer:
    answer = upstream_answer(exc)
    log_upstream_failure(exc, answer)
    return answer


def _rendering(answer_of: Callable[[Any], ErrorAnswer]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def render(_request: Request, exc: Exception) -> Response:
        return error_response(answer_of(exc))

    return render


async def _client_left(_request: Request, _exc: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _failed(_request: Request, _exc: Exception) -> Response:
    response = error_response(INTERNAL_ERROR)
    # Starlette sends this answer from outside of every middleware, so the header is added here.
    response.headers["x-request-id"] = current_record().answered_id
    return response
