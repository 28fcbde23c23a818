"""Who may ask, vLLM's `--api-key`, and how much."""

import secrets
from collections.abc import Awaitable, Sequence
from hashlib import sha256

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors.errors import Refusal
from app.core.http.asgi_scope import asks_for_an_answer, first_header, route_path
from app.core.limits.concurrency_limit import Admission
from app.core.limits.rate_limit import KeyLimits
from app.core.request_record import current_record

GUARDED = ("/v1", "/v2", "/inference", "/cohere")
"""What begins like one of these needs a key, known route or not; all else is open. vLLM's."""


class ClientKeys:
    """The keys that clients may use, kept as digests."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [sha256(key.encode()).digest() for key in keys]

    def position(self, given: bytes) -> int | None:
        """Which key an `Authorization` header brings, from 0; None: none of them.

        Each is compared, and each comparison takes as long whatever is brought.
        """
        scheme, _, key = given.partition(b" ")
        digest = sha256(key).digest()
        matches = [secrets.compare_digest(digest, known) for known in self._digests]
        return matches.index(True) if any(matches) and scheme.lower() == b"bearer" else None


class AccessMiddleware:
    """Refuses what needs a key and brings none, before its body is read, and notes which one was brought.

    `Host` decides nothing.
    """

    def __init__(self, app: ASGIApp, keys: ClientKeys) -> None:
        self.app = app
        self.keys = keys

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The answer, or the refusal."""
        if scope["type"] != "http" or scope["method"] == "OPTIONS":
            return self.app(scope, receive, send)
        position = self.keys.position(first_header(scope, b"authorization") or b"")
        if position is None and route_path(scope).startswith(GUARDED):
            return JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)
        current_record().client_key = position
        return self.app(scope, receive, send)


class OverloadMiddleware:
    """Refuses requests for answers while no call could be made or wait, before their bodies cost anything."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self.app = app
        self.admission = admission

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The answer, or the refusal."""
        if self.admission.is_full and asks_for_an_answer(scope):
            return _refused(self.admission.overloaded())(scope, receive, send)
        return self.app(scope, receive, send)


class KeyLimitsMiddleware:
    """Holds each key to its limits, before the body is read. All who bring none share one account."""

    def __init__(self, app: ASGIApp, limits: KeyLimits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not asks_for_an_answer(scope):
            await self.app(scope, receive, send)
            return
        record = current_record()
        try:
            self.limits.begin(record.client_key)
        except Refusal as exc:
            await _refused(exc)(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        finally:
            self.limits.end(record.client_key, record.tokens_used)


def _refused(refusal: Refusal) -> JSONResponse:
    answer = refusal.answer
    return JSONResponse(answer.body(), answer.status, headers=dict(answer.headers))
