"""The names, defaults and behaviour that the owner's specification gives, each held once."""

import inspect
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr, ValidationError
from pytest_mock import MockerFixture

from app.core.config import Settings
from app.core.dependencies import get_llm_service, get_openai_client
from app.features.llm.client import OpenAIClient
from app.features.llm.schema import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatMessage,
    Choice,
    MessageRole,
    ModelInfo,
    ModelsResponse,
    Usage,
)
from app.features.llm.service import LLMService
from app.main import create_app

HELLO = {"role": "user", "content": "안녕하세요"}
CHOICE = Choice(index=0, message=ChatMessage(role=MessageRole.ASSISTANT, content="Hi"), finish_reason="stop")


@pytest.fixture
def response() -> ChatCompletionResponse:
    return ChatCompletionResponse(id="chatcmpl-1", created=1, model="gpt-4o-mini", choices=[CHOICE], usage=None)


@pytest.fixture
def application() -> FastAPI:
    return create_app(Settings(_env_file=None, openai_api_key=SecretStr("sk-test")))


@pytest.fixture
def client(application: FastAPI) -> TestClient:
    """Without the lifespan: these routes answer before anything is opened."""
    return TestClient(application)


def test_a_request_has_the_specified_defaults() -> None:
    request = ChatCompletionRequest(messages=[HELLO])

    assert (request.model, request.temperature, request.stream) == ("gpt-4o-mini", 0.7, False)
    assert request.messages[0]["role"] == "user"
    assert request.max_tokens is None


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"messages": []}, id="no messages"),
        pytest.param({"messages": [HELLO], "temperature": 2.5}, id="temperature above 2"),
        pytest.param({"messages": [HELLO], "temperature": -0.1}, id="temperature below 0"),
        pytest.param({}, id="messages missing"),
    ],
)
def test_an_invalid_request_is_a_validation_error(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ChatCompletionRequest(**fields)


def test_roles_are_strings() -> None:
    assert [MessageRole.SYSTEM, MessageRole.USER, MessageRole.ASSISTANT] == ["system", "user", "assistant"]


def test_a_message_has_a_role_and_content() -> None:
    message = ChatMessage(role=MessageRole.USER, content="Hi")

    assert (message.role, message.content) == ("user", "Hi")
    assert ChatCompletionRequest(messages=[message]).messages[0]["content"] == "Hi"


def test_a_choice_has_an_index_a_message_and_a_finish_reason() -> None:
    assert (CHOICE.index, CHOICE.message.content, CHOICE.finish_reason) == (0, "Hi", "stop")


def test_usage_counts_tokens() -> None:
    usage = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)

    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (1, 2, 3)


def test_a_response_may_lack_usage(response: ChatCompletionResponse) -> None:
    assert response.usage is None
    assert response.object == "chat.completion"
    assert ChatCompletionResponse(id="1", created=1, model="m", choices=[]).usage is None


def test_a_models_response_lists_models() -> None:
    model = ModelInfo(id="gpt-4o-mini", created=1, root="gpt-4o-mini")

    assert ModelsResponse(data=[model]).model_dump()["data"][0]["id"] == "gpt-4o-mini"
    assert (model.object, ModelsResponse(data=[]).object) == ("model", "list")


def test_a_client_is_built_from_a_key_and_a_base_url_without_an_event_loop() -> None:
    assert list(inspect.signature(OpenAIClient).parameters)[:2] == ["api_key", "base_url"]
    assert inspect.signature(OpenAIClient).parameters["base_url"].default is None

    client = OpenAIClient("sk-test", "http://127.0.0.1:9/v1")

    assert callable(client.create_chat_completion)
    assert callable(client.stream_chat_completion)


async def test_the_service_passes_the_client_one_positional_argument(
    mocker: MockerFixture, response: ChatCompletionResponse
) -> None:
    client = mocker.create_autospec(OpenAIClient, instance=True)
    client.create_chat_completion.return_value = response

    result = await LLMService(client).create_chat_completion(ChatCompletionRequest(messages=[HELLO]))

    assert result is response
    ((request,), keywords) = client.create_chat_completion.await_args
    assert (request.model, request.temperature, keywords) == ("gpt-4o-mini", 0.7, {})


async def test_the_service_has_a_default_model_and_temperature(
    mocker: MockerFixture, response: ChatCompletionResponse
) -> None:
    client = mocker.create_autospec(OpenAIClient, instance=True)
    client.create_chat_completion.return_value = response
    service = LLMService(client, default_model="gpt-4o", default_temperature=0.2)

    await service.create_chat_completion(ChatCompletionRequest(messages=[HELLO]))

    request = client.create_chat_completion.await_args.args[0]
    assert (request.model, request.temperature) == ("gpt-4o", 0.2)
    assert [model.id for model in (await service.get_models()).data] == ["gpt-4o"]


async def test_dependencies_give_the_client_and_the_service(application: FastAPI, mocker: MockerFixture) -> None:
    request = mocker.Mock(app=application)

    assert isinstance(await get_openai_client(request), OpenAIClient)
    assert isinstance(await get_llm_service(request), LLMService)


def test_settings_have_the_specified_names_and_defaults() -> None:
    settings = Settings(_env_file=None)

    assert (settings.default_model, settings.port, settings.openai_api_key) == ("gpt-4o-mini", 8002, None)
    assert settings.openai_base_url.startswith("https://api.openai.com")


def test_health_has_the_specified_body(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "healthy", "service": "llm-server"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [HELLO]}),
        ("/v1/completions", {"prompt": "Hi"}),
        ("/tokenize", {"prompt": "Hi"}),
        ("/detokenize", {"tokens": [1]}),
    ],
)
def test_an_unknown_model_is_a_400_with_an_error(client: TestClient, path: str, body: dict[str, Any]) -> None:
    response = client.post(path, json={"model": "no-such-model", **body})

    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("BadRequestError", "model")
