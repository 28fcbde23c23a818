"""Names, models and their families."""

import pytest

from app.features.llm.catalogue import EFFORTS, UNKNOWN_FAMILY, Catalogue, family_of

NAMES = ["gpt-4o-mini", "gpt-4o", "o3", "gpt-5", "gpt-5.1", "gpt-5.5", "gpt-6-astra"]


def test_by_default_one_model_is_served() -> None:
    assert Catalogue().names == ("gpt-4o-mini",)


def test_a_name_stands_for_a_model() -> None:
    catalogue = Catalogue({"llama": "gpt-4o-mini"})

    assert catalogue.upstream_model("llama") == "gpt-4o-mini"
    assert catalogue.family("llama").context == 128_000
    assert catalogue.serves("llama")
    assert not catalogue.serves("gpt-4o-mini")


def test_every_model_goes_by_its_own_name() -> None:
    catalogue = Catalogue(None)

    assert catalogue.names is None
    assert catalogue.serves("anything")
    assert catalogue.upstream_model("anything") == "anything"


@pytest.mark.parametrize("name", ["gpt-4o-mini-2024-07-18", "ft:gpt-4o-mini-2024-07-18:acme::abc"])
def test_snapshots_and_tuned_models_belong_to_their_base(name: str) -> None:
    assert family_of(name) is family_of("gpt-4o-mini")


@pytest.mark.parametrize("name", ["gpt-4o-mini-tts", "new-model", "ft:", "gpt-4o-mini-2024"])
def test_other_names_are_unknown(name: str) -> None:
    assert family_of(name) is UNKNOWN_FAMILY


@pytest.mark.parametrize(
    ("name", "effort", "samples"),
    [
        ("gpt-4o-mini", None, True),
        ("new-model", None, True),
        ("o3", None, False),
        ("gpt-5", "minimal", False),
        ("gpt-5.1", None, True),
        ("gpt-5.1", "low", False),
        ("gpt-5.5", None, False),
        ("gpt-5.5", "none", True),
    ],
)
def test_a_model_that_reasons_takes_no_temperature(name: str, effort: str | None, samples: bool) -> None:
    assert family_of(name).samples(effort) is samples


@pytest.mark.parametrize("name", NAMES)
def test_efforts_are_known_levels_in_ascending_order(name: str) -> None:
    efforts = family_of(name).efforts

    assert list(efforts) == [level for level in EFFORTS if level in efforts]
    assert family_of(name).default_effort in (*efforts, None)
