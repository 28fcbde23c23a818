"""Which failed calls are retried, when and how often (docs/decisions/0005)."""

import math
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Literal

import aiohttp
import openai

from app.core.errors.upstream_errors import is_quota_exhausted
from app.upstream.api_keys import MAX_COOLDOWN_S
from app.upstream.http1_protocol import StaleConnectionError

RetryReason = Literal["connect", "closed", "status", "rate_limit"]

MAX_REQUESTED_WAIT_S = 5.0
"""If OpenAI asks for a longer wait, the call is not retried and the client gets the `Retry-After` header."""
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 8.0
BUDGET_PER_CALL = 0.1
MAX_BUDGET = 10.0

# As in the openai SDK, which also retries every other status from 500 on. 429 has rules of its own.
_RETRIED_STATUSES = frozenset({408, 409, 500, 502, 503, 504})
_CONNECT_ERRORS = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the wait that a response asks for, in seconds: `retry-after-ms`, else `Retry-After` (RFC 9110, 10.2.3)."""
    milliseconds = _non_negative(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    retry_after = headers.get("retry-after")
    seconds = _non_negative(retry_after)
    return seconds if seconds is not None else _seconds_until(retry_after)


def _non_negative(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return max(number, 0.0) if math.isfinite(number) else None


def _seconds_until(date: str | None) -> float | None:
    try:
        return max(parsedate_to_datetime(date or "").timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return None


def requested_wait_s(failure: openai.APIError) -> float:
    """Return the wait that a failed call's response asks for, in seconds; 0 if it asks for none."""
    if not isinstance(failure, openai.APIStatusError):
        return 0.0
    return retry_after_s(failure.response.headers) or 0.0


def retry_reason(failure: openai.APIError) -> RetryReason | None:
    """Return why a failed call should be retried; None if it should not."""
    if isinstance(failure, openai.APIStatusError):
        if is_quota_exhausted(failure):
            return None
        return status_retry_reason(failure.status_code, failure.response.headers)
    cause = failure.__cause__
    if isinstance(cause, StaleConnectionError):
        return "closed"
    if isinstance(cause, _CONNECT_ERRORS) and not isinstance(cause, aiohttp.ClientConnectorCertificateError):
        return "connect"
    return None


def status_retry_reason(status: int, headers: Mapping[str, str]) -> RetryReason | None:
    """Return why a call with this error response should be retried; None if it should not."""
    wait_s, should_retry = retry_after_s(headers), headers.get("x-should-retry")
    if should_retry == "false" or (wait_s is not None and wait_s > MAX_REQUESTED_WAIT_S):
        return None
    if status == 429:
        return "rate_limit" if should_retry == "true" or wait_s is not None else None
    return "status" if should_retry == "true" or status in _RETRIED_STATUSES else None


def key_cooldown_s(failure: openai.APIError) -> float | None:
    """Return how long to avoid the key of a failed call, in seconds; None if other keys would fail as well."""
    if isinstance(failure, openai.RateLimitError):
        return MAX_COOLDOWN_S if is_quota_exhausted(failure) else requested_wait_s(failure)
    if isinstance(failure, openai.AuthenticationError | openai.PermissionDeniedError):
        # A key without access to one model may serve requests for others.
        return 0.0 if failure.code == "model_not_found" else MAX_COOLDOWN_S
    return None


class RetryBudget:
    """Limits retries to a tenth of all calls, so that they do not amplify an outage. Up to ten can be saved."""

    def __init__(self) -> None:
        self._saved = MAX_BUDGET

    def earn(self) -> None:
        """Count a call."""
        if self._saved < MAX_BUDGET:
            self._saved = min(self._saved + BUDGET_PER_CALL, MAX_BUDGET)

    def spend(self) -> bool:
        """Spend one retry; False if the budget is exhausted."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class CallRetries:
    """The retries of one call: at most `max_attempts - 1`, within `budget` and the call's timeout."""

    def __init__(self, max_attempts: int, budget: RetryBudget) -> None:
        self._max_retries = max_attempts - 1
        self._retries = 0
        self._budget = budget
        budget.earn()

    def wait_s(self, reason: RetryReason, *, requested_s: float, remaining_s: float) -> float | None:
        """Count a retry and return the seconds to wait before it; None if the call must not be retried.

        The wait is `requested_s` plus a random backoff, whose bound doubles with each retry, so that clients do not
        return all at once. A retry must start within `remaining_s`.
        """
        if self._max_retries and reason == "closed":
            # OpenAI closed an idle connection: no failure, so not counted. At most one such retry per idle connection.
            return 0.0
        if self._retries >= self._max_retries:
            return None
        wait_s = requested_s + random.uniform(0, min(FIRST_BACKOFF_S * 2**self._retries, MAX_BACKOFF_S))  # noqa: S311
        if wait_s >= remaining_s or not self._budget.spend():
            return None
        self._retries += 1
        return wait_s
