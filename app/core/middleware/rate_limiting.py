"""Enforces the rate limits of client keys."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors.request_errors import RequestError
from app.core.http.asgi_scope import is_inference_request
from app.core.http.error_response import json_error_response
from app.core.limits.rate_limit import RateLimiter
from app.core.request_record import current_record


class RateLimitMiddleware:
    """Rejects requests beyond their key's limits before the body is read. Clients without a key share one limit."""

    def __init__(self, app: ASGIApp, rate_limiter: RateLimiter) -> None:
        self.app = app
        self.rate_limiter = rate_limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_inference_request(scope):
            await self.app(scope, receive, send)
            return
        record = current_record()
        try:
            self.rate_limiter.begin(record.client_key)
        except RequestError as exc:
            await json_error_response(exc.response)(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        finally:
            self.rate_limiter.end(record.client_key, record.tokens_used)
