"""What browsers are told about scripts of other origins."""

from collections.abc import Awaitable

from starlette.middleware.cors import CORSMiddleware
from starlette.types import Message, Receive, Scope, Send

VARIES = (b"vary", b"Origin")


class CrossOriginMiddleware(CORSMiddleware):
    """Starlette's, with a shorter way for requests that name no origin, as those of programs do not."""

    # Starlette's is a coroutine; whoever calls it awaits what it returns either way.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]
        """The answer with CORS's headers: where no origin is named, `Vary` alone."""
        if scope["type"] != "http" or b"origin" in dict(scope["headers"]):
            return super().__call__(scope, receive, send)

        async def send_varying(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), VARIES]
            await send(message)

        return self.app(scope, receive, send_varying)
