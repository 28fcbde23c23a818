"""Response framing that uvicorn lacks: for HTTP/1.0, and for requests with `Expect: 100-continue`."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def for_http10(app: ASGIApp, cycle: RequestResponseCycle) -> ASGIApp:
    """Wrap `app` for HTTP/1.0, which has no chunks: closing the connection ends a body of unknown length.

    See RFC 9112, 6.1 and 9.3.
    """

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        until_close = False

        async def send_without_chunks(message: Message) -> None:
            nonlocal until_close
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                until_close = all(name.lower() != b"content-length" for name, _ in headers)
                if until_close:
                    cycle.chunked_encoding = cycle.keep_alive = False
                elif cycle.keep_alive:
                    message = {**message, "headers": [*headers, (b"connection", b"keep-alive")]}
            elif until_close:
                # uvicorn subtracts each chunk from the Content-Length.
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_without_chunks)

    return respond


def closing_if_unread(app: ASGIApp, cycle: RequestResponseCycle) -> ASGIApp:
    """Wrap `app` to close the connection if it responds before it sends `100 Continue`.

    The client may then send the body or its next request, and the two look alike (RFC 9110, 10.1.1).
    """

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_close(message: Message) -> None:
            if cycle.waiting_for_100_continue and cycle.more_body:
                cycle.keep_alive = False
            await send(message)

        await app(scope, receive, send_and_close)

    return respond
