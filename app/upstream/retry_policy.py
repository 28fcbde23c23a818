"""Which failed calls are made once more, when, and how many of them (docs/decisions/0005)."""

import math
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Literal

RetryReason = Literal["connect", "closed", "status", "rate_limit"]

LONGEST_ASKED_WAIT_S = 5.0
"""Where OpenAI asks for more, the client is asked to wait instead: `Retry-After` is passed on."""
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 8.0
EARNED_PER_CALL = 0.1
SAVED_AT_MOST = 10.0

# The openai SDK repeats these too, and all others from 500 on. A 429 is a matter of its own.
_RETRIED_STATUSES = frozenset({408, 409, 500, 502, 503, 504})


def retry_after_s_of(headers: Mapping[str, str]) -> float | None:
    """The seconds that an answer asks to wait: `retry-after-ms`, else `Retry-After` (RFC 9110), where it has one."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    asked = headers.get("retry-after")
    seconds = _number(asked)
    return seconds if seconds is not None else _seconds_until(asked)


def _number(text: str | None) -> float | None:
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


def status_reason(status: int, headers: Mapping[str, str]) -> RetryReason | None:
    """Why a call that was answered with an error is made once more; None: it is not."""
    asked, told = retry_after_s_of(headers), headers.get("x-should-retry")
    if told == "false" or (asked is not None and asked > LONGEST_ASKED_WAIT_S):
        return None
    if status == 429:
        return "rate_limit" if told == "true" or asked is not None else None
    return "status" if told == "true" or status in _RETRIED_STATUSES else None


class RetryBudget:
    """Keeps an outage from being multiplied: each call earns a tenth of a retry, and at most ten are saved."""

    def __init__(self) -> None:
        self._saved = SAVED_AT_MOST

    def earn(self) -> None:
        """One more call is made."""
        if self._saved < SAVED_AT_MOST:
            self._saved = min(self._saved + EARNED_PER_CALL, SAVED_AT_MOST)

    def spend(self) -> bool:
        """Whether one more retry may be made, which is then counted as made."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class CallRetries:
    """The retries of one call: at most `max_attempts - 1`, within `budget`, and none that would begin too late."""

    def __init__(self, max_attempts: int, budget: RetryBudget) -> None:
        self._most = max_attempts - 1
        self._made = 0
        self._budget = budget
        budget.earn()

    def wait_s(self, reason: RetryReason, *, asked_s: float, left_s: float) -> float | None:
        """Seconds to wait before the call is made once more, with `left_s` to its limit; None: it is not.

        The wait is what was asked for and, so that clients do not come back all at once, any time up to a bound
        that doubles with each retry.
        """
        if self._most and reason == "closed":
            # No fault of OpenAI's: it closed an idle connection. There are no more such retries than such connections.
            return 0.0
        if self._made >= self._most:
            return None
        wait_s = asked_s + random.uniform(0, min(FIRST_BACKOFF_S * 2**self._made, LONGEST_BACKOFF_S))  # noqa: S311
        if wait_s >= left_s or not self._budget.spend():
            return None
        self._made += 1
        return wait_s
