"""Calls simple endpoints without FastAPI's router."""

from collections.abc import Awaitable, Callable, Iterable
from inspect import iscoroutinefunction
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.http.asgi_scope import route_path


class DirectRoutesMiddleware:
    """Calls the endpoint of one of `routes` if method and path match it exactly.

    FastAPI's routing, made for parameters and results of every kind, is a fifth of a request's calls
    (docs/decisions/0007). It still handles other paths and methods, endpoints with parameters beyond the Request and
    async dependencies on it, and applications with dependency overrides. The endpoints must return a `Response`.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self.app = app
        self._endpoints = {
            (method, route.path): _Endpoint(route)
            for route in routes
            if isinstance(route, APIRoute) and _takes_only_request(route.dependant)
            for method in route.methods or ()
        }

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        endpoint = self._endpoints.get((scope["method"], route_path(scope))) if scope["type"] == "http" else None
        if endpoint is None or scope["app"].dependency_overrides:
            return self.app(scope, receive, send)
        return endpoint.response(scope, receive, send)


def _takes_only_request(needs: Dependant) -> bool:
    """True if its only parameters are the Request and flat async dependencies on it."""
    others = (
        *(needs.path_params, needs.query_params, needs.header_params, needs.cookie_params, needs.body_params),
        *(needs.response_param_name, needs.background_tasks_param_name, needs.http_connection_param_name),
        needs.security_scopes_param_name,
    )
    return needs.request_param_name is not None and not any(others) and all(map(_is_simple, needs.dependencies))


def _is_simple(dependency: Dependant) -> bool:
    # An unnamed dependency is a guard (`dependencies=[...]`), which FastAPI must run.
    is_flat = dependency.name is not None and iscoroutinefunction(dependency.call) and not dependency.dependencies
    return is_flat and _takes_only_request(dependency)


class _Endpoint:
    def __init__(self, route: APIRoute) -> None:
        self._call: Callable[..., Awaitable[Response]] = route.endpoint
        self._providers = [(str(each.name), each.call) for each in route.dependant.dependencies]

    async def response(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            arguments: dict[str, Any] = {}
            for name, provider in self._providers:
                arguments[name] = await provider(request)  # type: ignore[misc]  # `_is_simple` checked that
            response = await self._call(request, **arguments)
        except Exception as exc:
            handler = _handler_of(request, exc)
            if handler is None:
                raise
            response = await handler(request, exc)
            # An exception object that is raised for many requests would accumulate tracebacks.
            exc.__traceback__ = None
        await response(scope, receive, send)


def _handler_of(request: Request, exc: Exception) -> Callable[[Request, Exception], Awaitable[Response]] | None:
    """The handler that Starlette would find. None for unexpected exceptions: the outermost handler gets them."""
    handlers = request.app.exception_handlers
    return next((handlers[kind] for kind in type(exc).__mro__ if kind in handlers and kind is not Exception), None)
