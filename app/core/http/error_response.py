"""Error responses as JSON."""

from fastapi import HTTPException
from starlette.responses import JSONResponse

from app.core.errors.request_errors import ErrorResponse


def json_error_response(response: ErrorResponse) -> JSONResponse:
    """The HTTP response for `response`, with its status and headers."""
    return JSONResponse(response.body(), response.status, headers=dict(response.headers))


class BodyRejected(HTTPException):
    """A request body was rejected while it was read. FastAPI passes on only an `HTTPException` at that point."""

    def __init__(self, response: ErrorResponse) -> None:
        super().__init__(response.status, response.message)
        self.response = response
