"""vLLM's OpenAI-style routes."""

from fastapi import APIRouter, Depends, Request, Response

from app.core.dependencies import LLMServiceDependency
from app.core.errors import Refusal
from app.core.record import current_record
from app.core.streaming import EventStreamResponse, run_until_disconnect
from app.features.llm.schema import ChatCompletionRequest, ChatCompletionResponse, ModelsResponse


async def json_body(request: Request) -> None:
    """Takes a body only where it is declared as JSON, exactly as vLLM does.

    Raises:
        Refusal: the content type is another, or there is none.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        # vLLM answers 400 here, not 415.
        message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise Refusal(message, type="Bad Request")


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


@router.get("/models")
async def list_models(service: LLMServiceDependency) -> ModelsResponse:
    """Lists the names that clients may use."""
    return await service.get_models()
