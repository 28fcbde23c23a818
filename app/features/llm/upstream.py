"""Calls to OpenAI: which key pays, how long is waited, and what is asked once more."""

import asyncio
from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

import aiohttp
import openai

from app.core.admission import Admission, Places
from app.core.errors import is_out_of_money
from app.core.metrics import UpstreamMetrics
from app.core.record import current_record
from app.features.llm.keys import LONGEST_PAUSE_S, Key, KeyRing
from app.features.llm.retries import CallRetries, RetryBudget, RetryReason, asked_wait_s, status_reason
from app.features.llm.sdk_errors import sdk_errors, status_error, timeout_error
from app.features.llm.session import Connection, environment_proxy
from app.features.llm.timeouts import Deadline, Timeouts
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
    `NO_PROXY`).
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
        self.headers = headers
        self.keys = keys
        self.timeouts = timeouts
        self.max_attempts = max_attempts
        self.metrics = metrics
        self.admission = admission
        self.budget = RetryBudget()
        self.session: aiohttp.ClientSession | None = None
        self.connecting = aiohttp.ClientTimeout(total=None, connect=timeouts.connect.seconds)
        self.proxy = environment_proxy(base_url)

    async def read(self, call: Call) -> bytes:
        """The whole body of an accepted answer.

        Raises:
            Overloaded: there is no place for the call.
            openai.APIError: the call failed.
        """
        with closing(await self.open(call)) as answer:
            return await answer.read_all()

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
        self._complete_by = None if call.is_stream else Deadline.after(timeouts.total)
        self._begin_by = Deadline.after(timeouts.first_byte).or_earlier(self._complete_by)
        self._retries = CallRetries(upstream.max_attempts, upstream.budget)
        self._key = upstream.keys.choose()
        self._refused_keys: list[Key] = []
        self._connection = Connection()

    async def make(self) -> Answer:
        """One attempt.

        Raises:
            openai.APIError: it failed.
        """
        lease = Lease(self._key, self._upstream.metrics)
        outcome = "failed"
        try:
            answer = await self._begun(lease)
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
        wait_s = self._retries.wait_s(reason, asked_s=_asked_wait_s(failure), left_s=self._begin_by.left_s())
        if wait_s is None:
            return False
        await asyncio.sleep(wait_s)
        self._key = self._upstream.keys.choose()
        self._upstream.metrics.retries[reason].inc()
        return True

    async def _begun(self, lease: Lease) -> Answer:
        record = current_record()
        record.upstream_attempts += 1
        # An earlier attempt's would be taken for this one's.
        record.upstream_headers = {}
        response = await self._response()
        record.upstream_headers = _passed_headers(response.headers)
        # A refusal of a stream is no stream, and as short as the beginning of an answer.
        complete_by = self._complete_by if response.status == 200 else self._begin_by
        return Answer(response, lease, self._upstream.timeouts.idle, complete_by)

    async def _response(self) -> aiohttp.ClientResponse:
        self._connection = Connection()
        url, timeouts = self._call.url, self._upstream.timeouts
        with sdk_errors(url):
            try:
                async with asyncio.timeout_at(self._begin_by.at_s):
                    return await self._request()
            except aiohttp.ConnectionTimeoutError as exc:
                raise timeout_error(url, timeouts.connect.complaint) from exc
            except TimeoutError as exc:
                raise timeout_error(url, self._begin_by.limit.complaint) from exc

    async def _request(self) -> aiohttp.ClientResponse:
        upstream, call = self._upstream, self._call
        if upstream.session is None:
            raise RuntimeError("OpenAIClient has no session yet: the application's lifespan attaches it")
        return await upstream.session.request(
            call.method,
            call.url,
            data=call.body,
            headers={**upstream.headers, "Authorization": f"Bearer {self._key.secret}"},
            proxy=upstream.proxy,
            timeout=upstream.connecting,
            # A redirect would post the prompt to another host.
            allow_redirects=False,
            trace_request_ctx=self._connection,
        )

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

    def _reason_for_another(self, failure: openai.APIError) -> RetryReason | None:
        if isinstance(failure, openai.APIStatusError):
            return None if is_out_of_money(failure) else status_reason(failure.status_code, failure.response.headers)
        cause = failure.__cause__
        if isinstance(cause, _NO_CONNECTION) and not isinstance(cause, aiohttp.ClientConnectorCertificateError):
            return "connect"
        return "closed" if self._connection.reused and _nothing_came(cause) else None


_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


def _nothing_came(cause: BaseException | None) -> bool:
    """Whether a connection ended before a byte of the answer. After a reset aiohttp does not tell."""
    if isinstance(cause, aiohttp.ServerDisconnectedError):
        # Else it is the beginning of the answer.
        return isinstance(cause.message, str)
    return isinstance(cause, aiohttp.ClientOSError)


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
    return {name: value for name, value in given.items() if _is_plain(value)}


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and len(value) <= _PASSED_HEADER_LIMIT_CHARACTERS
