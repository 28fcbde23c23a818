"""Error responses."""

from fastapi import HTTPException
from starlette.responses import JSONResponse

from app.core.errors.errors import ErrorAnswer


def error_response(answer: ErrorAnswer) -> JSONResponse:
    """The response that reports `answer`, with its status and headers."""
    return JSONResponse(answer.body(), answer.status, headers=dict(answer.headers))


class BodyRefused(HTTPException):
    """A body that is not read to its end. FastAPI lets only this kind of exception through while it reads."""

    def __init__(self, answer: ErrorAnswer) -> None:
        super().__init__(answer.status, answer.message)
        self.answer = answer
