"""Routes for those who run the server."""

from fastapi import APIRouter, Response

from app.core.dependencies import MetricsDependency, ServerLoadDependency
from app.core.metrics import METRICS_CONTENT_TYPE

VLLM_VERSION = "0.32.0"
"""The version of vLLM whose interface this is."""

router = APIRouter(tags=["operations"])


@router.get("/health")
async def health() -> dict[str, str]:
    """Says that the server runs. It asks nothing of OpenAI."""
    return {"status": "healthy", "service": "llm-server"}


@router.get("/ping", response_class=Response)
@router.post("/ping", response_class=Response)
async def ping() -> Response:
    """Says that the server runs, as Amazon SageMaker asks it."""
    return Response()


@router.get("/version")
async def version() -> dict[str, str]:
    """Says which vLLM's interface this is."""
    return {"version": VLLM_VERSION}


@router.get("/load")
async def load(server_load: ServerLoadDependency) -> dict[str, int]:
    """Says how many requests are being answered."""
    return {"server_load": server_load.requests}


@router.get("/metrics", response_class=Response)
async def metrics(metrics: MetricsDependency) -> Response:
    """Tells Prometheus what was counted."""
    return Response(metrics.exposition(), media_type=METRICS_CONTENT_TYPE)
