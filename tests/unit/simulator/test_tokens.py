"""Splitting text into OpenAI's tokens, and counting them."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.simulator import tokens

TEXTS = Path(__file__).parents[1] / "core" / "tokens.jsonl"
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
def test_first_never_exceeds_the_limit(text: str, limit: int) -> None:
    assert tokens.total(tokens.first(tokens.split(text), limit)) == min(limit, tokens.count(text))


def test_text_in_every_script_has_openais_tokens() -> None:
    for line in TEXTS.read_text().splitlines():
        known = json.loads(line)
        written = tokens.tokens_of(tokens.split(known["text"]))
        assert written == [tokens.token(number) for number in known["o200k_base"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there, you!", ["Hello", " there", ",", " you", "!"]),
        ("extraordinary", ["extra", "ordinary"]),
        ("東京🚀", ["東京", "🚀"]),
        ("a\n\n b", ["a", "\n\n", " b"]),
        ("\x00", ["\x00"]),
        ("<|endoftext|>", ["<", "|", "end", "of", "text", "|", ">"]),
    ],
    ids=["words", "long word", "characters", "white space", "control", "a special token's name"],
)
def test_text_is_split_as_openai_splits_it(text: str, expected: list[str]) -> None:
    assert [piece.text for piece in tokens.split(text)] == expected


def test_an_emoji_may_be_two_tokens() -> None:
    assert tokens.split("🚀")[0].tokens == (b"\xf0\x9f\x9a", b"\x80")


def test_invalid_utf8_becomes_replacement_characters() -> None:
    pieces = tokens.grouped([b"a\xf0", b"b", b"\xf0\x9f"])
    assert [piece.text for piece in pieces] == ["a\ufffdb", ""]
    assert tokens.total(pieces) == 3
