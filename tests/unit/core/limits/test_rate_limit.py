"""What each key may ask for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors.errors import RequestError
from app.core.limits.rate_limit import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def refusal(limits: RateLimiter, key: int = 1) -> tuple[str, str]:
    """What a request that is refused is told: the words of the limit and `Retry-After`."""
    with pytest.raises(RequestError) as caught:
        limits.begin(key)
    answer = caught.value.response
    assert (answer.status, answer.type) == (429, "RateLimitError")
    return answer.message, answer.headers["retry-after"]


def test_requests_of_any_minute_are_counted() -> None:
    clock = Clock()
    limits = RateLimiter(requests_per_minute=2, clock=clock)
    limits.begin(1)
    clock.now_s += 20.5
    limits.begin(1)

    message = "The limit KEY_REQUESTS_PER_MINUTE=2 of this server is reached. Please try again in 40 s."
    assert refusal(limits) == (message, "40")
    clock.now_s += 39.4
    assert refusal(limits)[1] == "1"
    clock.now_s += 0.1
    limits.begin(1)
    assert refusal(limits)[1] == "21"


def test_a_key_waits_until_its_tokens_of_the_minute_are_below_the_limit() -> None:
    clock = Clock()
    limits = RateLimiter(tokens_per_minute=100, clock=clock)
    for tokens in (60, 30, 50):
        limits.begin(1)
        limits.end(1, tokens)
        clock.now_s += 10

    # 140: the first 60 leave 80.
    assert refusal(limits) == (
        "The limit KEY_TOKENS_PER_MINUTE=100 of this server is reached. Please try again in 30 s.",
        "30",
    )
    clock.now_s += 30
    limits.begin(1)


def test_requests_at_the_same_time_are_counted_until_their_end() -> None:
    limits = RateLimiter(concurrent_requests=2)
    limits.begin(1)
    limits.begin(1)

    assert refusal(limits) == (
        "The limit KEY_CONCURRENT_REQUESTS=2 of this server is reached. Please try again in 1 s.",
        "1",
    )
    limits.end(1, 0)
    limits.begin(1)


def test_each_key_has_its_own() -> None:
    limits = RateLimiter(concurrent_requests=1, requests_per_minute=1)
    limits.begin(1)
    limits.begin(2)

    refusal(limits, 1)
    refusal(limits, 2)


def test_a_refused_request_counts_nowhere() -> None:
    clock = Clock()
    limits = RateLimiter(requests_per_minute=2, concurrent_requests=1, clock=clock)
    limits.begin(1)
    refusal(limits)
    limits.end(1, 0)
    limits.begin(1)

    assert limits.running(1) == 1


@settings(max_examples=200, deadline=None, database=None)
@given(
    st.lists(st.tuples(st.sampled_from(["begin", "end", "wait"]), st.integers(0, 40)), max_size=60),
    st.integers(0, 3),
    st.integers(0, 60),
    st.integers(0, 3),
)
def test_no_limit_is_ever_exceeded(steps: list[tuple[str, int]], requests: int, tokens: int, concurrent: int) -> None:
    clock = Clock()
    limits = RateLimiter(
        requests_per_minute=requests, tokens_per_minute=tokens, concurrent_requests=concurrent, clock=clock
    )
    begun: list[float] = []
    ended: list[tuple[float, int]] = []
    running = 0
    for what, number in steps:
        last_minute = clock.now_s - 60
        if what == "wait":
            clock.now_s += number
        elif what == "end" and running:
            limits.end(1, number)
            running, ended = running - 1, [*ended, (clock.now_s, number)]
        elif what == "begin":
            spent = sum(amount for at_s, amount in ended if at_s > last_minute)
            came = sum(at_s > last_minute for at_s in begun)
            allowed = not (
                (requests and came >= requests)
                or (tokens and spent >= tokens)
                or (concurrent and running >= concurrent)
            )
            try:
                limits.begin(1)
            except RequestError:
                assert not allowed
            else:
                assert allowed
                running, begun = running + 1, [*begun, clock.now_s]
        assert limits.running(1) == running
