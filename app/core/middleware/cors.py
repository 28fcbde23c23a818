"""CORS headers."""

from collections.abc import Awaitable

from starlette.middleware.cors import CORSMiddleware
from starlette.types import Message, Receive, Scope, Send

VARY_ORIGIN = (b"vary", b"Origin")


class CrossOriginMiddleware(CORSMiddleware):
    """Starlette's CORS middleware, with a shortcut for requests without `Origin`: they only get `Vary`."""

    # Starlette's is a coroutine function; returning an awaitable is the same to callers.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]
        if scope["type"] != "http" or b"origin" in dict(scope["headers"]):
            return super().__call__(scope, receive, send)

        async def send_with_vary(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), VARY_ORIGIN]
            await send(message)

        return self.app(scope, receive, send_with_vary)
