"""Secrets are found in plain text and in encoded forms."""

import html
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.redaction import Redactor, proxy_secrets

KEY = "aB3+d/e=f&g'h"
REDACTOR = Redactor([KEY, "plain-0123456789"])

ENCODINGS: dict[str, Callable[[str], str]] = {
    "JSON of PHP": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "JSON of .NET": lambda text: "".join(f"\\u{ord(c):04X}" for c in text),
    "JavaScript": lambda text: "".join(f"\\x{ord(c):02x}" for c in text),
    "percent": lambda text: quote(text, safe=""),
    "percent, all": lambda text: "".join(f"%{ord(c):02x}" for c in text),
    "HTML": html.escape,
    "HTML, decimal": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "HTML, hexadecimal": lambda text: "".join(f"&#x{ord(c):x};" for c in text),
    "Python": lambda text: repr(text + '"')[1:-2],
    "nothing": str,
}


def utf16_read_as_utf8(text: str) -> str:
    return text.encode("utf-16-le").decode()


encodings = st.sampled_from(sorted(ENCODINGS))


def redacted(text: str, characters: int = 10_000) -> str:
    return REDACTOR.redact(text, characters)


@pytest.mark.parametrize("inner", ENCODINGS)
@pytest.mark.parametrize("outer", [*ENCODINGS.values(), utf16_read_as_utf8])
def test_a_key_is_found_in_an_encoding_of_an_encoding(outer: Callable[[str], str], inner: str) -> None:
    written = outer(ENCODINGS[inner](KEY))

    assert redacted(f"Wrong key: {written}, again {KEY}.") == "Wrong key: [redacted], again [redacted]."


@given(st.lists(encodings, min_size=len(KEY), max_size=len(KEY)), st.text(max_size=20), st.text(max_size=20))
def test_a_key_is_found_if_each_character_has_its_own_encoding(names: list[str], before: str, after: str) -> None:
    written = "".join(ENCODINGS[name](character) for name, character in zip(names, KEY, strict=True))

    assert f"{before} [redacted] {after}" == redacted(f"{before} {written} {after}") or "[redacted]" in before + after


@given(st.text())
def test_a_text_without_secrets_is_unchanged(text: str) -> None:
    assert redacted(text) == text


def test_no_part_of_a_key_is_left_at_the_cut() -> None:
    written = ENCODINGS["JSON of .NET"](KEY)
    text = f"0123456789{written}{KEY}{'x' * 200}"

    for characters in range(len(text)):
        cut = redacted(text, characters)
        assert cut in (text[:characters][:10], f"0123456789[redacted][redacted]{cut[30:]}", "0123456789[redacted]")
        assert not cut[30:].strip("x")


def test_a_key_that_begins_with_another_is_redacted_whole() -> None:
    assert Redactor(["key-12345", "key-1234567"]).redact("key-1234567, key-12345", 99) == "[redacted], [redacted]"


def test_a_short_secret_is_replaced_only_as_a_whole_word() -> None:
    assert Redactor(["token"]).redact("token=token, 8192 tokens", 99) == "[redacted]=[redacted], 8192 tokens"


def test_every_text_of_a_json_value_is_redacted() -> None:
    assert REDACTOR.for_response({KEY: [KEY, 1, None, {"a": f"b {KEY}"}]}) == {
        "[redacted]": ["[redacted]", 1, None, {"a": "b [redacted]"}]
    }


def test_the_total_text_of_an_error_is_limited() -> None:
    error = REDACTOR.for_response({"message": "%41" * 4_000, "param": "b" * 9_000, "code": KEY})

    assert error == {"message": "%41" * 4_000, "param": "b" * (16_000 - 12_000 - len("messageparam")), "": ""}


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        (
            "Incorrect API key provided: sk-proj-a1B2****wxyz. Find it",
            "Incorrect API key provided: [redacted]. Find it",
        ),
        ("key sk-abcd...wxyz, again", "key [redacted], again"),
        ("key \\u0073k-abcdwxyz, again", "key [redacted], again"),
        ("in organization org-AbC123 on tokens", "in organization [redacted] on tokens"),
        ("in organization Acme-7 on tokens", "in organization [redacted] on tokens"),
        ("Project `proj_9xY` does not have access", "Project `[redacted]` does not have access"),
        ("We asked for a task-based answer", "We asked for a task-based answer"),
        ("by http://me:pass@proxy:3128, 407", "by http://[redacted]@proxy:3128, 407"),
        ("see https://example.com/@someone", "see https://example.com/@someone"),
    ],
)
def test_anything_like_a_key_or_an_account_id_is_redacted(text: str, safe: str) -> None:
    assert redacted(text) == safe


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("http://me:p%40ssw0rd@proxy:3128", ["p@ssw0rd", "p%40ssw0rd", "bWU6cEBzc3cwcmQ="]),
        ("http://me:pa/ssw0rd@proxy", ["pa/ssw0rd"]),
        ("http://only-a-token@proxy", ["only-a-token"]),
        ("me:passw0rd@proxy:3128", ["passw0rd"]),
    ],
)
def test_a_proxys_password_is_a_secret_in_every_form(url: str, written: list[str]) -> None:
    redactor = Redactor(proxy_secrets(url))

    assert [redactor.redact(f"({text})", 99) for text in written] == ["([redacted])"] * len(written)


def test_a_proxy_without_a_password_has_no_secret() -> None:
    assert proxy_secrets("http://proxy:3128") == proxy_secrets(None) == []
