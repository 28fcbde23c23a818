"""Which failed calls are retried, when and how often (docs/decisions/0005)."""

import math
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Literal

RetryReason = Literal["connect", "closed", "status", "rate_limit"]

MAX_REQUESTED_WAIT_S = 5.0
"""If OpenAI asks for a longer wait, the call is not retried and the client gets the `Retry-After` header."""
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 8.0
BUDGET_PER_CALL = 0.1
MAX_BUDGET = 10.0

# As in the openai SDK, which also retries every other status from 500 on. 429 has rules of its own.
_RETRIED_STATUSES = frozenset({408, 409, 500, 502, 503, 504})


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


def status_retry_reason(status: int, headers: Mapping[str, str]) -> RetryReason | None:
    """Return why a call with this error response should be retried; None if it should not."""
    wait_s, should_retry = retry_after_s(headers), headers.get("x-should-retry")
    if should_retry == "false" or (wait_s is not None and wait_s > MAX_REQUESTED_WAIT_S):
        return None
    if status == 429:
        return "rate_limit" if should_retry == "true" or wait_s is not None else None
    return "status" if should_retry == "true" or status in _RETRIED_STATUSES else None


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
        """Count a retry and return the seconds to wait before it; None if there should be none.

        The wait is `requested_s` plus a random backoff, whose bound doubles with each retry, so that clients do not
        return all at once. A retry must start within `remaining_s`.
        """
        if self._max_retries and reason == "closed":
            # OpenAI closed an idle connection, which is no failure. Such retries end with the idle connections.
            return 0.0
        if self._retries >= self._max_retries:
            return None
        wait_s = requested_s + random.uniform(0, min(FIRST_BACKOFF_S * 2**self._retries, MAX_BACKOFF_S))  # noqa: S311
        if wait_s >= remaining_s or not self._budget.spend():
            return None
        self._retries += 1
        return wait_s
