"""Rate limits of client keys."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors.request_errors import RequestError
from app.core.limits.rate_limit import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def rejection(limiter: RateLimiter, key: int = 1) -> tuple[str, str]:
    """The error message and `Retry-After` of a rejected request."""
    with pytest.raises(RequestError) as caught:
        limiter.begin(key)
    response = caught.value.response
    assert (response.status, response.type) == (429, "RateLimitError")
    return response.message, response.headers["retry-after"]


def test_requests_per_minute_are_limited_in_a_sliding_window() -> None:
    clock = Clock()
    limiter = RateLimiter(requests_per_minute=2, clock=clock)
    limiter.begin(1)
    clock.now_s += 20.5
    limiter.begin(1)

    message = "The limit KEY_REQUESTS_PER_MINUTE=2 of this server is reached. Please try again in 40 s."
    assert rejection(limiter) == (message, "40")
    clock.now_s += 39.4
    assert rejection(limiter)[1] == "1"
    clock.now_s += 0.1
    limiter.begin(1)
    assert rejection(limiter)[1] == "21"


def test_tokens_per_minute_are_limited_in_a_sliding_window() -> None:
    clock = Clock()
    limiter = RateLimiter(tokens_per_minute=100, clock=clock)
    for tokens in (60, 30, 50):
        limiter.begin(1)
        limiter.end(1, tokens)
        clock.now_s += 10

    # 140 tokens are used; 80 are left in the window when the first 60 leave it.
    assert rejection(limiter) == (
        "The limit KEY_TOKENS_PER_MINUTE=100 of this server is reached. Please try again in 30 s.",
        "30",
    )
    clock.now_s += 30
    limiter.begin(1)


def test_concurrent_requests_are_limited() -> None:
    limiter = RateLimiter(concurrent_requests=2)
    limiter.begin(1)
    limiter.begin(1)

    assert rejection(limiter) == (
        "The limit KEY_CONCURRENT_REQUESTS=2 of this server is reached. Please try again in 1 s.",
        "1",
    )
    limiter.end(1, 0)
    limiter.begin(1)


def test_each_key_has_its_own_limits() -> None:
    limiter = RateLimiter(concurrent_requests=1, requests_per_minute=1)
    limiter.begin(1)
    limiter.begin(2)

    rejection(limiter, 1)
    rejection(limiter, 2)


def test_a_rejected_request_is_not_counted() -> None:
    clock = Clock()
    limiter = RateLimiter(requests_per_minute=2, concurrent_requests=1, clock=clock)
    limiter.begin(1)
    rejection(limiter)
    limiter.end(1, 0)
    limiter.begin(1)

    assert limiter.running(1) == 1


@settings(max_examples=200, deadline=None, database=None)
@given(
    st.lists(st.tuples(st.sampled_from(["begin", "end", "wait"]), st.integers(0, 40)), max_size=60),
    st.integers(0, 3),
    st.integers(0, 60),
    st.integers(0, 3),
)
def test_no_limit_is_ever_exceeded(steps: list[tuple[str, int]], requests: int, tokens: int, concurrent: int) -> None:
    clock = Clock()
    limiter = RateLimiter(
        requests_per_minute=requests, tokens_per_minute=tokens, concurrent_requests=concurrent, clock=clock
    )
    began: list[float] = []
    ended: list[tuple[float, int]] = []
    running = 0
    for action, number in steps:
        last_minute = clock.now_s - 60
        if action == "wait":
            clock.now_s += number
        elif action == "end" and running:
            limiter.end(1, number)
            running, ended = running - 1, [*ended, (clock.now_s, number)]
        elif action == "begin":
            used_tokens = sum(amount for at_s, amount in ended if at_s > last_minute)
            admitted = sum(at_s > last_minute for at_s in began)
            allowed = not (
                (requests and admitted >= requests)
                or (tokens and used_tokens >= tokens)
                or (concurrent and running >= concurrent)
            )
            try:
                limiter.begin(1)
            except RequestError:
                assert not allowed
            else:
                assert allowed
                running, began = running + 1, [*began, clock.now_s]
        assert limiter.running(1) == running
