"""Rejects inference requests that arrive while the server shuts down."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors.errors import SHUTTING_DOWN
from app.core.http.asgi_scope import is_inference_request
from app.core.http.error_response import json_error_response
from app.core.lifecycle import Lifecycle


class DrainingMiddleware:
    """Refuses requests for answers that come while the server ends."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self.app = app
        self.lifecycle = lifecycle

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The answer, or the refusal."""
        ends = self.lifecycle.draining and is_inference_request(scope)
        return _refuse_at_the_end(scope, receive, send) if ends else self.app(scope, receive, send)


async def _refuse_at_the_end(scope: Scope, receive: Receive, send: Send) -> None:
    # The body is taken first: a connection closed upon unread bytes is reset, and the answer lost.
    while (await receive()).get("more_body"):
        pass
    await json_error_response(SHUTTING_DOWN)(scope, receive, send)
