"""Rejects inference requests while no upstream call could start or wait."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.http.asgi_scope import is_inference_request
from app.core.http.error_response import json_error_response
from app.core.limits.concurrency_limit import ConcurrencyLimiter


class OverloadMiddleware:
    """Refuses requests for answers while no call could be made or wait, before their bodies cost anything."""

    def __init__(self, app: ASGIApp, concurrency_limiter: ConcurrencyLimiter) -> None:
        self.app = app
        self.concurrency_limiter = concurrency_limiter

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The answer, or the refusal."""
        if self.concurrency_limiter.is_full and is_inference_request(scope):
            return json_error_response(self.concurrency_limiter.overloaded().response)(scope, receive, send)
        return self.app(scope, receive, send)
