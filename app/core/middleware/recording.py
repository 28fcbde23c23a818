"""Begins the record of each request and copies it into the response headers."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.http.asgi_scope import PROBE_PATHS, first_header, is_inference_request
from app.core.metrics import ServerLoad
from app.core.request_record import RequestRecord, begin_record


class RequestRecordMiddleware:
    """Begins each request's record, adds its headers to the response, and counts inference requests in flight."""

    def __init__(self, app: ASGIApp, load: ServerLoad) -> None:
        self.app = app
        self.load = load

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBE_PATHS:
            await self.app(scope, receive, send)
            return
        request_id = first_header(scope, b"x-request-id")
        record = RequestRecord(client_request_id=request_id.decode("latin-1") if request_id else None)
        begin_record(record)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = record.headers()
                names = dict(added)
                message["headers"] = [header for header in message["headers"] if header[0] not in names] + added
            await send(message)

        is_inference = is_inference_request(scope)
        self.load.requests += is_inference
        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            self.load.requests -= is_inference
