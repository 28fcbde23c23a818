"""Composition root: builds the parts from the settings, opens them in the lifespan, hands them to the routes."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from pydantic import TypeAdapter, ValidationError

from app.core.config import EVERY_MODEL, Settings, SettingsError, complaint
from app.core.lifecycle import Lifecycle
from app.core.load import ServerLoad
from app.features.llm.catalogue import Catalogue, ModelFamily
from app.features.llm.client import OpenAIClient, new_session
from app.features.llm.service import LLMService

logger = logging.getLogger(__name__)

_FAMILIES = TypeAdapter(dict[str, ModelFamily])


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of one application."""

    settings: Settings
    openai_client: OpenAIClient
    llm_service: LLMService
    catalogue: Catalogue
    lifecycle: Lifecycle
    server_load: ServerLoad = field(default_factory=ServerLoad)


def build_components(settings: Settings) -> Components:
    """The parts, wired, without I/O.

    Raises:
        SettingsError: MODEL_FAMILIES describes a model in a way that cannot be understood.
    """
    key = settings.openai_api_key
    served = None if settings.served_models == EVERY_MODEL else _served_models(settings)
    catalogue = Catalogue(served, _described_models(settings))
    lifecycle = Lifecycle()
    client = OpenAIClient(
        # Without a key the lifespan refuses to start; /health and /v1/models answer without either.
        key.get_secret_value() if key else "missing",
        settings.openai_base_url,
        organization=settings.openai_org_id,
        project=settings.openai_project_id,
        catalogue=catalogue,
        unsupported_params=settings.unsupported_params,
        usage_details=settings.enable_prompt_tokens_details,
        lifecycle=lifecycle,
    )
    service = LLMService(
        client,
        default_model=_default_model(settings, catalogue),
        default_temperature=settings.default_temperature,
        catalogue=catalogue,
    )
    return Components(settings, client, service, catalogue, lifecycle)


def _served_models(settings: Settings) -> dict[str, str]:
    if isinstance(settings.served_models, dict):
        return settings.served_models
    return {settings.default_model: settings.default_model}


def _described_models(settings: Settings) -> dict[str, ModelFamily]:
    try:
        return _FAMILIES.validate_python(settings.model_families)
    except ValidationError as exc:
        raise SettingsError(complaint(exc, "model_families")) from None


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
    for name, day in components.catalogue.ending(date.today()).items():
        logger.warning("OpenAI shuts down the model served as %r on %s: choose another in time", name, day)
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


async def get_server_load(request: Request) -> ServerLoad:
    """The load of the application that handles `request`."""
    return _components(request.app).server_load


LLMServiceDependency = Annotated[LLMService, Depends(get_llm_service)]
ServerLoadDependency = Annotated[ServerLoad, Depends(get_server_load)]
