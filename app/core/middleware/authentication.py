"""vLLM's `--api-key`: requires a client key on protected paths."""

import secrets
from collections.abc import Awaitable, Sequence
from hashlib import sha256

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.http.asgi_scope import first_header, route_path
from app.core.request_record import current_record

PROTECTED_PREFIXES = ("/v1", "/v2", "/inference", "/cohere")
"""vLLM's: a path with one of these prefixes needs a key, whether a route exists or not. All others are open."""


class ClientKeys:
    """The valid client keys, stored as digests."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [sha256(key.encode()).digest() for key in keys]

    def position(self, header: bytes) -> int | None:
        """Index of the key in an `Authorization` header; None if it has no valid key.

        Always compares all keys, each in constant time.
        """
        scheme, _, key = header.partition(b" ")
        digest = sha256(key).digest()
        matches = [secrets.compare_digest(digest, known) for known in self._digests]
        return matches.index(True) if any(matches) and scheme.lower() == b"bearer" else None


class AuthenticationMiddleware:
    """Rejects requests that lack a required key before their body is read; records the key of the others.

    The `Host` header has no influence.
    """

    def __init__(self, app: ASGIApp, keys: ClientKeys) -> None:
        self.app = app
        self.keys = keys

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["method"] == "OPTIONS":
            return self.app(scope, receive, send)
        position = self.keys.position(first_header(scope, b"authorization") or b"")
        if position is None and route_path(scope).startswith(PROTECTED_PREFIXES):
            return JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)
        current_record().client_key = position
        return self.app(scope, receive, send)
