"""Calls to OpenAI: which key pays, how long is waited, and what is asked once more."""

import asyncio
from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

import aiohttp
import openai

from app.core.environment import environment_proxy
from app.core.errors.upstream_errors import is_quota_exhausted
from app.core.limits.concurrency_limit import ConcurrencyLimiter, Permits
from app.core.metrics import UpstreamMetrics
from app.core.redaction import Redactor
from app.core.request_record import current_record
from app.upstream.api_keys import MAX_COOLDOWN_S, ApiKey, ApiKeyPool
from app.upstream.http1_endpoint import Endpoint
from app.upstream.http1_protocol import ResponseProtocol, StaleConnectionError
from app.upstream.retry_policy import CallRetries, RetryBudget, RetryReason, retry_after_s_of, status_reason
from app.upstream.sdk_errors import status_error, timeout_error, transport_error
from app.upstream.timeouts import Timeouts
from app.upstream.upstream_response import InFlight, UpstreamResponse

# Told to the client under these names. All else stays here: cookies, account ids, what OpenAI's proxies add.
_PASSED_HEADERS = {
    "x-request-id": "x-openai-request-id",
    "retry-after": "retry-after",
    "retry-after-ms": "retry-after-ms",
    "openai-processing-ms": "openai-processing-ms",
    **{
        name: name
        for what in ("requests", "tokens")
        for name in (f"x-ratelimit-limit-{what}", f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}")
    },
}
_PASSED_HEADER_LIMIT_CHARACTERS = 256


class UpstreamRequest(NamedTuple):
    """What is asked of OpenAI. With `is_stream` the answer may take as long as it likes, but for its first byte."""

    method: str
    url: str
    body: bytes | None = None
    is_stream: bool = False


class Upstream:
    """Makes calls to OpenAI. Every failure is raised as the openai SDK's exception class for it.

    `headers` go with each call, and a key of `keys`. The environment's proxies are followed (`HTTPS_PROXY`,
    `NO_PROXY` and their like).
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        keys: ApiKeyPool,
        *,
        redactor: Redactor,
        timeouts: Timeouts,
        max_attempts: int,
        metrics: UpstreamMetrics,
        concurrency_limiter: ConcurrencyLimiter,
    ) -> None:
        self.keys = keys
        self.redactor = redactor
        self.timeouts = timeouts
        self.max_attempts = max_attempts
        self.metrics = metrics
        self.concurrency_limiter = concurrency_limiter
        self.budget = RetryBudget()
        self.session: aiohttp.ClientSession | None = None
        self._headers = headers
        self._proxy = environment_proxy(base_url)
        self._endpoints: dict[str, Endpoint] = {}

    def attach(self, session: aiohttp.ClientSession) -> None:
        """Use the connections of `session` from now on."""
        self.session = session
        self._endpoints = {}

    async def read(self, call: UpstreamRequest) -> bytes:
        """The whole body of an accepted answer.

        Raises:
            Overloaded: there is no place for the call.
            openai.APIError: the call failed.
        """
        response = await self.open(call)
        try:
            return await response.read_all()
        finally:
            response.close()

    async def open(self, call: UpstreamRequest, permits: Permits | None = None) -> UpstreamResponse:
        """An accepted answer whose body is unread. The caller must `close()` it, which gives its place back.

        Raises:
            Overloaded: `places` has none left, and there is no other for the call.
            openai.APIError: the call failed.
        """
        if permits is None or not permits.take():
            await self.concurrency_limiter.acquire()
        try:
            response = await self._accepted(call)
        except BaseException:
            self.concurrency_limiter.release()
            raise
        response.at_close(self.concurrency_limiter.release)
        return response

    def endpoint(self, call: UpstreamRequest) -> Endpoint:
        """Where `call` goes; the same one for all calls to its URL."""
        return self._endpoints.get(call.url) or self._new_endpoint(call)

    def _new_endpoint(self, call: UpstreamRequest) -> Endpoint:
        if self.session is None:
            raise RuntimeError("OpenAIClient has no session yet: the application's lifespan attaches it")
        endpoint = self._endpoints[call.url] = Endpoint(
            self.session,
            call.method,
            call.url,
            self._headers,
            proxy=self._proxy,
            connect_s=self.timeouts.connect.seconds,
        )
        return endpoint

    async def _accepted(self, call: UpstreamRequest) -> UpstreamResponse:
        attempts = _Attempts(self, call)
        while True:
            try:
                return await attempts.make()
            except openai.APIError as exc:
                if not await attempts.go_on_after(exc):
                    raise


class _Attempts:
    """The attempts of one call, until one is accepted or no other is of use."""

    def __init__(self, upstream: Upstream, call: UpstreamRequest) -> None:
        timeouts = upstream.timeouts
        self._upstream = upstream
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._begin = timeouts.first_byte if call.is_stream else timeouts.whole_begins
        self._begin_by_s = self._began_s + self._begin.seconds
        self._retries = CallRetries(upstream.max_attempts, upstream.budget)
        self._key = upstream.keys.choose()
        self._refused_keys: list[ApiKey] = []
        self._record = current_record()

    async def make(self) -> UpstreamResponse:
        """One attempt.

        Raises:
            openai.APIError: it failed.
        """
        in_flight = InFlight(self._key, self._upstream.metrics)
        outcome = "failed"
        try:
            response = self._response(await self._begun(), in_flight)
            if response.status == 200:
                outcome = "answered"
                return response
            outcome = "refused"
            with closing(response):
                content = await response.read_all()
            raise status_error(response.url, response.status, response.headers, content, self._upstream.redactor)
        except BaseException as exc:
            in_flight.end()
            outcome = "cancelled" if isinstance(exc, asyncio.CancelledError) else outcome
            raise
        finally:
            self._upstream.metrics.attempts[outcome].inc()

    async def go_on_after(self, failure: openai.APIError) -> bool:
        """Whether another attempt is of use. The wait before it is over when this returns."""
        if self._moved_to_another_key(failure):
            return True
        reason = self._reason_for_another(failure)
        if reason is None:
            return False
        wait_s = self._retries.wait_s(reason, asked_s=_asked_wait_s(failure), left_s=self._left_s())
        if wait_s is None:
            return False
        await asyncio.sleep(wait_s)
        self._key = self._upstream.keys.choose()
        self._upstream.metrics.retries[reason].inc()
        return True

    async def _begun(self) -> ResponseProtocol:
        call, record = self._call, self._record
        record.upstream_attempts += 1
        # An earlier attempt's would be taken for this one's.
        record.upstream_headers = {}
        try:
            return await self._upstream.endpoint(call).send(self._key.secret, call.body, begin_by_s=self._begin_by_s)
        except aiohttp.ConnectionTimeoutError as exc:
            raise timeout_error(call.url, self._upstream.timeouts.connect.complaint) from exc
        except TimeoutError as exc:
            raise timeout_error(call.url, self._begin.complaint) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise transport_error(call.url, exc) from exc

    def _response(self, response: ResponseProtocol, in_flight: InFlight) -> UpstreamResponse:
        self._record.upstream_headers = _passed_headers(response.headers, self._upstream.redactor)
        timeouts = self._upstream.timeouts
        # A refusal of a stream is no stream, and as short as the beginning of an answer.
        whole = self._begin if response.status != 200 else None if self._call.is_stream else timeouts.total
        return UpstreamResponse(
            self._call.url, response, in_flight=in_flight, idle=timeouts.idle, whole=whole, began_s=self._began_s
        )

    def _moved_to_another_key(self, failure: openai.APIError) -> bool:
        pause_s = _key_pause_s(failure)
        if pause_s is None:
            return False
        keys = self._upstream.keys
        keys.cool_down(self._key, pause_s, type(failure).__name__)
        self._refused_keys.append(self._key)
        other = keys.another(self._refused_keys)
        if other is None:
            return False
        self._key = other
        self._upstream.metrics.retries["key"].inc()
        return True

    def _left_s(self) -> float:
        return self._begin_by_s - self._loop.time()

    def _reason_for_another(self, failure: openai.APIError) -> RetryReason | None:
        if isinstance(failure, openai.APIStatusError):
            return None if is_quota_exhausted(failure) else status_reason(failure.status_code, failure.response.headers)
        cause = failure.__cause__
        if isinstance(cause, _NO_CONNECTION) and not isinstance(cause, aiohttp.ClientConnectorCertificateError):
            return "connect"
        return "closed" if isinstance(cause, StaleConnectionError) else None


_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


def _asked_wait_s(failure: openai.APIError) -> float:
    return (retry_after_s_of(failure.response.headers) or 0.0) if isinstance(failure, openai.APIStatusError) else 0.0


def _key_pause_s(failure: openai.APIError) -> float | None:
    """How long the key that failed is of no use, in seconds; None: another would have failed as well."""
    if isinstance(failure, openai.RateLimitError):
        return MAX_COOLDOWN_S if is_quota_exhausted(failure) else _asked_wait_s(failure)
    if isinstance(failure, openai.AuthenticationError | openai.PermissionDeniedError):
        # A model that is closed to one key is no reason to withhold the key from requests for others.
        return 0.0 if failure.code == "model_not_found" else MAX_COOLDOWN_S
    return None


def _passed_headers(headers: Mapping[str, str], redactor: Redactor) -> dict[str, str]:
    """What the client is to see of OpenAI's headers, redacted, as far as it can be sent on in a header."""
    given = {passed: headers[name] for name, passed in _PASSED_HEADERS.items() if name in headers}
    joined = " ".join(given.values())
    if _is_plain(joined) and redactor.is_clean(joined):
        return given
    return {name: redactor.for_response(value) for name, value in given.items() if _is_plain(value)}


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and len(value) <= _PASSED_HEADER_LIMIT_CHARACTERS
