"""Errors of the simulator: one exception that carries OpenAI's status and error body."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

INVALID_REQUEST = "invalid_request_error"

NOT_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library "
    "correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON. If you have trouble "
    "figuring out how to fix this, please contact us through our help center at help.openai.com.)"
)


@dataclass(frozen=True)
class ErrorBody:
    """The four members of OpenAI's error object; ``param`` and ``code`` may be null."""

    message: str
    type: str = INVALID_REQUEST
    param: str | None = None
    code: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return OpenAI's body: the members under the key ``error``."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class OpenAIError(Exception):
    """An error response; ``headers`` are added to those of every response."""

    def __init__(self, status: int, body: ErrorBody, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(body.message)
        self.status = status
        self.body = body
        self.headers = headers or {}


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> OpenAIError:
    """Return OpenAI's 400 for a request it cannot accept."""
    return OpenAIError(400, ErrorBody(message, param=param, code=code))


def not_json() -> OpenAIError:
    """Return OpenAI's 400 for a body that is not a JSON object, or whose content type is not JSON."""
    return bad_request(NOT_JSON)


def model_not_found(name: str) -> OpenAIError:
    """Return OpenAI's 404 for a model that is unknown or not available to this key."""
    message = f"The model `{name}` does not exist or you do not have access to it."
    return OpenAIError(404, ErrorBody(message, code="model_not_found"))


def model_ended(name: str) -> OpenAIError:
    """Return OpenAI's 404 for a model that has been shut down."""
    message = f"The model `{name}` has been deprecated, learn more here: https://platform.openai.com/docs/deprecations"
    return OpenAIError(404, ErrorBody(message, code="model_not_found"))
