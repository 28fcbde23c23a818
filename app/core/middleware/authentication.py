"""vLLM's `--api-key`: which requests need a key, and which keys are valid."""

import secrets
from collections.abc import Awaitable, Sequence
from hashlib import sha256

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.http.asgi_scope import first_header, route_path
from app.core.request_record import current_record

PROTECTED_PREFIXES = ("/v1", "/v2", "/inference", "/cohere")
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


class AuthenticationMiddleware:
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
        if position is None and route_path(scope).startswith(PROTECTED_PREFIXES):
            return JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)
        current_record().client_key = position
        return self.app(scope, receive, send)
