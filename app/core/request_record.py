"""Facts about one request, collected on its way for the response headers, the log and the rate limits."""

import os
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import accumulate

HEADER_VALUE_LIMIT_BYTES = 1024
MAX_REQUEST_ID_CHARACTERS = 256
"""Limit on the client's `X-Request-Id`, because every event of a stream repeats it."""


@dataclass(slots=True)
class RequestRecord:
    """Facts that every layer adds; `headers` turns them into response headers when the response starts."""

    client_request_id: str | None = None
    """The client's `X-Request-Id`, unchanged."""
    request_id: str = field(default_factory=lambda: os.urandom(16).hex())
    ignored_params: list[str] = field(default_factory=list)
    """Fields of the request that had no effect on the response, in the schema's order."""
    adjusted_params: dict[str, object] = field(default_factory=dict)
    """Fields that were clamped or mapped, with the value used instead."""
    empty_response: str = ""
    """Why the response has no text."""
    upstream_headers: dict[str, str] = field(default_factory=dict)
    """Headers of the upstream's response that are forwarded to the client."""
    client_key: int | None = None
    """The index of the client's key in VLLM_API_KEY."""
    tokens_used: int = 0
    """Tokens of all calls for the request; an estimate for a call that ended before OpenAI reported its usage."""
    upstream_attempts: int = 0
    """Calls to the upstream, including retries."""

    @property
    def response_id(self) -> str:
        """The `X-Request-Id` of the response: the client's own, else 32 hexadecimal digits."""
        return self.client_request_id or self.request_id

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the response headers that describe the request, in ASGI's form."""
        headers: list[tuple[bytes, bytes]] = [(b"x-request-id", self.response_id.encode("latin-1"))]
        if self.ignored_params:
            headers.append((b"x-ignored-params", _joined(self.ignored_params)))
        if self.adjusted_params:
            adjusted = [f"{name}={value}" for name, value in self.adjusted_params.items()]
            headers.append((b"x-adjusted-params", _joined(adjusted)))
        if self.empty_response:
            headers.append((b"x-empty-response", self.empty_response.encode("latin-1")))
        if self.upstream_attempts:
            headers.append((b"x-upstream-attempts", b"%d" % self.upstream_attempts))
        for name, value in self.upstream_headers.items():
            headers.append((name.encode(), value.encode("latin-1")))
        return headers


def _joined(items: list[str]) -> bytes:
    """Join items with commas, dropping whole items beyond `HEADER_VALUE_LIMIT_BYTES`."""
    lengths = accumulate(len(item) + 1 for item in items)
    kept = items[: sum(1 for length in lengths if length - 1 <= HEADER_VALUE_LIMIT_BYTES)]
    return ",".join(kept).encode("latin-1")


_current: ContextVar[RequestRecord] = ContextVar("request_record")


def begin_record(record: RequestRecord) -> None:
    """Make `record` the current record of this task."""
    _current.set(record)


def current_record() -> RequestRecord:
    """Return the record of the current request; outside a request, a new one that is discarded."""
    return _current.get(None) or RequestRecord()
