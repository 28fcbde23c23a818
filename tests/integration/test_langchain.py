"""LangChain's unmodified ChatOpenAI as used with vLLM: a base URL, any key, vLLM's fields in `extra_body`."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from app.simulator.server import Simulator

VLLM_FIELDS: dict[str, Any] = {
    "top_k": 20,
    "min_p": 0.0,
    "repetition_penalty": 1.05,
    "chat_template_kwargs": {"enable_thinking": False},
}


@pytest.fixture
async def chat(server_url: str) -> AsyncIterator[ChatOpenAI]:
    async with httpx2.AsyncClient(trust_env=False) as http:
        yield ChatOpenAI(
            base_url=f"{server_url}/v1",
            api_key=SecretStr("EMPTY"),
            model="gpt-4o-mini",
            extra_body=VLLM_FIELDS,
            http_async_client=http,
            max_retries=0,
            stream_usage=True,
        )


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


def get_weather(city: str) -> str:
    """Weather of a city."""
    return f"Sunny in {city}"


def check_usage(answer: AIMessage) -> None:
    usage = answer.usage_metadata
    assert usage is not None
    assert usage["input_tokens"] > 0
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


async def whole(stream: AsyncIterator[AIMessage]) -> AIMessageChunk:
    """The chunks of a stream, added up as LangChain's users do."""
    chunks = [chunk async for chunk in stream if isinstance(chunk, AIMessageChunk)]
    added = chunks[0]
    for chunk in chunks[1:]:
        added += chunk
    return added


async def test_a_chat(chat: ChatOpenAI) -> None:
    answer = await chat.ainvoke("Say hello")

    assert isinstance(answer.content, str)
    assert answer.content
    assert answer.response_metadata["model_name"] == "gpt-4o-mini"
    assert answer.response_metadata["finish_reason"] == "stop"
    check_usage(answer)


async def test_vllms_fields_are_not_sent_to_openai(chat: ChatOpenAI, simulator: Simulator) -> None:
    await chat.ainvoke("Say hello")

    assert not simulator.traffic.exchanges[0].body.keys() & VLLM_FIELDS.keys()


async def test_a_stream_comes_in_pieces_and_ends_with_its_usage(chat: ChatOpenAI) -> None:
    chunks = [chunk async for chunk in chat.astream("Say hello")]

    told = [chunk for chunk in chunks if chunk.usage_metadata]
    assert len([chunk for chunk in chunks if chunk.content]) >= 5
    assert len(told) == 1
    check_usage(told[0])


async def test_a_stream_has_the_same_text_as_a_response(chat: ChatOpenAI) -> None:
    answer = await chat.ainvoke("Say hello")
    streamed = await whole(chat.astream("Say hello"))

    assert streamed.content == answer.content
    assert streamed.response_metadata["finish_reason"] == "stop"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_structured_output_is_an_instance_of_the_class(chat: ChatOpenAI, method: Any) -> None:
    answer = await chat.with_structured_output(Person, method=method).ainvoke("Who is it?")

    assert isinstance(answer, Person)


async def test_json_mode_does_not_need_the_word_json(chat: ChatOpenAI) -> None:
    answer = await chat.with_structured_output(None, method="json_mode").ainvoke("Who is it?")

    assert isinstance(answer, dict)


async def test_vllms_own_choice_is_kept(chat: ChatOpenAI) -> None:
    colours = chat.model_copy(update={"extra_body": {"structured_outputs": {"choice": ["red", "blue"]}}})

    answer = await colours.ainvoke("Which colour?")
    streamed = await whole(colours.astream("Which colour?"))

    assert answer.content in ("red", "blue")
    assert streamed.content == answer.content


async def test_a_tool_is_called_and_its_result_accepted(chat: ChatOpenAI) -> None:
    question = HumanMessage("Weather in Seoul?")
    calling = await chat.bind_tools([get_weather], tool_choice="required").ainvoke([question])

    [call] = calling.tool_calls
    assert call["name"] == "get_weather"
    assert isinstance(call["args"]["city"], str)
    assert not calling.invalid_tool_calls

    result = ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"])
    answer = await chat.bind_tools([get_weather]).ainvoke([question, calling, result])
    assert answer.content


async def test_a_streamed_tool_call_is_complete(chat: ChatOpenAI) -> None:
    streamed = await whole(chat.bind_tools([get_weather], tool_choice="get_weather").astream("Weather in Seoul?"))

    [call] = streamed.tool_calls
    assert call["name"] == "get_weather"
    assert isinstance(call["args"]["city"], str)


async def test_a_bad_field_is_openais_exception(chat: ChatOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await chat.ainvoke("Say hello", temperature=2.5)

    assert caught.value.param == "temperature"
