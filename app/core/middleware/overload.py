"""Rejects inference requests while no upstream call could start or wait."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.http.asgi_scope import is_inference_request
from app.core.http.error_response import json_error_response
from app.core.limits.concurrency_limit import ConcurrencyLimiter


class OverloadMiddleware:
    """Responds with 503 while the concurrency limit and its queue are full, before the body is read."""

    def __init__(self, app: ASGIApp, concurrency_limiter: ConcurrencyLimiter) -> None:
        self.app = app
        self.concurrency_limiter = concurrency_limiter

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if self.concurrency_limiter.is_full and is_inference_request(scope):
            return json_error_response(self.concurrency_limiter.overloaded().response)(scope, receive, send)
        return self.app(scope, receive, send)
