"""Rejects inference requests that arrive while the server shuts down."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors.request_errors import SHUTTING_DOWN
from app.core.http.asgi_scope import is_inference_request
from app.core.http.error_response import json_error_response
from app.core.lifecycle import Lifecycle


class DrainingMiddleware:
    """Responds with 503 to inference requests during shutdown."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self.app = app
        self.lifecycle = lifecycle

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        rejected = self.lifecycle.draining and is_inference_request(scope)
        return _reject(scope, receive, send) if rejected else self.app(scope, receive, send)


async def _reject(scope: Scope, receive: Receive, send: Send) -> None:
    # Read the body first: closing a connection with unread bytes resets it, and the response is lost.
    while (await receive()).get("more_body"):
        pass
    await json_error_response(SHUTTING_DOWN)(scope, receive, send)
