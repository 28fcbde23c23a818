"""The value of an envelope that comes in pieces."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.features.llm.from_openai.json_envelope import EnvelopeReader

BARE = [
    pytest.param('{"value":"yes"}', "yes", id="plain"),
    pytest.param('{"value":""}', "", id="empty"),
    pytest.param(' \n{ "value"\t:\r\n"yes" \n} \n', "yes", id="whitespace"),
    pytest.param(r'{"value":"a\"b\\c\/d\b\f\n\r\t"}', 'a"b\\c/d\b\f\n\r\t', id="escapes"),
    pytest.param(r'{"value":"\\u0041\\"}', "\\u0041\\", id="escaped backslashes"),
    pytest.param(r'{"value":"\uc548\ub155 \u0000"}', "안녕 \0", id="escaped Hangul and NUL"),
    pytest.param('{"value":"안녕 🎉"}', "안녕 🎉", id="Hangul and emoji"),
    pytest.param(r'{"value":"\ud83c\udf89!"}', "🎉!", id="surrogate pair"),
    pytest.param(r'{"value":"a\ud83c"}', "a\ufffd", id="first half alone"),
    pytest.param(r'{"value":"\ud83cb"}', "\ufffdb", id="first half, then text"),
    pytest.param(r'{"value":"\ud83c\ud83c\udf89"}', "\ufffd🎉", id="first half, then a pair"),
    pytest.param(r'{"value":"\ud83c\u0041\ud83c\n"}', "\ufffdA\ufffd\n", id="first half, then another escape"),
    pytest.param(r'{"value":"\udf89\ud83c"}', "\ufffd\ufffd", id="halves the wrong way round"),
    pytest.param('{"value":"{\\"value\\":1}"}', '{"value":1}', id="a wrapper inside"),
    pytest.param('{"value":"a\nb"}', "a\nb", id="bare line end"),
    pytest.param(r'{"value":"\d\u12"}', r"\d\u12", id="no escapes of JSON"),
    pytest.param('{"value":"yes"} and "more"', "yes", id="text after it"),
    pytest.param('{"value":"yes","b":"no"}', "yes", id="another key after it"),
]

AS_IT_STANDS = [
    pytest.param('{"value":{"a":{"b":[1,{}]}}}', '{"a":{"b":[1,{}]}}', id="object"),
    pytest.param('{"value":[[1, 2], "]"]}', '[[1, 2], "]"]', id="array"),
    pytest.param(r'{"value":"a}\"]\\"}', r'"a}\"]\\"', id="string"),
    pytest.param(r'{"value":["\\"]}', r'["\\"]', id="escaped backslash before a quote"),
    pytest.param('{"value":-1.5e+3}', "-1.5e+3", id="number"),
    pytest.param(' { "value" : 12 } ', "12", id="number and whitespace"),
    pytest.param('{"value":true}', "true", id="true"),
    pytest.param('{"value":null\n}', "null", id="null"),
    pytest.param('{"value": { "a" : 1 } } }', '{ "a" : 1 }', id="whitespace inside stays"),
    pytest.param('{"value":"안녕 🎉"}', '"안녕 🎉"', id="Hangul and emoji"),
    pytest.param('{"value":1,"b":2}', "1", id="another key after it"),
]

NO_WRAPPER = [
    pytest.param("I can't help with that.", id="refusal"),
    pytest.param(" \n plain", id="whitespace, then text"),
    pytest.param('{"values":1}', id="another key"),
    pytest.param('{"val ue":1}', id="whitespace in the key"),
    pytest.param('{"a":{"value":1}}', id="further in"),
    pytest.param('["value"]', id="array"),
    pytest.param('"value"', id="string"),
    pytest.param('{"value":}', id="no value"),
    pytest.param('{"value":None}', id="not JSON"),
    pytest.param("", id="nothing"),
]

CASES = [
    *(pytest.param(*case.values, True, id=f"bare: {case.id}") for case in BARE),
    *(pytest.param(*case.values, False, id=f"as it stands: {case.id}") for case in AS_IT_STANDS),
    *(pytest.param(*case.values, *case.values, True, id=f"bare, no wrapper: {case.id}") for case in NO_WRAPPER),
    *(pytest.param(*case.values, *case.values, False, id=f"no wrapper: {case.id}") for case in NO_WRAPPER),
    pytest.param('{"value":12}', '{"value":12}', True, id="bare: not a string"),
]


def unwrapped(text: str, *, bare: bool) -> str:
    return EnvelopeReader(bare=bare).feed(text)


def fed(pieces: list[str], *, bare: bool) -> str:
    unwrapper = EnvelopeReader(bare=bare)
    return "".join(map(unwrapper.feed, pieces))


@pytest.mark.parametrize(("text", "value", "bare"), CASES)
def test_the_value_is_extracted(text: str, value: str, bare: bool) -> None:
    assert unwrapped(text, bare=bare) == value


@pytest.mark.parametrize(("text", "value", "bare"), CASES)
def test_every_cut_gives_the_same_value(text: str, value: str, bare: bool) -> None:
    assert fed(list(text), bare=bare) == value
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            assert fed([text[:first], text[first:second], text[second:]], bare=bare) == value


@pytest.mark.parametrize(
    ("pieces", "given", "bare"),
    [
        pytest.param(['{"va', 'lue":', '"a', "bc", '"', "}"], ["", "", "a", "bc", "", ""], True, id="bare"),
        pytest.param(['{"value":"', "\\", 'n"}'], ["", "", "\n"], True, id="escape"),
        pytest.param(['{"value":"a\\u00', "4", "1"], ["a", "", "A"], True, id="Unicode escape"),
        pytest.param(['{"value":"\\ud83c', "\\udf8", "9"], ["", "", "🎉"], True, id="surrogate pair"),
        pytest.param(['{"value":"\\ud83c', "\\u0", "041"], ["", "\ufffd", "A"], True, id="no second half"),
        pytest.param(['{"value":"\\ud83c', "x"], ["", "\ufffdx"], True, id="first half alone"),
        pytest.param(['{"value":{', '"a":1', "}", "}"], ["{", '"a":1', "}", ""], False, id="object"),
        pytest.param(['{"value": 1', "2", " ", "}"], ["1", "2", "", ""], False, id="number"),
        pytest.param([" {", "  x", "y"], ["", " {  x", "y"], False, id="no wrapper"),
        pytest.param(['{"value":', "12", "}"], ["", '{"value":12', "}"], True, id="not a string"),
    ],
)
def test_each_piece_gives_what_is_decoded(pieces: list[str], given: list[str], bare: bool) -> None:
    unwrapper = EnvelopeReader(bare=bare)
    assert [unwrapper.feed(piece) for piece in pieces] == given


STRINGS = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('\\"u안녕🎉\n\0{}d8')))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=6,
)
SPACES = st.text(" \t\n\r", max_size=2)


@st.composite
def dumped(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> tuple[Any, str, str]:
    """A value, its JSON text and the text of its envelope."""
    value = draw(values)
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.none() | st.integers(0, 2)))
    spaces = [draw(SPACES) for _ in range(6)]
    parts = ["", "{", '"value"', ":", text, "}"]
    return value, text, "".join(part + space for part, space in zip(parts, spaces, strict=True))


def cut(text: str, data: st.DataObject) -> list[str]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(dumped(STRINGS), st.data())
def test_any_string_is_decoded(case: tuple[str, str, str], data: st.DataObject) -> None:
    value, _, wrapper = case
    assert json.loads(wrapper)["value"] == value
    assert fed(cut(wrapper, data), bare=True) == value


@given(dumped(VALUES), st.data())
def test_any_value_is_unchanged(case: tuple[Any, str, str], data: st.DataObject) -> None:
    value, text, wrapper = case
    assert json.loads(wrapper)["value"] == value
    assert fed(cut(wrapper, data), bare=False) == text


@given(dumped(STRINGS), st.data())
def test_a_truncated_string_gives_its_prefix(case: tuple[str, str, str], data: st.DataObject) -> None:
    value, _, wrapper = case
    end = data.draw(st.integers(0, len(wrapper)))
    assert value.startswith(unwrapped(wrapper[:end], bare=True))


@given(dumped(VALUES), st.data())
def test_a_truncated_value_gives_its_prefix(case: tuple[Any, str, str], data: st.DataObject) -> None:
    _, text, wrapper = case
    end = data.draw(st.integers(0, len(wrapper)))
    assert text.startswith(unwrapped(wrapper[:end], bare=False))


@given(st.text('{"value": \n'), st.data(), st.booleans())
def test_any_text_gives_the_same_value_in_any_pieces(text: str, data: st.DataObject, bare: bool) -> None:
    assert fed(cut(text, data), bare=bare) == unwrapped(text, bare=bare)
