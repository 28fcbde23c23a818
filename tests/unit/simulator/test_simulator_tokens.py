"""The splitter everything is counted with."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.simulator import tokens

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@settings(database=None)
@given(TEXT)
def test_pieces_joined_are_the_text(text: str) -> None:
    pieces = tokens.split(text)
    assert "".join(piece.text for piece in pieces) == text
    assert b"".join(token for piece in pieces for token in piece.tokens) == text.encode()


@settings(database=None)
@given(TEXT)
def test_the_count_is_that_of_the_pieces(text: str) -> None:
    assert tokens.count(text) == tokens.total(tokens.split(text))


@settings(database=None)
@given(TEXT, st.integers(0, 30))
def test_the_first_tokens_are_never_more_than_asked_for(text: str, limit: int) -> None:
    assert tokens.total(tokens.first(tokens.split(text), limit)) == min(limit, tokens.count(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there, you!", ["Hello", " there", ",", " you", "!"]),
        ("extraordinary", ["extraor", "dinary"]),
        ("東京🚀", ["東", "京", "🚀"]),
        ("a\n\n b", ["a", "\n\n ", "b"]),
        ("\x00", ["\x00"]),
    ],
    ids=["words", "long word", "one character each", "white space", "control"],
)
def test_text_is_split_as_documented(text: str, expected: list[str]) -> None:
    assert [piece.text for piece in tokens.split(text)] == expected


def test_an_emoji_is_two_tokens() -> None:
    assert tokens.split("🚀")[0].tokens == (b"\xf0\x9f", b"\x9a\x80")
