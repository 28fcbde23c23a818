"""Served names, their models, families and shutdown dates."""

from datetime import date

import pytest

from app.core.errors.request_errors import RequestError
from app.features.llm.catalogue import Catalogue, RetirementPolicy
from app.features.llm.model_families import EFFORTS, UNKNOWN_FAMILY, Effort, ModelFamily, family_of

NAMES = ["gpt-4o-mini", "gpt-4o", "o3", "gpt-5", "gpt-5.1", "gpt-5.5", "gpt-6-astra"]


def test_by_default_one_model_is_served() -> None:
    assert Catalogue().names == ("gpt-4o-mini",)


def test_a_name_maps_to_a_model() -> None:
    catalogue = Catalogue({"llama": "gpt-4o-mini"})

    assert catalogue.upstream_model("llama") == "gpt-4o-mini"
    assert catalogue.family("llama").context == 128_000
    catalogue.require_served("llama")
    with pytest.raises(RequestError, match="`gpt-4o-mini` does not exist"):
        catalogue.require_served("gpt-4o-mini")


def test_every_model_has_its_own_name() -> None:
    catalogue = Catalogue(None)

    assert catalogue.names is None
    catalogue.require_served("anything")
    assert catalogue.upstream_model("anything") == "anything"


@pytest.mark.parametrize("name", ["gpt-4o-mini-2024-07-18", "ft:gpt-4o-mini-2024-07-18:acme::abc"])
def test_snapshots_and_fine_tuned_models_have_their_bases_family(name: str) -> None:
    assert family_of(name) is family_of("gpt-4o-mini")


@pytest.mark.parametrize("name", ["gpt-4o-mini-tts", "new-model", "ft:", "gpt-4o-mini-2024"])
def test_other_names_have_no_family(name: str) -> None:
    assert family_of(name) is UNKNOWN_FAMILY


@pytest.mark.parametrize(
    ("name", "effort", "accepts_sampling"),
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
def test_a_reasoning_model_accepts_no_temperature(name: str, effort: Effort | None, accepts_sampling: bool) -> None:
    assert family_of(name).accepts_sampling(effort) is accepts_sampling


@pytest.mark.parametrize(
    ("name", "context", "output"),
    [("gpt-4o", 128_000, 16_384), ("gpt-4.1", 1_047_576, 32_768), ("o3", 200_000, 100_000),
     ("gpt-5.4", 1_050_000, 128_000), ("gpt-5.4-mini", 400_000, 128_000)],
)  # fmt: skip
def test_the_limits_are_openais(name: str, context: int, output: int) -> None:
    assert (family_of(name).context, family_of(name).output) == (context, output)


@pytest.mark.parametrize("name", NAMES)
def test_efforts_are_known_levels_in_ascending_order(name: str) -> None:
    efforts = family_of(name).efforts

    assert list(efforts) == [level for level in EFFORTS if level in efforts]
    assert family_of(name).default_effort in (*efforts, None)


@pytest.mark.parametrize(
    ("name", "wanted", "nearest"),
    [("o3", "none", "low"), ("o3", "max", "high"), ("gpt-5", "none", "minimal"), ("gpt-5.1", "minimal", "none"),
     ("gpt-5.5", "max", "xhigh"), ("gpt-6-astra", "minimal", "low")],
)  # fmt: skip
def test_an_effort_becomes_the_nearest_supported_one(name: str, wanted: Effort, nearest: str) -> None:
    assert family_of(name).nearest_effort(wanted) == nearest


def test_a_described_model_has_the_described_family() -> None:
    request_body_schema = ModelFamily(8192, 4096)
    catalogue = Catalogue({"mine": "new-model", "other": "gpt-4o"}, {"new-model": request_body_schema})

    assert catalogue.family("mine") is request_body_schema
    assert catalogue.family("other").context == 128_000
    assert Catalogue(None, {"gpt-4o": request_body_schema}).family("gpt-4o-2024-08-06") is request_body_schema


MINI_ENDS = (
    "OpenAI shuts down the model served as 'mini' on 2027-01-14: set DEFAULT_MODEL or SERVED_MODELS to gpt-6-luna"
)
ONE_ENDS = (
    "OpenAI shuts down the model served as 'one' on 2027-04-01: set DEFAULT_MODEL or SERVED_MODELS to another model"
)


def on(day: date) -> RetirementPolicy:
    return RetirementPolicy(today=lambda: day)


@pytest.mark.parametrize(
    ("today", "ending"),
    [
        (date(2026, 10, 15), []),
        (date(2026, 10, 16), [MINI_ENDS]),
        (date(2027, 1, 13), [MINI_ENDS, ONE_ENDS]),
        (date(2027, 2, 1), [MINI_ENDS.replace("shuts down", "was to shut down"), ONE_ENDS]),
    ],
)
def test_a_shutdown_within_ninety_days_is_announced_with_the_successor(today: date, ending: list[str]) -> None:
    served = {"mini": "gpt-4o-mini", "one": "gpt-5.1", "two": "gpt-5.2", "new": "new-model"}

    assert Catalogue(served, {}, on(today)).shutdown_notices() == ending


def test_a_listed_date_wins_over_the_table() -> None:
    catalogue = Catalogue({"mini": "gpt-4o-mini", "two": "gpt-5.2"}, {}, on(date(2027, 1, 13)))
    catalogue.learn_shutdown_dates({"gpt-4o-mini": date(2027, 6, 1), "gpt-5.2": date(2027, 2, 1)})

    (line,) = catalogue.shutdown_notices()
    assert line.startswith("OpenAI shuts down the model served as 'two' on 2027-02-01")


def test_without_a_listed_date_the_tables_is_used() -> None:
    catalogue = Catalogue({"mini": "gpt-4o-mini"}, {}, on(date(2027, 1, 13)))
    catalogue.learn_shutdown_dates({"gpt-4o-mini": None})

    assert catalogue.shutdown_notices() == [MINI_ENDS]


def test_without_served_names_no_shutdown_is_announced() -> None:
    assert Catalogue(None, {}, on(date(2030, 1, 1))).shutdown_notices() == []
