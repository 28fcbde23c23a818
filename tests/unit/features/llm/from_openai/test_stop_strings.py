"""Stop strings in a text that comes in pieces."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.features.llm.from_openai.stop_strings import StopFinder

FOUND = [
    pytest.param("one\ntwo", ["\n"], "one", "\n", id="in the middle"),
    pytest.param("one two", ["\n"], "one two", None, id="not there"),
    pytest.param("one STO", ["STOP"], "one STO", None, id="only its beginning"),
    pytest.param("STOP", ["STOP"], "", "STOP", id="nothing else"),
    pytest.param("one STOP two STOP", ["STOP"], "one ", "STOP", id="the first of two"),
    pytest.param("a b c", ["c", "b"], "a ", "b", id="the one that ends first"),
    pytest.param("abcd", ["abcd", "bc"], "a", "bc", id="one inside another ends first"),
    pytest.param("abc", ["abc", "bc"], "", "abc", id="same end: listed first, the longer"),
    pytest.param("abc", ["bc", "abc"], "a", "bc", id="same end: listed first, the shorter"),
    pytest.param("aaab", ["aab"], "a", "aab", id="repeated characters"),
    pytest.param("aab", ["aab", "aa"], "", "aa", id="a beginning of another"),
    pytest.param("ababac", ["abac"], "ab", "abac", id="begins again within itself"),
    pytest.param("안녕하세요 🎉🎉 끝", ["🎉 끝"], "안녕하세요 🎉", "🎉 끝", id="Hangul and emoji"),
    pytest.param("text", [], "text", None, id="no stop strings"),
    pytest.param("text", [""], "text", None, id="an empty stop string"),
    pytest.param("", ["x"], "", None, id="empty text"),
]


@pytest.mark.parametrize(("text", "stops", "shown", "matched"), FOUND)
def test_the_text_ends_before_its_stop_string(text: str, stops: list[str], shown: str, matched: str | None) -> None:
    finder = StopFinder(stops, include=False)
    assert (finder.feed(text) + finder.finish(), finder.matched) == (shown, matched)


@pytest.mark.parametrize(("text", "stops", "shown", "matched"), FOUND)
def test_an_included_stop_string_stays(text: str, stops: list[str], shown: str, matched: str | None) -> None:
    finder = StopFinder(stops, include=True)
    assert finder.feed(text) + finder.finish() == shown + (matched or "")


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize(("text", "stops", "shown", "matched"), FOUND)
def test_every_cut_gives_the_same_text(
    text: str, stops: list[str], shown: str, matched: str | None, include: bool
) -> None:
    expected = shown + (matched or "") * include
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            finder = StopFinder(stops, include=include)
            pieces = [finder.feed(piece) for piece in (text[:first], text[first:second], text[second:])]
            assert "".join([*pieces, finder.finish()]) == expected
            assert finder.matched == matched


def test_only_a_possible_stop_string_is_held_back() -> None:
    finder = StopFinder(["aab", "xy"], include=False)
    assert [finder.feed(piece) for piece in ("one", " a", "a", "a", "c", "x", "x", "z")] == [
        "one",
        " ",
        "",
        "a",
        "aac",
        "",
        "x",
        "xz",
    ]


def test_nothing_comes_after_a_match() -> None:
    finder = StopFinder(["."], include=False)
    assert finder.feed("one. two") == "one"
    assert (finder.feed(" three."), finder.finish(), finder.matched) == ("", "", ".")


def test_held_back_text_is_returned_once() -> None:
    finder = StopFinder(["STOP"], include=False)
    assert (finder.feed("one ST"), finder.finish(), finder.finish()) == ("one ", "ST", "")


def found(text: str, stops: list[str], *, include: bool) -> tuple[str, str | None]:
    """The reference, on the whole text."""
    for end in range(1, len(text) + 1):
        for stop in stops:
            if stop and text[:end].endswith(stop):
                return text[: end if include else end - len(stop)], stop
    return text, None


def may_still_match(text: str, stops: list[str]) -> int:
    """Length of the longest suffix of `text` that starts a stop string."""
    return max((size for stop in stops for size in range(len(stop)) if text.endswith(stop[:size])), default=0)


@given(
    st.lists(st.text("ab🎉끝", max_size=3), max_size=12),
    st.lists(st.text("ab🎉끝", max_size=5), max_size=4),
    st.booleans(),
)
def test_any_pieces_give_the_same_text(pieces: list[str], stops: list[str], include: bool) -> None:
    finder = StopFinder(stops, include=include)
    fed = shown = ""
    for piece in pieces:
        fed += piece
        shown += finder.feed(piece)
        if finder.matched is None:
            assert shown == fed[: len(fed) - may_still_match(fed, stops)]

    assert (shown + finder.finish(), finder.matched) == found("".join(pieces), stops, include=include)


@pytest.mark.parametrize("stop", ["a" * 20_000 + "b", "b" * 20_000], ids=["always almost there", "never there"])
def test_the_time_per_character_does_not_grow_with_the_stop_string(stop: str) -> None:
    def seconds(stop: str) -> float:
        finder = StopFinder([stop], include=False)
        start = time.process_time()
        for _ in range(30_000):
            finder.feed("a")
        return time.process_time() - start

    # The same, where each character costs the same; thousands of times, where it costs the length of the stop string.
    assert seconds(stop) < 20 * seconds(stop[-2:])
