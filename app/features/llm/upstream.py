"""Calls to OpenAI: which key pays, how long is waited, and what is asked once more."""

import asyncio
from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

import aiohttp
import openai

from app.core.admission import Admission, Places
from app.core.environment import environment_proxy
from app.core.errors import is_out_of_money
from app.core.metrics import UpstreamMetrics
from app.core.record import current_record
from app.features.llm.http1 import Endpoint
from app.features.llm.http1_response import Response, StaleConnectionError
from app.features.llm.keys import LONGEST_PAUSE_S, Key, KeyRing
from app.features.llm.retries import CallRetries, RetryBudget, RetryReason, asked_wait_s, status_reason
from app.features.llm.sdk_errors import status_error, timeout_error, transport_error
from app.features.llm.timeouts import Timeouts
from app.features.llm.upstream_answer import Answer, Lease

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


class Call(NamedTuple):
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
        keys: KeyRing,
        *,
        timeouts: Timeouts,
        max_attempts: int,
        metrics: UpstreamMetrics,
        admission: Admission,
    ) -> None:
        self.keys = keys
        self.timeouts = timeouts
        self.max_attempts = max_attempts
        self.metrics = metrics
        self.admission = admission
        self.budget = RetryBudget()
        self.session: aiohttp.ClientSession | None = None
        self._headers = headers
        self._proxy = environment_proxy(base_url)
        self._endpoints: dict[str, Endpoint] = {}

    def attach(self, session: aiohttp.ClientSession) -> None:
        """Use the connections of `session` from now on."""
        self.session = session
        self._endpoints = {}

    async def read(self, call: Call) -> bytes:
        """The whole body of an accepted answer.

        Raises:
            Overloaded: there is no place for the call.
            openai.APIError: the call failed.
        """
        answer = await self.open(call)
        try:
            return await answer.read_all()
        finally:
            answer.close()

    async def open(self, call: Call, places: Places | None = None) -> Answer:
        """An accepted answer whose body is unread. The caller must `close()` it, which gives its place back.

        Raises:
            Overloaded: `places` has none left, and there is no other for the call.
            openai.APIError: the call failed.
        """
        if places is None or not places.take():
            await self.admission.enter()
        try:
            answer = await self._accepted(call)
        except BaseException:
            self.admission.leave()
            raise
        answer.at_close(self.admission.leave)
        return answer

    def endpoint(self, call: Call) -> Endpoint:
        """Where `call` goes; the same one for all calls to its URL."""
        return self._endpoints.get(call.url) or self._new_endpoint(call)

    def _new_endpoint(self, call: Call) -> Endpoint:
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

    async def _accepted(self, call: Call) -> Answer:
        attempts = _Attempts(self, call)
        while True:
            try:
                return await attempts.make()
            except openai.APIError as exc:
                if not await attempts.go_on_after(exc):
                    raise


class _Attempts:
    """The attempts of one call, until one is accepted or no other is of use."""

    def __init__(self, upstream: Upstream, call: Call) -> None:
        timeouts = upstream.timeouts
        self._upstream = upstream
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._begin = timeouts.first_byte if call.is_stream else timeouts.whole_begins
        self._begin_by_s = self._began_s + self._begin.seconds
        self._retries = CallRetries(upstream.max_attempts, upstream.budget)
        self._key = upstream.keys.choose()
        self._refused_keys: list[Key] = []
        self._record = current_record()

    async def make(self) -> Answer:
        """One attempt.

        Raises:
            openai.APIError: it failed.
        """
        lease = Lease(self._key, self._upstream.metrics)
        outcome = "failed"
        try:
            answer = self._answer(await self._begun(), lease)
            if answer.status == 200:
                outcome = "answered"
                return answer
            outcome = "refused"
            with closing(answer):
                content = self._upstream.keys.redacted(await answer.read_all())
            raise status_error(answer.url, answer.status, answer.headers, content)
        except BaseException as exc:
            lease.end()
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

    async def _begun(self) -> Response:
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

    def _answer(self, response: Response, lease: Lease) -> Answer:
        self._record.upstream_headers = _passed_headers(response.headers)
        timeouts = self._upstream.timeouts
        # A refusal of a stream is no stream, and as short as the beginning of an answer.
        whole = self._begin if response.status != 200 else None if self._call.is_stream else timeouts.total
        return Answer(self._call.url, response, lease=lease, idle=timeouts.idle, whole=whole, began_s=self._began_s)

    def _moved_to_another_key(self, failure: openai.APIError) -> bool:
        pause_s = _key_pause_s(failure)
        if pause_s is None:
            return False
        keys = self._upstream.keys
        keys.set_aside(self._key, pause_s, type(failure).__name__)
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
            return None if is_out_of_money(failure) else status_reason(failure.status_code, failure.response.headers)
        cause = failure.__cause__
        if isinstance(cause, _NO_CONNECTION) and not isinstance(cause, aiohttp.ClientConnectorCertificateError):
            return "connect"
        return "closed" if isinstance(cause, StaleConnectionError) else None


_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


def _asked_wait_s(failure: openai.APIError) -> float:
    return (asked_wait_s(failure.response.headers) or 0.0) if isinstance(failure, openai.APIStatusError) else 0.0


def _key_pause_s(failure: openai.APIError) -> float | None:
    """How long the key that failed is of no use, in seconds; None: another would have failed as well."""
    if isinstance(failure, openai.RateLimitError):
        return LONGEST_PAUSE_S if is_out_of_money(failure) else _asked_wait_s(failure)
    if isinstance(failure, openai.AuthenticationError | openai.PermissionDeniedError):
        # A model that is closed to one key is no reason to withhold the key from requests for others.
        return 0.0 if failure.code == "model_not_found" else LONGEST_PAUSE_S
    return None


def _passed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What the client is to see of OpenAI's headers, as far as it can be sent on in a header."""
    given = {passed: headers[name] for name, passed in _PASSED_HEADERS.items() if name in headers}
    if _is_plain("".join(given.values())):
        return given
    return {name: value for name, value in given.items() if _is_plain(value)}


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and len(value) <= _PASSED_HEADER_LIMIT_CHARACTERS
