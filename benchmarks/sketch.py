"""The obvious way to write this server, for comparison.

FastAPI, the SDK's `create()`, models parsed and dumped. It translates nothing: clients must use OpenAI's interface.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ConfigDict

app = FastAPI()
client = AsyncOpenAI(api_key=os.environ["OPENAI_API_KEY"], base_url=os.environ["OPENAI_BASE_URL"])


class ChatCompletionRequest(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: str = "gpt-4o-mini"
    messages: list[dict[str, Any]]
    temperature: float | None = 0.7
    max_tokens: int | None = None
    stream: bool = False


class Message(BaseModel):
    role: str
    content: str | None


class Choice(BaseModel):
    index: int
    message: Message
    finish_reason: str | None


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletionResponse(BaseModel):
    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None


def response_of(completion: ChatCompletion) -> ChatCompletionResponse:
    """Convert the SDK's response to ours."""
    choices = [
        Choice(
            index=choice.index,
            message=Message(role=choice.message.role, content=choice.message.content),
            finish_reason=choice.finish_reason,
        )
        for choice in completion.choices
    ]
    usage = Usage.model_validate(completion.usage.model_dump()) if completion.usage else None
    return ChatCompletionResponse(
        id=completion.id, created=completion.created, model=completion.model, choices=choices, usage=usage
    )


async def events(request: dict[str, Any]) -> AsyncIterator[str]:
    """Yield the SDK's chunks as server-sent events."""
    stream = await client.chat.completions.create(**request)
    async for chunk in stream:
        yield f"data: {chunk.model_dump_json()}\n\n"
    yield "data: [DONE]\n\n"


@app.post("/v1/chat/completions", response_model=ChatCompletionResponse)
async def create_chat_completion(body: ChatCompletionRequest) -> Any:
    """Complete a conversation, whole or as a stream."""
    request = body.model_dump(exclude_none=True)
    if body.stream:
        return StreamingResponse(events(request), media_type="text/event-stream")
    return response_of(await client.chat.completions.create(**request))
