"""Composition root: builds the parts from the settings, opens them in the lifespan, hands them to the routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from app.core.config import EVERY_MODEL, Settings
from app.features.llm.catalogue import Catalogue
from app.features.llm.client import OpenAIClient, new_session
from app.features.llm.service import LLMService


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of one application."""

    settings: Settings
    openai_client: OpenAIClient
    llm_service: LLMService


def build_components(settings: Settings) -> Components:
    """The parts, wired, without I/O."""
    key = settings.openai_api_key
    served = None if settings.served_models == EVERY_MODEL else _served_models(settings)
    catalogue = Catalogue(served)
    client = OpenAIClient(
        # Without a key the lifespan refuses to start; /health and /v1/models answer without either.
        key.get_secret_value() if key else "missing",
        settings.openai_base_url,
        organization=settings.openai_org_id,
        project=settings.openai_project_id,
        catalogue=catalogue,
    )
    service = LLMService(
        client,
        default_model=_default_model(settings, catalogue),
        default_temperature=settings.default_temperature,
        catalogue=catalogue,
    )
    return Components(settings, client, service)


def _served_models(settings: Settings) -> dict[str, str]:
    if isinstance(settings.served_models, dict):
        return settings.served_models
    return {settings.default_model: settings.default_model}


def _default_model(settings: Settings, catalogue: Catalogue) -> str:
    if catalogue.names is None or "default_model" in settings.model_fields_set:
        return settings.default_model
    return catalogue.names[0]


def _components(app: FastAPI) -> Components:
    components: Components = app.state.components
    return components


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Holds the session to OpenAI open while the server runs.

    Raises:
        SettingsError: there is no key.
    """
    components = _components(app)
    settings = components.settings
    settings.require_api_key()
    session = new_session(
        connect_timeout_s=settings.upstream_connect_timeout_s, read_timeout_s=settings.upstream_read_timeout_s
    )
    async with session:
        components.openai_client.attach(session)
        yield


async def get_openai_client(request: Request) -> OpenAIClient:
    """The client of the application that handles `request`."""
    return _components(request.app).openai_client


async def get_llm_service(request: Request) -> LLMService:
    """The service of the application that handles `request`."""
    return _components(request.app).llm_service


LLMServiceDependency = Annotated[LLMService, Depends(get_llm_service)]
