"""vLLM routes that this server only rejects, as vLLM does by default."""

from fastapi import APIRouter, Request, Response

from app.core.errors.request_errors import ErrorResponse
from app.core.http.error_response import json_error_response
from app.core.http.openapi import request_body_schema
from app.core.http.request_body import read_model
from app.features.unsupported.schema import DecisionRequest

REQUEST_MODELS = (DecisionRequest,)
"""The request models of these routes, for the OpenAPI schema."""

NO_DECISIONS = ErrorResponse(501, "The model does not support the Decisions API", type="NotImplementedError")
NO_SCALE_OUT = ErrorResponse(
    403,
    "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them.",
    type="PermissionDeniedError",
)

router = APIRouter(tags=["unsupported"])


@router.post(
    "/v1/decisions",
    status_code=501,
    response_class=Response,
    openapi_extra=request_body_schema(DecisionRequest),
)
async def create_decision(request: Request) -> Response:
    """Check the body, then report that the model does not support decisions."""
    await read_model(request, lambda _body: DecisionRequest)
    return json_error_response(NO_DECISIONS)


@router.post("/v1/chat/completions/render", include_in_schema=False)
@router.post("/v1/chat/completions/derender", include_in_schema=False)
@router.post("/v1/completions/render", include_in_schema=False)
@router.post("/v1/completions/derender", include_in_schema=False)
@router.post("/v1/responses/render", include_in_schema=False)
@router.post("/v1/messages/render", include_in_schema=False)
@router.post("/inference/v1/generate", include_in_schema=False)
@router.post("/inference/v1/abort_requests", include_in_schema=False)
async def scale_out() -> Response:
    """Report that the scale-out endpoints are disabled; vLLM's description leaves them out too."""
    return json_error_response(NO_SCALE_OUT)
