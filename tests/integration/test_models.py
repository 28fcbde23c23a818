"""The models of OpenAI, and deployments of them elsewhere, behind vLLM's interface."""

import httpx

from app.simulator.server import Catalogue, Simulator
from tests.conftest import CHAT
from tests.serving import served_over

HELLO = [{"role": "user", "content": "Hi"}]


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
