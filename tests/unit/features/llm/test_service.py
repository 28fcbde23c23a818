"""The service with the simulator: defaults, served names and the model list."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.core.errors.request_errors import RequestError
from app.core.errors.upstream_errors import UpstreamError
from app.features.llm.catalogue import Catalogue
from app.features.llm.client import OpenAIClient
from app.features.llm.schema import ChatCompletionRequest
from app.features.llm.service import LLMService, UpstreamModels
from app.simulator.server import Simulator
from app.upstream.session import new_session


@pytest.fixture
async def openai_client(simulator: Simulator) -> AsyncIterator[OpenAIClient]:
    async with new_session() as session:
        yield OpenAIClient("sk-test", simulator.base_url, session=session, catalogue=Catalogue(None))


def request(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest(messages=[{"role": "user", "content": "hi"}], **fields)


def body_of_the_call(simulator: Simulator) -> dict[str, Any]:
    body: dict[str, Any] = simulator.traffic.exchanges[-1].body
    return body


async def test_a_request_without_a_model_uses_the_default(openai_client: OpenAIClient, simulator: Simulator) -> None:
    await LLMService(openai_client, default_model="gpt-4o").create_chat_completion(request())

    assert body_of_the_call(simulator)["model"] == "gpt-4o"


@pytest.mark.parametrize(
    ("fields", "default", "sent"),
    [
        pytest.param({}, 0.7, 0.7, id="absent"),
        pytest.param({"temperature": None}, 0.7, 0.7, id="null"),
        pytest.param({"temperature": 0}, 0.7, 0, id="zero is a temperature"),
        pytest.param({"temperature": 1.5}, 0.7, 1.5, id="given"),
        pytest.param({}, None, None, id="no default"),
        pytest.param({"model": "o3"}, 0.7, None, id="a model that takes none"),
        pytest.param({"model": "gpt-5.1"}, 0.7, 0.7, id="a model that does not reason by default"),
        pytest.param({"model": "gpt-5.1", "reasoning_effort": "low"}, 0.7, None, id="a model with an effort"),
    ],
)
async def test_the_default_temperature_is_used_if_none_is_sent(
    openai_client: OpenAIClient, simulator: Simulator, fields: dict[str, Any], default: float | None, sent: float | None
) -> None:
    service = LLMService(openai_client, default_temperature=default, catalogue=Catalogue(None))

    await service.create_chat_completion(request(**fields))

    assert body_of_the_call(simulator).get("temperature") == sent


async def test_the_callers_request_is_not_modified(openai_client: OpenAIClient) -> None:
    asked = request(temperature=None)

    await LLMService(openai_client).create_chat_completion(asked)

    assert asked == request(temperature=None)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_more_tokens_than_the_context_are_rejected_in_vllms_words(openai_client: OpenAIClient, name: str) -> None:
    with pytest.raises(RequestError) as caught:
        await LLMService(openai_client).create_chat_completion(request(**{name: 128_001}))

    assert str(caught.value) == (
        f"{name}=128001 cannot be greater than max_model_len=128000. Please request fewer output tokens. "
        f"(parameter={name}, value=128001)"
    )
    assert caught.value.response.param == name


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_the_whole_context_is_allowed(openai_client: OpenAIClient, name: str) -> None:
    answer = await LLMService(openai_client).create_chat_completion(request(**{name: 128_000}))

    assert answer.choices


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_is_not_served_is_rejected(openai_client: OpenAIClient, stream: bool) -> None:
    service = LLMService(openai_client, catalogue=Catalogue({"a": "gpt-4o", "b": "gpt-4o"}), default_model="a")
    call = service.stream_chat_completion if stream else service.create_chat_completion

    with pytest.raises(RequestError, match=r"The model `c` does not exist\. Valid aliases: a, b\."):
        await call(request(model="c", stream=stream))


async def test_served_names_are_listed_without_a_call(openai_client: OpenAIClient, simulator: Simulator) -> None:
    listed = await LLMService(openai_client, catalogue=Catalogue({"llama": "gpt-4o-mini", "x": "new"})).get_models()

    assert [(card.id, card.root, card.max_model_len) for card in listed.data] == [
        ("llama", "gpt-4o-mini", 128_000), ("x", "new", None),
    ]  # fmt: skip
    assert not simulator.traffic.exchanges


async def test_openais_list_is_returned_if_every_model_is_served(openai_client: OpenAIClient) -> None:
    listed = await LLMService(openai_client, catalogue=Catalogue(None)).get_models()

    assert {"gpt-4o-mini", "gpt-4o"} <= {card.id for card in listed.data}


class Clock:
    """A clock that tests set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_openais_list_is_cached_for_five_minutes(openai_client: OpenAIClient, simulator: Simulator) -> None:
    clock = Clock()
    models = UpstreamModels(openai_client, clock=clock)

    await asyncio.gather(*(models.names() for _ in range(5)))
    clock.now = 299.9
    await models.names()
    assert len(simulator.traffic.exchanges) == 1
    clock.now = 300
    await models.names()
    assert len(simulator.traffic.exchanges) == 2


async def test_the_old_list_is_kept_when_openai_fails() -> None:
    clock = Clock()
    async with new_session() as session:
        async with Simulator() as simulator:
            models = UpstreamModels(OpenAIClient("sk-test", simulator.base_url, session=session), clock=clock)
            before = await models.names()
        clock.now = 301

        assert await models.names() == before


async def test_without_a_list_the_failure_is_cached_for_five_seconds() -> None:
    clock = Clock()
    asked = []
    async with (
        Simulator(api_key="sk-other") as simulator,
        new_session() as session,
    ):
        models = UpstreamModels(OpenAIClient("sk-test", simulator.base_url, session=session), clock=clock)
        for clock.now in (0, 4.9, 5):
            with pytest.raises(UpstreamError):
                await models.names()
            asked.append(len(simulator.traffic.exchanges))

    assert asked == [1, 1, 2]


async def test_without_a_list_the_failure_is_raised() -> None:
    async with new_session() as session:
        client = OpenAIClient("sk-test", "http://127.0.0.1:1/v1", session=session)
        with pytest.raises(UpstreamError):
            await LLMService(client, catalogue=Catalogue(None)).get_models()


async def test_the_effective_limit_is_checked(openai_client: OpenAIClient, simulator: Simulator) -> None:
    asked = request(max_tokens=500_000, max_completion_tokens=10)
    await LLMService(openai_client).create_chat_completion(asked)

    assert body_of_the_call(simulator)["max_completion_tokens"] == 10
