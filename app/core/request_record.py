"""What is learned about one request on its way, for the answer's headers and the log."""

import os
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import accumulate

HEADER_VALUE_LIMIT_BYTES = 1024
MAX_REQUEST_ID_CHARACTERS = 256
"""Of a client's own id, which is repeated in every event of a stream."""


@dataclass(slots=True)
class RequestRecord:
    """Filled in by whoever learns something; read when the answer starts."""

    client_request_id: str | None = None
    """The client's `X-Request-Id`, exactly as it came."""
    request_id: str = field(default_factory=lambda: os.urandom(16).hex())
    ignored_params: list[str] = field(default_factory=list)
    """Fields of the request that had no effect on the answer, in the schema's order."""
    adjusted_params: dict[str, object] = field(default_factory=dict)
    """Fields that were clamped or mapped, with the value that was used."""
    empty_response: str = ""
    """Why the response has no text."""
    upstream_headers: dict[str, str] = field(default_factory=dict)
    """Headers of the upstream's answer that the client is to see."""
    client_key: int | None = None
    """Which of VLLM_API_KEY's keys the client brought, from 0."""
    tokens_used: int = 0
    """Tokens of all calls that were made for the request; an estimate where OpenAI did not come to tell."""
    upstream_attempts: int = 0
    """Calls that were made to the upstream, those that failed and were made once more included."""

    @property
    def response_id(self) -> str:
        """The `X-Request-Id` of the answer: the client's own, else 32 hexadecimal digits."""
        return self.client_request_id or self.request_id

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the answer says about the request, header by header, as ASGI has them."""
        told: list[tuple[bytes, bytes]] = [(b"x-request-id", self.response_id.encode("latin-1"))]
        if self.ignored_params:
            told.append((b"x-ignored-params", _joined(self.ignored_params)))
        if self.adjusted_params:
            adjusted = [f"{name}={value}" for name, value in self.adjusted_params.items()]
            told.append((b"x-adjusted-params", _joined(adjusted)))
        if self.empty_response:
            told.append((b"x-empty-response", self.empty_response.encode("latin-1")))
        if self.upstream_attempts:
            told.append((b"x-upstream-attempts", b"%d" % self.upstream_attempts))
        for name, value in self.upstream_headers.items():
            told.append((name.encode(), value.encode("latin-1")))
        return told


def _joined(items: list[str]) -> bytes:
    """The items with commas, as many whole ones as a header should carry."""
    lengths = accumulate(len(item) + 1 for item in items)
    kept = items[: sum(1 for length in lengths if length - 1 <= HEADER_VALUE_LIMIT_BYTES)]
    return ",".join(kept).encode("latin-1")


_current: ContextVar[RequestRecord] = ContextVar("request_record")


def begin_record(record: RequestRecord) -> None:
    """Make `record` the one of the request that this task answers."""
    _current.set(record)


def current_record() -> RequestRecord:
    """The record of the request being answered; outside of one, a record nobody reads."""
    return _current.get(None) or RequestRecord()
