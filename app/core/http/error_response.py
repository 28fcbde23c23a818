"""Error responses."""

from fastapi import HTTPException
from starlette.responses import JSONResponse

from app.core.errors.errors import ErrorResponse


def json_error_response(response: ErrorResponse) -> JSONResponse:
    """The response that reports `response`, with its status and headers."""
    return JSONResponse(response.body(), response.status, headers=dict(response.headers))


class BodyRejected(HTTPException):
    """A body that is not read to its end. FastAPI lets only this kind of exception through while it reads."""

    def __init__(self, response: ErrorResponse) -> None:
        super().__init__(response.status, response.message)
        self.response = response
