"""Who may ask: vLLM's `--api-key`."""

import secrets
from collections.abc import Iterable, Sequence
from hashlib import sha256

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

GUARDED = ("/v1", "/v2", "/inference", "/cohere")
"""What begins like one of these needs a key, known route or not; all else is open. vLLM's."""


class ClientKeys:
    """The keys that clients may use, kept as digests."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [sha256(key.encode()).digest() for key in keys]

    def position(self, headers: Iterable[tuple[bytes, bytes]]) -> int | None:
        """Which key a request brings, from 0; None: none of them.

        Each is compared, and each comparison takes as long whatever is brought.
        """
        given = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        digest = sha256(key).digest()
        matches = [secrets.compare_digest(digest, known) for known in self._digests]
        return matches.index(True) if any(matches) and scheme.lower() == b"bearer" else None


class AccessMiddleware:
    """Refuses what needs a key and brings none, before its body is read. `Host` decides nothing."""

    def __init__(self, app: ASGIApp, keys: ClientKeys) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] == "http" and scope["method"] != "OPTIONS" and scope["path"].startswith(GUARDED)
        if guarded and self.keys.position(scope["headers"]) is None:
            await JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)
            return
        await self.app(scope, receive, send)
