"""OpenAI's models and their deployments elsewhere, behind vLLM's interface."""

from typing import Any

import httpx
import pytest

from app.simulator.server import Catalogue, Simulator
from tests.conftest import CHAT
from tests.serving import served_over

HELLO = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


async def test_a_deployment_on_azure_is_served_like_its_model() -> None:
    described = {"my-deployment": {"like": "gpt-5.2"}}
    async with Simulator(api_key="azure-key", catalogue=Catalogue(deployments={"my-deployment": "gpt-5.2"})) as azure:
        base_url = azure.base_url.replace("/v1", "/openai/v1/")
        async with (
            served_over(
                base_url, openai_api_key="azure-key", default_model="my-deployment", model_families=described
            ) as url,
            httpx.AsyncClient(base_url=url, timeout=10) as client,
        ):
            asked = {"messages": HELLO, "reasoning_effort": "low", "temperature": 0, "stop": "\n\n", "max_tokens": 900}
            response = await client.post(CHAT, json=asked)
            (card,) = (await client.get("/v1/models")).json()["data"]
        (exchange,) = azure.traffic.exchanges

    assert response.status_code == 200, response.text
    assert response.json()["model"] == "my-deployment"
    assert response.headers["x-ignored-params"] == "temperature"
    assert exchange.path == "/openai/v1/chat/completions"
    assert exchange.body["model"] == "my-deployment"
    assert exchange.body["max_completion_tokens"] == 900
    assert "stop" not in exchange.body
    assert (card["id"], card["max_model_len"]) == ("my-deployment", 400_000)


SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize(
    ("model", "members", "param", "words"),
    [
        ("gpt-5-search-api", {"n": 2}, "n", "n must be 1 with this model, got 2."),
        ("gpt-5-search-api", {"tools": [TOOL]}, "tools", "This model takes no tools"),
        ("gpt-6.2-sol", {"tools": [TOOL]}, "tools", "This model takes tools on OpenAI's /v1/responses only"),
        ("gpt-audio-1.5", {"response_format": SCHEMA}, "response_format", "This model follows no JSON schema"),
        ("gpt-4", {"structured_outputs": {"choice": ["a", "b"]}}, "structured_outputs", "This model follows no JSON"),
        ("chat-latest", {"allowed_token_ids": [1]}, "allowed_token_ids", "this model takes no `logit_bias`"),
    ],
)
async def test_what_a_model_cannot_do_is_rejected_before_a_call(
    model: str, members: dict[str, Any], param: str, words: str, simulator: Simulator
) -> None:
    async with (
        served_over(simulator.base_url, default_model=model) as url,
        httpx.AsyncClient(base_url=url, timeout=10) as client,
    ):
        response = await client.post(CHAT, json={"messages": HELLO, **members})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert words in response.json()["error"]["message"]
    assert not simulator.traffic.exchanges


@pytest.mark.parametrize("form", [{"type": "json_object"}, {"type": "text"}])
async def test_a_model_without_schemas_accepts_other_formats(form: dict[str, str], simulator: Simulator) -> None:
    async with (
        served_over(simulator.base_url, default_model="gpt-audio-1.5") as url,
        httpx.AsyncClient(base_url=url, timeout=10) as client,
    ):
        response = await client.post(CHAT, json={"messages": HELLO, "response_format": form})

    assert response.status_code == 200, response.text
