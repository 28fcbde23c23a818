"""The routes that are only rejected, over real sockets."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.simulator.server import Simulator
from tests.serving import served_over

pytestmark = pytest.mark.asyncio(loop_scope="module")

DECISIONS = "/v1/decisions"
PREDICATE = {"type": "predicate", "instructions": "Is it?"}
CHOICE = {"type": "choice", "instructions": "Which?", "choices": [{"value": "a"}, {"value": True}]}
SCORE = {"type": "score", "instructions": "How?", "levels": [{"label": "low"}, {"label": "high"}]}
BODY: dict[str, Any] = {"model": "gpt-4o-mini", "input": "x", "questions": [PREDICATE]}
MESSAGE = {"role": "user", "content": [{"type": "input_text", "text": "x"}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with (
        Simulator() as simulator,
        served_over(simulator.base_url) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        yield client


@pytest.mark.parametrize(
    "more",
    [{}, {"questions": [CHOICE, SCORE]}, {"input": [MESSAGE], "joint": True, "cache_salt": "a"}, {"model": "unknown"}],
)
async def test_decisions_are_not_supported(client: httpx.AsyncClient, more: dict[str, Any]) -> None:
    response = await client.post(DECISIONS, json={**BODY, **more})

    assert (response.status_code, response.json()["error"]) == (
        501,
        {
            "message": "The model does not support the Decisions API",
            "type": "NotImplementedError",
            "param": None,
            "code": 501,
        },
    )


@pytest.mark.parametrize(
    ("body", "param", "kind"),
    [
        ({"model": "m"}, "body.input", "missing"),
        ({**BODY, "temperature": 1}, "body.temperature", "extra_forbidden"),
        ({**BODY, "input": [{**MESSAGE, "name": "a"}]}, "body.input.0.name", "extra_forbidden"),
        ({**BODY, "questions": []}, "body.questions", "too_short"),
        ({**BODY, "questions": [{"type": "other"}]}, "body.questions.0", "union_tag_invalid"),
        (
            {**BODY, "questions": [{**CHOICE, "choices": [{"value": "a"}]}]},
            "body.questions.0.choice.choices",
            "too_short",
        ),
        ({**BODY, "cache_salt": ""}, "body.cache_salt", "string_too_short"),
    ],
)
async def test_a_malformed_decision_request_is_a_400(
    client: httpx.AsyncClient, body: dict[str, Any], param: str, kind: str
) -> None:
    response = await client.post(DECISIONS, json=body)

    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "Bad Request")
    assert (f"'{kind}'" in error["message"], f"'{param}'" in error["message"]) == (True, True)


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/chat/completions/render", "/v1/chat/completions/derender"),
        *("/v1/completions/render", "/v1/completions/derender", "/v1/messages/render", "/v1/responses/render"),
        *("/inference/v1/generate", "/inference/v1/abort_requests"),
    ],
)
async def test_scale_out_endpoints_are_disabled(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, content=b"anything")

    assert (response.status_code, response.json()["error"]) == (
        403,
        {
            "message": "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them.",
            "type": "PermissionDeniedError",
            "param": None,
            "code": 403,
        },
    )
    assert (await client.get(path)).status_code == 405
