"""Calls to OpenAI, with key selection, timeouts and retries."""

import asyncio
from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

import aiohttp
import openai

from app.core.limits.concurrency_limit import ConcurrencyLimiter, Permits
from app.core.metrics import UpstreamMetrics
from app.core.redaction import Redactor
from app.core.request_record import current_record
from app.core.settings.environment import environment_proxy
from app.upstream.api_keys import ApiKey, ApiKeyPool
from app.upstream.http1_endpoint import Endpoint
from app.upstream.http1_protocol import ResponseProtocol
from app.upstream.retry_policy import CallRetries, RetryBudget, key_cooldown_s, requested_wait_s, retry_reason
from app.upstream.sdk_errors import status_error, timeout_error, transport_error
from app.upstream.timeouts import Timeouts
from app.upstream.upstream_response import InFlight, UpstreamResponse

# OpenAI's header to the client's. All others stay here: cookies, account ids, what OpenAI's proxies add.
_FORWARDED_HEADERS = {
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
_MAX_FORWARDED_HEADER_CHARACTERS = 256


class UpstreamRequest(NamedTuple):
    """A request to OpenAI. With `is_stream` the response has no total timeout."""

    method: str
    url: str
    body: bytes | None = None
    is_stream: bool = False


class Upstream:
    """Makes calls to OpenAI. Every failure is raised as the openai SDK's exception class for it.

    `headers` are sent with each call, and one of `keys`. Proxies are taken from the environment (`HTTPS_PROXY`,
    `NO_PROXY` and so on).
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
        self.retry_budget = RetryBudget()
        self.session: aiohttp.ClientSession | None = None
        self._headers = headers
        self._proxy = environment_proxy(base_url)
        self._endpoints: dict[str, Endpoint] = {}

    def attach(self, session: aiohttp.ClientSession) -> None:
        """Use the connections of `session` from now on."""
        self.session = session
        self._endpoints = {}

    async def read(self, call: UpstreamRequest) -> bytes:
        """Make a call and return the whole body of its 200 response.

        Raises:
            Overloaded: there is no permit for the call.
            openai.APIError: the call failed.
        """
        response = await self.open(call)
        try:
            return await response.read_all()
        finally:
            response.close()

    async def open(self, call: UpstreamRequest, permits: Permits | None = None) -> UpstreamResponse:
        """Make a call and return its 200 response with the body unread.

        The call takes one of `permits` or, if none is left, a permit of the concurrency limiter. The caller must
        `close()` the response, which releases the permit.

        Raises:
            Overloaded: there is no permit for the call.
            openai.APIError: the call failed.
        """
        if permits is None or not permits.take():
            await self.concurrency_limiter.acquire()
        try:
            response = await self._call_with_retries(call)
        except BaseException:
            self.concurrency_limiter.release()
            raise
        response.on_close(self.concurrency_limiter.release)
        return response

    def endpoint(self, call: UpstreamRequest) -> Endpoint:
        """Return the endpoint for `call`, one for each URL."""
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

    async def _call_with_retries(self, call: UpstreamRequest) -> UpstreamResponse:
        attempts = _Attempts(self, call)
        while True:
            try:
                return await attempts.make()
            except openai.APIError as exc:
                if not await attempts.prepare_retry(exc):
                    raise


class _Attempts:
    """The attempts of one call: the first and its retries."""

    def __init__(self, upstream: Upstream, call: UpstreamRequest) -> None:
        timeouts = upstream.timeouts
        self._upstream = upstream
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._started_s = self._loop.time()
        self._headers_timeout = timeouts.first_byte if call.is_stream else timeouts.first_byte_or_total
        self._headers_deadline_s = self._started_s + self._headers_timeout.seconds
        self._retries = CallRetries(upstream.max_attempts, upstream.retry_budget)
        self._key = upstream.keys.choose()
        self._failed_keys: list[ApiKey] = []
        self._record = current_record()

    async def make(self) -> UpstreamResponse:
        """Make one attempt and return its 200 response.

        Raises:
            openai.APIError: the attempt failed.
        """
        in_flight = InFlight(self._key, self._upstream.metrics)
        outcome = "failed"
        try:
            response = self._upstream_response(await self._send(), in_flight)
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

    async def prepare_retry(self, failure: openai.APIError) -> bool:
        """Choose the key for another attempt and wait until it is due; False if the call must not be retried."""
        if self._switch_key(failure):
            return True
        reason = retry_reason(failure)
        if reason is None:
            return False
        remaining_s = self._headers_deadline_s - self._loop.time()
        wait_s = self._retries.wait_s(reason, requested_s=requested_wait_s(failure), remaining_s=remaining_s)
        if wait_s is None:
            return False
        await asyncio.sleep(wait_s)
        self._key = self._upstream.keys.choose()
        self._upstream.metrics.retries[reason].inc()
        return True

    async def _send(self) -> ResponseProtocol:
        call, record = self._call, self._record
        record.upstream_attempts += 1
        # The headers of an earlier attempt do not describe this one.
        record.upstream_headers = {}
        try:
            endpoint = self._upstream.endpoint(call)
            return await endpoint.send(self._key.secret, call.body, headers_deadline_s=self._headers_deadline_s)
        except aiohttp.ConnectionTimeoutError as exc:
            raise timeout_error(call.url, self._upstream.timeouts.connect.message) from exc
        except TimeoutError as exc:
            raise timeout_error(call.url, self._headers_timeout.message) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise transport_error(call.url, exc) from exc

    def _upstream_response(self, response: ResponseProtocol, in_flight: InFlight) -> UpstreamResponse:
        self._record.upstream_headers = _forwarded_headers(response.headers, self._upstream.redactor)
        timeouts = self._upstream.timeouts
        total = None if self._call.is_stream else timeouts.total
        if response.status != 200:
            # An error response to a stream request is short: bound it as well, by the timeout for the headers.
            total = self._headers_timeout
        return UpstreamResponse(
            self._call.url, response, in_flight=in_flight, idle=timeouts.idle, total=total, started_s=self._started_s
        )

    def _switch_key(self, failure: openai.APIError) -> bool:
        """Start a cooldown if the key caused the failure. True if another key was chosen for a retry."""
        cooldown_s = key_cooldown_s(failure)
        if cooldown_s is None:
            return False
        keys = self._upstream.keys
        keys.cool_down(self._key, cooldown_s, type(failure).__name__)
        self._failed_keys.append(self._key)
        other_key = keys.choose_other(self._failed_keys)
        if other_key is None:
            return False
        self._key = other_key
        self._upstream.metrics.retries["key"].inc()
        return True


def _forwarded_headers(headers: Mapping[str, str], redactor: Redactor) -> dict[str, str]:
    """Return OpenAI's headers for the client, redacted, without values that are not short printable ASCII."""
    forwarded = {ours: headers[name] for name, ours in _FORWARDED_HEADERS.items() if name in headers}
    # One check covers all values in nearly every response.
    joined = " ".join(forwarded.values())
    if _is_forwardable(joined) and redactor.is_clean(joined):
        return forwarded
    return {name: redactor.for_response(value) for name, value in forwarded.items() if _is_forwardable(value)}


def _is_forwardable(value: str) -> bool:
    return value.isascii() and value.isprintable() and len(value) <= _MAX_FORWARDED_HEADER_CHARACTERS
