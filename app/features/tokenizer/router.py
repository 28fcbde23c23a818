"""vLLM's tokenizer routes. As in vLLM, they have no /v1 prefix."""

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
"""List items encoded as JSON in one call."""

REQUEST_MODELS = (TokenizePromptRequest, TokenizeChatRequest, DetokenizeRequest)
"""The request models of these routes, for OpenAPI."""

router = APIRouter(tags=["tokenizer"])
info_router = APIRouter(tags=["tokenizer"])
"""Served only with `--enable-tokenizer-info-endpoint`, as in vLLM."""


@router.post(
    "/tokenize",
    response_model=TokenizeResponse,
    openapi_extra=request_body_schema(TokenizePromptRequest, TokenizeChatRequest),
)
async def tokenize(request: Request, service: TokenizerServiceDependency) -> Response:
    """Encode a prompt or a conversation into token ids."""
    body = await read_body(request)
    tokenizer_request = await model_of(request, body, tokenize_model)
    response = await run_until_disconnect(request.receive, service.tokenize(tokenizer_request, len(body)))
    return await _json_response(response, len(body))


@router.post("/detokenize", response_model=DetokenizeResponse, openapi_extra=request_body_schema(DetokenizeRequest))
async def detokenize(request: Request, service: TokenizerServiceDependency) -> Response:
    """Decode token ids into text."""
    body = await read_body(request)
    tokenizer_request = await model_of(request, body, lambda _body: DetokenizeRequest)
    response = await run_until_disconnect(request.receive, service.detokenize(tokenizer_request, len(body)))
    return await _json_response(response, len(body))


@info_router.get("/tokenizer_info")
async def tokenizer_info(service: TokenizerServiceDependency) -> dict[str, Any]:
    """Return the configuration of the default model's tokenizer."""
    return dict(service.info())


async def _json_response(response: TokenizeResponse | DetokenizeResponse, size_bytes: int) -> Response:
    body = await to_thread_if_large(size_bytes, lambda: _encode(response))
    return Response(body, media_type="application/json")


def _encode(response: TokenizeResponse | DetokenizeResponse) -> bytes:
    members = [
        b'"%b":%b' % (field.name.encode(), _encode_value(getattr(response, field.name))) for field in fields(response)
    ]
    return b"{%b}" % b",".join(members)


def _encode_value(value: object) -> bytes:
    # A single call for a long list would hold the interpreter lock to its end, and block the event loop.
    if not isinstance(value, list):
        return to_json(value)
    slices = [to_json(value[start : start + SLICE_ITEMS])[1:-1] for start in range(0, len(value), SLICE_ITEMS)]
    return b"[%b]" % b",".join(slices)
