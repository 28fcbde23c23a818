"""Composition root: builds the components from the settings, opens them in the lifespan, provides them to routes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from pydantic import ValidationError

from app.core.config import EVERY_MODEL, Settings, SettingsError, settings_error
from app.core.lifecycle import Aborted, Lifecycle
from app.core.limits.concurrency_limit import ConcurrencyLimiter
from app.core.limits.rate_limit import RateLimiter
from app.core.logs.records import protect_logs
from app.core.metrics import Metrics, ServerLoad
from app.core.redaction import Redactor, proxy_secrets
from app.core.settings.environment import environment_proxy
from app.features.llm.catalogue import Catalogue, RetirementPolicy, utc_today
from app.features.llm.client import OpenAIClient
from app.features.llm.model_families import ModelFamily, described_family
from app.features.llm.service import LLMService
from app.features.llm.startup_check import startup_problem
from app.features.llm.to_openai.reasoning_effort import EffortPolicy
from app.features.tokenizer.service import TokenizerService
from app.upstream.hosts import is_openai
from app.upstream.session import new_session
from app.upstream.timeouts import Timeouts

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Components:
    """The components of one application."""

    settings: Settings
    openai_client: OpenAIClient
    llm_service: LLMService
    tokenizer_service: TokenizerService
    catalogue: Catalogue
    lifecycle: Lifecycle
    metrics: Metrics
    concurrency_limiter: ConcurrencyLimiter
    rate_limiter: RateLimiter | None
    server_load: ServerLoad = field(default_factory=ServerLoad)


def build_components(settings: Settings, *, today: Callable[[], date] = utc_today) -> Components:
    """Build and wire the components, without I/O. From here on the process redacts the settings' secrets in its logs.

    `today` decides which models OpenAI has shut down.

    Raises:
        SettingsError: the description of a model in MODEL_FAMILIES is invalid.
    """
    redactor = Redactor([*settings.secrets, *proxy_secrets(environment_proxy(settings.openai_base_url))])
    protect_logs(redactor)
    served = None if settings.served_models == EVERY_MODEL else _served_models(settings)
    retirement = RetirementPolicy(settings.retired_models, is_openai(settings.openai_base_url), today)
    catalogue = Catalogue(served, _described_models(settings), retirement)
    lifecycle = Lifecycle()
    metrics = Metrics()
    concurrency_limiter = ConcurrencyLimiter(
        max_calls=settings.max_upstream_calls,
        max_queued=settings.max_num_queued_reqs,
        queue_timeout_s=settings.queue_timeout_s,
    )
    # Without a key the lifespan fails; /health and /v1/models work even without the lifespan.
    first_key, *further_keys = settings.api_keys or ("missing",)
    client = OpenAIClient(
        first_key,
        settings.openai_base_url,
        organization=settings.openai_org_id,
        project=settings.openai_project_id,
        catalogue=catalogue,
        unsupported_params=settings.unsupported_params,
        usage_details=settings.enable_prompt_tokens_details,
        effort_policy=EffortPolicy(
            settings.default_chat_template_kwargs, settings.reasoning_effort_map, settings.reasoning_reserve_tokens
        ),
        lifecycle=lifecycle,
        further_keys=further_keys,
        timeouts=_timeouts(settings),
        max_attempts=settings.upstream_max_attempts,
        metrics=metrics.upstream,
        concurrency_limiter=concurrency_limiter,
        redactor=redactor,
    )
    default_model = _default_model(settings, catalogue)
    service = LLMService(
        client,
        default_model=default_model,
        default_temperature=settings.default_temperature,
        catalogue=catalogue,
        completions_system_prompt=settings.completions_system_prompt,
    )
    tokenizer = TokenizerService(catalogue, default_model=default_model)
    return Components(
        settings,
        client,
        service,
        tokenizer,
        catalogue,
        lifecycle,
        metrics,
        concurrency_limiter,
        _rate_limiter(settings),
    )


def _rate_limiter(settings: Settings) -> RateLimiter | None:
    limits = (settings.key_requests_per_minute, settings.key_tokens_per_minute, settings.key_concurrent_requests)
    if not any(limits):
        return None
    requests, tokens, concurrent = limits
    return RateLimiter(requests_per_minute=requests, tokens_per_minute=tokens, concurrent_requests=concurrent)


def _timeouts(settings: Settings) -> Timeouts:
    return Timeouts(
        connect_s=settings.upstream_connect_timeout_s,
        first_byte_s=settings.upstream_first_byte_timeout_s,
        idle_s=settings.upstream_idle_timeout_s,
        total_s=settings.upstream_total_timeout_s,
    )


def _served_models(settings: Settings) -> dict[str, str]:
    if isinstance(settings.served_models, dict):
        return settings.served_models
    return {settings.default_model: settings.default_model}


def _described_models(settings: Settings) -> dict[str, ModelFamily]:
    return {name: _described_model(name, description) for name, description in settings.model_families.items()}


def _described_model(name: str, description: Mapping[str, object]) -> ModelFamily:
    try:
        return described_family(description)
    except ValidationError as exc:
        raise settings_error(exc, "model_families", name) from None


def _default_model(settings: Settings, catalogue: Catalogue) -> str:
    if catalogue.names is None or "default_model" in settings.model_fields_set:
        return settings.default_model
    return catalogue.names[0]


def _components(app: FastAPI) -> Components:
    components: Components = app.state.components
    return components


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep the HTTP session for OpenAI open while the server runs.

    Raises:
        SettingsError: there is no key, or a required startup check failed.
    """
    components = _components(app)
    components.settings.require_api_key()
    async with new_session() as session:
        components.openai_client.attach(session)
        async with _startup_check(components):
            yield


@asynccontextmanager
async def _startup_check(components: Components) -> AsyncIterator[None]:
    """Run the startup check: before the server starts if it is required, else in the background."""
    mode = components.settings.startup_check
    if mode == "require":
        # A signal aborts the check; the server then exits right after its startup.
        with suppress(Aborted), components.lifecycle.abortable():
            problem = await _problem(components)
            if problem:
                raise SettingsError(problem)
    check = asyncio.create_task(_warn(components)) if mode == "warn" else None
    if check is None:
        _warn_of_shutdowns(components)
    try:
        yield
    finally:
        if check:
            check.cancel()
            await asyncio.gather(check, return_exceptions=True)


async def _warn(components: Components) -> None:
    if problem := await _problem(components):
        logger.warning("%s", problem)
    _warn_of_shutdowns(components)


def _warn_of_shutdowns(components: Components) -> None:
    for line in components.catalogue.shutdown_notices():
        logger.warning("%s", line)


async def _problem(components: Components) -> str | None:
    base_url = components.settings.openai_base_url
    return await startup_problem(components.openai_client, components.catalogue, base_url)


async def get_openai_client(request: Request) -> OpenAIClient:
    """The client of the application that handles `request`."""
    return _components(request.app).openai_client


async def get_llm_service(request: Request) -> LLMService:
    """The service of the application that handles `request`."""
    return _components(request.app).llm_service


async def get_tokenizer_service(request: Request) -> TokenizerService:
    """The tokenizer service of the application that handles `request`."""
    return _components(request.app).tokenizer_service


async def get_server_load(request: Request) -> ServerLoad:
    """The load of the application that handles `request`."""
    return _components(request.app).server_load


async def get_metrics(request: Request) -> Metrics:
    """The metrics of the application that handles `request`."""
    return _components(request.app).metrics


LLMServiceDependency = Annotated[LLMService, Depends(get_llm_service)]
TokenizerServiceDependency = Annotated[TokenizerService, Depends(get_tokenizer_service)]
ServerLoadDependency = Annotated[ServerLoad, Depends(get_server_load)]
MetricsDependency = Annotated[Metrics, Depends(get_metrics)]
