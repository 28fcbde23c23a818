"""A usual request and a tool round trip for every model of the table, checked by the simulator's own rules."""

import pytest
import pytest_asyncio

from app.features.llm.model_families import MODELS, ModelFamily
from tests.models_page import PAGE, Walk, walk, with_tables

every_model = pytest.mark.parametrize(("name", "row"), MODELS.items(), ids=list(MODELS))
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def walked() -> Walk:
    return await walk()


def lowest_effort(row: ModelFamily) -> str | None:
    return row.efforts[0] if row.efforts else None


@every_model
async def test_a_usual_request_ends_at_its_stop_string(name: str, row: ModelFamily, walked: Walk) -> None:
    response = walked.outcomes[name].chat

    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    assert choice["message"]["content"] == walked.text.partition(walked.stop)[0]
    assert choice["finish_reason"] == "stop"
    assert response.json()["model"] == name


@every_model
async def test_unsupported_parameters_are_reported(name: str, row: ModelFamily, walked: Walk) -> None:
    headers = walked.outcomes[name].chat.headers
    lowest = lowest_effort(row)
    takes_temperature = row.sampling == "always" or (row.sampling == "at_none" and lowest == "none")

    assert headers.get("x-ignored-params") == (None if takes_temperature else "temperature")
    assert headers.get("x-adjusted-params") == (None if lowest in (None, "none") else f"reasoning_effort={lowest}")


@every_model
async def test_logprobs_are_returned_if_the_model_has_them(name: str, row: ModelFamily, walked: Walk) -> None:
    response = walked.outcomes[name].logprobs

    if row.sampling == "always" or (row.sampling == "at_none" and lowest_effort(row) == "none"):
        assert response.json()["choices"][0]["logprobs"]["content"]
    else:
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "logprobs"


@every_model
async def test_tools_are_called_if_the_model_accepts_them(name: str, row: ModelFamily, walked: Walk) -> None:
    outcome = walked.outcomes[name]

    if row.tools in ("responses", "nowhere"):
        assert outcome.calls.status_code == 400
        assert outcome.calls.json()["error"]["param"] == "tools"
        return
    assert outcome.calls.status_code == 200, outcome.calls.text
    assert outcome.calls.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "find"
    assert outcome.round_trip is not None
    assert outcome.round_trip.status_code == 200, outcome.round_trip.text
    assert outcome.round_trip.json()["choices"][0]["message"]["content"]


@every_model
async def test_every_body_is_valid_for_openai(name: str, row: ModelFamily, walked: Walk) -> None:
    assert walked.outcomes[name].violations == []


async def test_the_page_matches_the_results(walked: Walk) -> None:
    page = PAGE.read_text()
    assert page == with_tables(page, walked.outcomes), "run `make format`"
