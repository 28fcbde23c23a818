"""vLLM's OpenAI-style routes."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Discriminator, Tag

from app.core.dependencies import LLMServiceDependency
from app.core.record import current_record
from app.core.request_body import JSONRoute, json_body
from app.core.streaming import EventStreamResponse, run_until_disconnect
from app.features.llm.schema import (
    BatchChatCompletionRequest,
    ChatCompletionRequest,
    ChatCompletionResponse,
    CompletionRequest,
    CompletionResponse,
    ModelsResponse,
)

SAGEMAKER_ADAPTER = "x-amzn-sagemaker-adapter-identifier"
"""The header by which SageMaker names a model; it wins over the body's."""

router = APIRouter(tags=["llm"], route_class=JSONRoute)


@router.post(
    "/v1/chat/completions",
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


@router.post("/v1/chat/completions/batch", dependencies=[Depends(json_body)], response_model=ChatCompletionResponse)
async def create_batch(request: Request, body: BatchChatCompletionRequest, service: LLMServiceDependency) -> Response:
    """Answers several conversations at once, each in a choice of its own."""
    body.request_id = current_record().client_request_id or body.request_id
    answer = await run_until_disconnect(request.receive, service.create_batch(body))
    return Response(answer.model_dump_json(), media_type="application/json")


@router.post(
    "/v1/completions",
    dependencies=[Depends(json_body)],
    response_model=CompletionResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def create_completion(request: Request, body: CompletionRequest, service: LLMServiceDependency) -> Response:
    """Continues one text or several, whole or, with `stream`, as server-sent events."""
    body.request_id = current_record().client_request_id or body.request_id
    if body.stream:
        return EventStreamResponse(await run_until_disconnect(request.receive, service.stream_completion(body)))
    answer = await run_until_disconnect(request.receive, service.create_completion(body))
    return Response(answer.model_dump_json(), media_type="application/json")


# The tags are no identifiers, so that they are no part of the place that an error names.
Invocation = Annotated[
    Annotated[ChatCompletionRequest, Tag("chat completion")] | Annotated[CompletionRequest, Tag("text completion")],
    Discriminator(lambda body: f"{'chat' if isinstance(body, dict) and 'messages' in body else 'text'} completion"),
]


@router.post("/invocations", dependencies=[Depends(json_body)], response_model=None)
async def invoke(request: Request, body: Invocation, service: LLMServiceDependency) -> Response:
    """Answers a chat, if the body has messages, or continues a text: Amazon SageMaker knows one route only."""
    body.model = request.headers.get(SAGEMAKER_ADAPTER) or body.model
    if isinstance(body, ChatCompletionRequest):
        return await create_chat_completion(request, body, service)
    return await create_completion(request, body, service)


@router.get("/v1/models")
async def list_models(request: Request, service: LLMServiceDependency) -> ModelsResponse:
    """Lists the names that clients may use."""
    return await run_until_disconnect(request.receive, service.get_models())
