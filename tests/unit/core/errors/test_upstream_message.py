"""The message found in an upstream error body."""

import pytest

from app.core.errors.upstream_message import MAX_TEXT_CHARACTERS, upstream_message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param({"message": "No."}, "No.", id="OpenAI's"),
        pytest.param("No.", "No.", id="a text"),
        pytest.param({"error": {"message": "No."}}, "No.", id="twice in an envelope"),
        pytest.param({"error": "No."}, "No.", id="a text in an envelope"),
        pytest.param({"detail": "No."}, "No.", id="FastAPI's"),
        pytest.param({"detail": [{"loc": ["body", "n"], "msg": "No.", "type": "missing"}]}, "No.", id="a validation"),
        pytest.param([{"error": {"message": "No."}}], "No.", id="a list"),
        pytest.param({"error": {}, "error_description": "No."}, "No.", id="OAuth's"),
        pytest.param({"message": {"detail": "No."}}, "No.", id="an object as message"),
        pytest.param({"message": ["No.", "Never."]}, "No.", id="messages"),
        pytest.param(" \n", None, id="blanks"),
        pytest.param("<!DOCTYPE html><p>No.", None, id="HTML"),
        pytest.param({"message": "<html>"}, None, id="HTML as message"),
        pytest.param({"message": 5}, None, id="a number as message"),
        pytest.param({"message": True, "detail": None}, None, id="nothing to read"),
        pytest.param([], None, id="an empty list"),
        pytest.param(None, None, id="null"),
        pytest.param([[[[[[["No."]]]]]]], None, id="too deep"),
    ],
)
def test_a_message_is_found_in_every_form(body: object, message: str | None) -> None:
    assert upstream_message(body) == message


def test_a_long_text_is_cut_and_a_long_message_is_not() -> None:
    text = "x" * (MAX_TEXT_CHARACTERS + 1)

    assert upstream_message(text) == f"{text[:-1]}...[truncated]"
    assert upstream_message({"message": text}) == text
