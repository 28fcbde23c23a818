"""OpenAI's Python SDK as a client."""

from collections.abc import AsyncIterator

import openai
import pytest
from openai.types.chat import ChatCompletionToolParam
from pydantic import BaseModel

from app.simulator.server import Simulator

TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Plant(BaseModel):
    name: str
    height_m: float
    kind: str | None
    parts: list["Plant"]


@pytest.fixture
async def sdk(simulator: Simulator) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=simulator.base_url, api_key="sk-test", max_retries=0) as connected:
        yield connected


async def test_the_sdk_chats(sdk: openai.AsyncOpenAI) -> None:
    completion = await sdk.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": "Hello"}],
        n=2,
        logprobs=True,
        top_logprobs=2,
    )
    texts = {choice.message.content for choice in completion.choices}
    assert len(texts) == 2
    assert all(choice.logprobs and choice.logprobs.content for choice in completion.choices)
    assert completion.usage
    assert completion._request_id
    assert completion._request_id.startswith("req_")


async def test_the_sdk_streams_with_usage(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": "[sim tokens=30] Hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.startswith('"Hello":')
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 30


async def test_the_sdk_accumulates_streamed_calls(sdk: openai.AsyncOpenAI) -> None:
    async with sdk.chat.completions.stream(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "call weather"}], tools=[TOOL]
    ) as stream:
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls
    assert calls[0].function.name == "weather"


async def test_the_sdk_parses_structured_output(sdk: openai.AsyncOpenAI) -> None:
    completion = await sdk.chat.completions.parse(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "Describe a plant"}], response_format=Plant
    )
    assert isinstance(completion.choices[0].message.parsed, Plant)


async def test_the_sdk_lists_models(sdk: openai.AsyncOpenAI) -> None:
    names = [model.id async for model in sdk.models.list()]
    assert "gpt-4o-mini" in names


async def test_the_sdk_embeds(sdk: openai.AsyncOpenAI) -> None:
    created = await sdk.embeddings.create(model="text-embedding-3-small", input="Hello", dimensions=4)
    assert len(created.data[0].embedding) == 4


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[sim fault=rate_limit]", openai.RateLimitError),
        ("[sim fault=server_error]", openai.InternalServerError),
        ("[sim fault=status status=403]", openai.PermissionDeniedError),
        ("[sim fault=reset]", openai.APIConnectionError),
        ("[sim fault=cut]", openai.APIConnectionError),
        ("[sim fault=unheard_of]", openai.BadRequestError),
    ],
)
async def test_the_sdk_sees_faults_as_its_own_errors(
    sdk: openai.AsyncOpenAI, text: str, error: type[openai.OpenAIError]
) -> None:
    with pytest.raises(error):
        await sdk.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": text}])


async def test_the_sdk_sees_an_error_inside_a_stream(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "[sim fault=error_event]"}], stream=True
    )
    with pytest.raises(openai.APIError, match="The server had an error"):
        async for _ in stream:
            pass


async def test_closing_a_stream_closes_the_connection(sdk: openai.AsyncOpenAI, simulator: Simulator) -> None:
    stream = await sdk.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "[sim itl=600]"}], stream=True
    )
    await anext(aiter(stream))
    await stream.close()
    await simulator.traffic.wait_for(lambda traffic: traffic.abandoned == 1)
