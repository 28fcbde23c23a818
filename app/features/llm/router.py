"""vLLM's OpenAI-style routes."""

from fastapi import APIRouter, Request, Response

from app.core.dependencies import LLMServiceDependency
from app.core.http.disconnect import run_until_disconnect
from app.core.http.openapi import request_body_schema
from app.core.http.request_body import read_model
from app.core.http.sse_response import EventStreamResponse
from app.core.request_record import current_record
from app.features.llm.schema import (
    BatchChatCompletionRequest,
    ChatCompletionRequest,
    ChatCompletionResponse,
    CompletionRequest,
    CompletionResponse,
    ModelsResponse,
)
from app.features.llm.service import LLMService

SAGEMAKER_ADAPTER = "x-amzn-sagemaker-adapter-identifier"
"""The header in which SageMaker names a model; it takes precedence over the body's `model`."""

REQUEST_MODELS = (ChatCompletionRequest, BatchChatCompletionRequest, CompletionRequest)
"""The request models of these routes, for the OpenAPI schema."""

router = APIRouter(tags=["llm"])


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletionResponse,
    openapi_extra=request_body_schema(ChatCompletionRequest),
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def create_chat_completion(request: Request, service: LLMServiceDependency) -> Response:
    """Create a chat completion; with `stream`, as server-sent events."""
    return await _chat(request, await read_model(request, lambda _body: ChatCompletionRequest), service)


async def _chat(request: Request, body: ChatCompletionRequest, service: LLMService) -> Response:
    _prefer_header_id(body)
    if body.stream:
        return EventStreamResponse(await run_until_disconnect(request.receive, service.stream_chat_completion(body)))
    response = await run_until_disconnect(request.receive, service.create_chat_completion(body))
    return Response(response.model_dump_json(), media_type="application/json")


def _prefer_header_id(body: ChatCompletionRequest | BatchChatCompletionRequest | CompletionRequest) -> None:
    if request_id := current_record().client_request_id:
        body.request_id = request_id


@router.post(
    "/v1/chat/completions/batch",
    response_model=ChatCompletionResponse,
    openapi_extra=request_body_schema(BatchChatCompletionRequest),
)
async def create_batch(request: Request, service: LLMServiceDependency) -> Response:
    """Create one chat completion for several conversations, with one choice for each."""
    body = await read_model(request, lambda _body: BatchChatCompletionRequest)
    _prefer_header_id(body)
    response = await run_until_disconnect(request.receive, service.create_batch(body))
    return Response(response.model_dump_json(), media_type="application/json")


@router.post(
    "/v1/completions",
    response_model=CompletionResponse,
    openapi_extra=request_body_schema(CompletionRequest),
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def create_completion(request: Request, service: LLMServiceDependency) -> Response:
    """Create a completion of one or several prompts; with `stream`, as server-sent events."""
    return await _complete(request, await read_model(request, lambda _body: CompletionRequest), service)


async def _complete(request: Request, body: CompletionRequest, service: LLMService) -> Response:
    _prefer_header_id(body)
    if body.stream:
        stream = await run_until_disconnect(request.receive, service.stream_completion(body))
        return EventStreamResponse(stream, spaced_errors=True)
    response = await run_until_disconnect(request.receive, service.create_completion(body))
    return Response(response.model_dump_json(), media_type="application/json")


def _invocation_model(body: object) -> type[ChatCompletionRequest | CompletionRequest]:
    return ChatCompletionRequest if isinstance(body, dict) and "messages" in body else CompletionRequest


@router.post(
    "/invocations", response_model=None, openapi_extra=request_body_schema(ChatCompletionRequest, CompletionRequest)
)
async def invoke(request: Request, service: LLMServiceDependency) -> Response:
    """Create a chat completion if the body has `messages`, else a text completion (Amazon SageMaker's route)."""
    body = await read_model(request, _invocation_model)
    body.model = request.headers.get(SAGEMAKER_ADAPTER) or body.model
    if isinstance(body, ChatCompletionRequest):
        return await _chat(request, body, service)
    return await _complete(request, body, service)


@router.get("/v1/models", response_model=ModelsResponse)
async def list_models(request: Request, service: LLMServiceDependency) -> Response:
    """List the models that clients may name."""
    models = await run_until_disconnect(request.receive, service.get_models())
    return Response(models.model_dump_json(), media_type="application/json")
