"""vLLM's OpenAI-style routes."""

from fastapi import APIRouter, Depends, Request, Response

from app.core.dependencies import LLMServiceDependency
from app.core.record import current_record
from app.core.request_body import json_body
from app.core.streaming import EventStreamResponse, run_until_disconnect
from app.features.llm.schema import (
    BatchChatCompletionRequest,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ModelsResponse,
)

router = APIRouter(prefix="/v1", tags=["llm"])


@router.post(
    "/chat/completions",
    dependencies=[Depends(json_body)],
    response_model=ChatCompletionResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def create_chat_completion(
    request: Request, body: ChatCompletionRequest, service: LLMServiceDependency
) -> Response:
    """Answers a conversation, whole or, with `stream`, as server-sent events."""
    body.request_id = current_record().client_request_id or body.request_id
    if body.stream:
        return EventStreamResponse(await run_until_disconnect(request.receive, service.stream_chat_completion(body)))
    answer = await run_until_disconnect(request.receive, service.create_chat_completion(body))
    return Response(answer.model_dump_json(), media_type="application/json")


@router.post("/chat/completions/batch", dependencies=[Depends(json_body)], response_model=ChatCompletionResponse)
async def create_batch(request: Request, body: BatchChatCompletionRequest, service: LLMServiceDependency) -> Response:
    """Answers several conversations at once, each in a choice of its own."""
    body.request_id = current_record().client_request_id or body.request_id
    answer = await run_until_disconnect(request.receive, service.create_batch(body))
    return Response(answer.model_dump_json(), media_type="application/json")


@router.get("/models")
async def list_models(request: Request, service: LLMServiceDependency) -> ModelsResponse:
    """Lists the names that clients may use."""
    return await run_until_disconnect(request.receive, service.get_models())
