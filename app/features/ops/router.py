"""Health, version, load and metrics routes for operators."""

from fastapi import APIRouter, Response

from app.core.dependencies import MetricsDependency, ServerLoadDependency
from app.core.metrics import METRICS_CONTENT_TYPE

VLLM_VERSION = "0.33.0"
"""The version of vLLM whose HTTP interface this server implements."""

router = APIRouter(tags=["operations"])


@router.get("/health")
async def health() -> dict[str, str]:
    """Report that the server is running, without a call to OpenAI."""
    return {"status": "healthy", "service": "llm-server"}


@router.get("/ping", response_class=Response)
@router.post("/ping", response_class=Response)
async def ping() -> Response:
    """Report that the server is running (Amazon SageMaker's health check)."""
    return Response()


@router.get("/version")
async def version() -> dict[str, str]:
    """Return the version of vLLM that this server is compatible with."""
    return {"version": VLLM_VERSION}


@router.get("/load")
async def load(server_load: ServerLoadDependency) -> dict[str, int]:
    """Return the number of requests in progress."""
    return {"server_load": server_load.requests}


@router.get("/metrics", response_class=Response)
async def metrics(metrics: MetricsDependency) -> Response:
    """Return the metrics in Prometheus's text format."""
    return Response(metrics.exposition(), media_type=METRICS_CONTENT_TYPE)
