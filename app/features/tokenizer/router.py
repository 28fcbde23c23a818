"""vLLM's tokenizer routes. They have no /v1 before them, as with vLLM."""

from dataclasses import fields
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from app.core.dependencies import TokenizerServiceDependency
from app.core.http.disconnect import run_until_disconnect
from app.core.http.openapi import request_body_schema
from app.core.http.request_body import model_of, read_body
from app.core.tokenization import to_thread_if_large
from app.features.tokenizer.schema import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeChatRequest,
    TokenizePromptRequest,
    TokenizeResponse,
    tokenize_model,
)

SLICE_ITEMS = 10_000

REQUEST_MODELS = (TokenizePromptRequest, TokenizeChatRequest, DetokenizeRequest)
"""What these routes read."""

router = APIRouter(tags=["tokenizer"])
info_router = APIRouter(tags=["tokenizer"])
"""vLLM has this route only with `--enable-tokenizer-info-endpoint`."""


@router.post(
    "/tokenize",
    response_model=TokenizeResponse,
    openapi_extra=request_body_schema(TokenizePromptRequest, TokenizeChatRequest),
)
async def tokenize(request: Request, service: TokenizerServiceDependency) -> Response:
    """Makes a text or a conversation into the model's tokens."""
    body = await read_body(request)
    asked = await model_of(request, body, tokenize_model)
    response = await run_until_disconnect(request.receive, service.tokenize(asked, len(body)))
    return await _json(response, len(body))


@router.post("/detokenize", response_model=DetokenizeResponse, openapi_extra=request_body_schema(DetokenizeRequest))
async def detokenize(request: Request, service: TokenizerServiceDependency) -> Response:
    """Makes the model's tokens into a text."""
    body = await read_body(request)
    asked = await model_of(request, body, lambda _body: DetokenizeRequest)
    response = await run_until_disconnect(request.receive, service.detokenize(asked, len(body)))
    return await _json(response, len(body))


@info_router.get("/tokenizer_info")
async def tokenizer_info(service: TokenizerServiceDependency) -> dict[str, Any]:
    """Describes the default model's tokenizer."""
    return dict(service.info())


async def _json(response: TokenizeResponse | DetokenizeResponse, size_bytes: int) -> Response:
    body = await to_thread_if_large(size_bytes, lambda: _encoded(response))
    return Response(body, media_type="application/json")


def _encoded(response: TokenizeResponse | DetokenizeResponse) -> bytes:
    members = [
        b'"%b":%b' % (field.name.encode(), _encoded_value(getattr(response, field.name))) for field in fields(response)
    ]
    return b"{%b}" % b",".join(members)


def _encoded_value(value: object) -> bytes:
    # One call for a long list would keep the interpreter's lock, and with it the event loop, until its end.
    if not isinstance(value, list):
        return to_json(value)
    slices = [to_json(value[start : start + SLICE_ITEMS])[1:-1] for start in range(0, len(value), SLICE_ITEMS)]
    return b"[%b]" % b",".join(slices)
