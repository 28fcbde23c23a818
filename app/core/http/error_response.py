"""A JSON error response."""

from starlette.responses import JSONResponse

from app.core.errors.errors import ErrorAnswer


def error_response(answer: ErrorAnswer) -> JSONResponse:
    """The response that reports `answer`, with its status and headers."""
    return JSONResponse(answer.body(), answer.status, headers=dict(answer.headers))
