"""The table of models: every row, how a name finds its row, and rows from MODEL_FAMILIES."""

from datetime import date
from typing import Any

import pytest

from app.core.tokenization import encoding
from app.features.llm.model_families import (
    EFFORTS,
    MODELS,
    UNKNOWN_FAMILY,
    ModelFamily,
    described_family,
    family_of,
)

every_row = pytest.mark.parametrize(("name", "row"), MODELS.items(), ids=list(MODELS))


@every_row
def test_a_row_has_limits_and_a_tokenizer(name: str, row: ModelFamily) -> None:
    assert row.context
    assert row.output
    assert row.output <= row.context
    assert row.encoding
    assert encoding(row.encoding).encode("Hi")
    assert family_of(name) is row


@every_row
def test_a_rows_efforts_ascend_and_have_a_default(name: str, row: ModelFamily) -> None:
    assert list(row.efforts) == [level for level in EFFORTS if level in row.efforts]
    assert (row.default_effort is None) is (not row.efforts)
    # /v1/chat/completions takes it from no model.
    assert "max" not in row.efforts


@every_row
def test_a_rows_tools_go_where_its_efforts_allow(name: str, row: ModelFamily) -> None:
    assert row.tools != "chat_at_none" or "none" in row.efforts


@every_row
def test_a_row_has_the_parameters_that_its_efforts_imply(name: str, row: ModelFamily) -> None:
    assert row.sampling is not None
    assert row.penalties is not None
    if row.efforts:
        assert row.sampling == "at_none"
        assert not row.penalties


@every_row
def test_a_successor_is_a_row_that_outlives_the_model(name: str, row: ModelFamily) -> None:
    if row.successor is None:
        return
    assert row.ends is not None
    successor = MODELS[row.successor]
    assert successor.ends is None or successor.ends > row.ends


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("ft:gpt-4o-2024-05-13:acme::abc", "gpt-4o-2024-05-13"),
        ("gpt-audio-mini-2025-12-15", "gpt-audio-mini"),
        ("gpt-audio-mini-2025-10-06", "gpt-audio-mini-2025-10-06"),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-3.5-turbo-0125", "gpt-3.5-turbo"),
        ("gpt-3.5-turbo-1106", "gpt-3.5-turbo-1106"),
        ("o4-mini-2025-04-16", "o4-mini"),
        ("gpt-5-search-api-2025-10-14", "gpt-5-search-api"),
    ],
)
def test_a_snapshot_has_a_row_of_its_own_or_that_of_its_base(name: str, row: str) -> None:
    assert family_of(name) is MODELS[row]


@pytest.mark.parametrize("name", ["gpt-4o-mini-2024", "gpt-4-1399", "gpt-4-0613-preview", "gpt-9"])
def test_a_name_with_another_suffix_is_unknown(name: str) -> None:
    assert family_of(name) is UNKNOWN_FAMILY


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("gpt-4o-2024-05-13", {"output": 4_096, "ends": date(2026, 10, 23)}),
        ("gpt-audio-mini-2025-10-06", {"ends": date(2026, 7, 23)}),
        ("gpt-audio-1.5", {"json_schema": False, "ends": None}),
        ("gpt-5.6", {"context": 1_050_000, "default_effort": "medium", "tools": "chat_at_none"}),
        ("gpt-6.2-sol", {"efforts": ("low", "medium", "high", "xhigh"), "tools": "responses"}),
        ("gpt-6.2-astra", {"efforts": ("low", "medium", "high", "xhigh"), "tools": "responses"}),
        ("gpt-6.1-terra", {"tools": "responses", "sampling": "at_none"}),
        ("chat-latest", {"context": 400_000, "output": 128_000}),
        ("gpt-5-search-api", {"context": 400_000, "sampling": "never", "tools": "nowhere", "choices": False}),
        ("gpt-4o-mini", {"ends": date(2027, 1, 14), "successor": "gpt-6-luna"}),
    ],
)
def test_the_facts_of_november_2026(name: str, facts: dict[str, Any]) -> None:
    assert {fact: getattr(family_of(name), fact) for fact in facts} == facts


def test_an_entry_can_be_like_a_model() -> None:
    like = described_family({"like": "gpt-4.1", "context": 200_000})

    assert (like.context, like.output, like.encoding) == (200_000, 32_768, "o200k_base")
    # Whoever hosts a deployment ends it when they like.
    assert (like.ends, like.successor) == (None, None)


def test_an_entry_like_a_model_can_have_efforts_of_its_own() -> None:
    like = described_family({"like": "gpt-4.1", "efforts": ["low", "high"], "default_effort": "low"})

    assert (like.sampling, like.penalties) == ("at_none", False)


def test_an_entry_like_an_unknown_model_is_rejected() -> None:
    with pytest.raises(ValueError, match="no such model is known"):
        described_family({"like": "gpt-9"})
