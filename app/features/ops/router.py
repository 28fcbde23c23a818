"""Routes for those who run the server."""

from fastapi import APIRouter

router = APIRouter(tags=["operations"])


@router.get("/health")
async def health() -> dict[str, str]:
    """Says that the server runs. It asks nothing of OpenAI."""
    return {"status": "healthy", "service": "llm-server"}
