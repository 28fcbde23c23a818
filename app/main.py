"""Assembles the application: error handlers, middleware and routers, in order."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from functools import cache

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from app.core.config import Settings, SettingsError, load_settings
from app.core.dependencies import build_components, lifespan
from app.core.http.asgi_scope import PROBE_PATHS
from app.core.http.error_handlers import register_error_handlers
from app.core.http.openapi import register_models
from app.core.logs.access_log import install_access_log_filter
from app.core.middleware.authentication import AuthenticationMiddleware, ClientKeys
from app.core.middleware.cors import CrossOriginMiddleware
from app.core.middleware.direct_routes import DirectRoutesMiddleware
from app.core.middleware.draining import DrainingMiddleware
from app.core.middleware.overload import OverloadMiddleware
from app.core.middleware.rate_limiting import RateLimitMiddleware
from app.core.middleware.recording import RequestRecordMiddleware
from app.core.middleware.request_size import RequestSizeMiddleware
from app.core.middleware.sse_keep_alive import SSEKeepAliveMiddleware
from app.core.middleware.startup_failure import StartupFailureMiddleware
from app.features.llm.catalogue import utc_today
from app.features.llm.router import REQUEST_MODELS as LLM_REQUEST_MODELS
from app.features.llm.router import router as llm_router
from app.features.ops.router import router as ops_router
from app.features.tokenizer.router import REQUEST_MODELS as TOKENIZER_REQUEST_MODELS
from app.features.tokenizer.router import info_router as tokenizer_info_router
from app.features.tokenizer.router import router as tokenizer_router
from app.features.unsupported.router import REQUEST_MODELS as UNSUPPORTED_REQUEST_MODELS
from app.features.unsupported.router import router as unsupported_router

VERSION = "0.2.0"
"""This project's, as in pyproject.toml; `/version` has that of vLLM's interface."""

NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""Otherwise FastAPI looks for an OpenTelemetry SDK on every request; none is installed with this server."""


def create_app(settings: Settings, *, today: Callable[[], date] = utc_today) -> FastAPI:
    """Build the application for these settings, without opening connections.

    `today` decides which models OpenAI has shut down.

    Raises:
        SettingsError: the description of a model in MODEL_FAMILIES is invalid.
    """
    app = FastAPI(title="llm-server", version=VERSION, lifespan=lifespan, telemetry=NO_TELEMETRY)
    app.state.components = components = build_components(settings, today=today)
    register_error_handlers(app)
    app.add_middleware(DirectRoutesMiddleware, routes=llm_router.routes)
    # Also without allowed origins, as in vLLM: browsers then get an explicit rejection.
    app.add_middleware(
        CrossOriginMiddleware,
        allow_origins=settings.allowed_origins,
        allow_methods=settings.allowed_methods,
        allow_headers=settings.allowed_headers,
        allow_credentials=settings.allow_credentials,
    )
    install_access_log_filter(PROBE_PATHS)
    app.add_middleware(StartupFailureMiddleware)
    if settings.sse_keep_alive_interval:
        app.add_middleware(SSEKeepAliveMiddleware, interval_s=settings.sse_keep_alive_interval)
    app.add_middleware(RequestSizeMiddleware, max_body_bytes=settings.max_body_bytes)
    if components.rate_limiter:
        app.add_middleware(RateLimitMiddleware, rate_limiter=components.rate_limiter)
    app.add_middleware(OverloadMiddleware, concurrency_limiter=components.concurrency_limiter)
    app.add_middleware(DrainingMiddleware, lifecycle=components.lifecycle)
    if settings.vllm_api_key:
        # Outside CORS, as in vLLM: a 401 has no CORS headers.
        keys = ClientKeys([key.get_secret_value() for key in settings.vllm_api_key])
        app.add_middleware(AuthenticationMiddleware, keys=keys)
    app.add_middleware(RequestRecordMiddleware, load=components.server_load)
    app.include_router(llm_router)
    app.include_router(ops_router)
    app.include_router(tokenizer_router)
    app.include_router(unsupported_router)
    if settings.enable_tokenizer_info_endpoint:
        app.include_router(tokenizer_info_router)
    register_models(app, *LLM_REQUEST_MODELS, *TOKENIZER_REQUEST_MODELS, *UNSUPPORTED_REQUEST_MODELS)
    return app


def __getattr__(name: str) -> FastAPI:
    """`app.main:app`, for uvicorn: built from the environment on first access, not on import."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _app_of_environment()


@cache
def _app_of_environment() -> FastAPI:
    try:
        return create_app(load_settings())
    except SettingsError as exc:
        return _failing_app(exc)


def _failing_app(problem: SettingsError) -> FastAPI:
    """An application whose startup fails with `problem`, so that the server logs one line instead of a traceback."""

    @asynccontextmanager
    async def fail(_app: FastAPI) -> AsyncIterator[None]:
        raise problem
        yield

    app = FastAPI(lifespan=fail)
    app.add_middleware(StartupFailureMiddleware)
    return app
