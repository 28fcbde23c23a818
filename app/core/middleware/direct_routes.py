"""Endpoints that are called without FastAPI's router."""

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
    """Answers a request whose method and path are those of one of `routes`.

    Their endpoints return a response. FastAPI's own way there, made for parameters and answers of every kind, is a
    fifth of a request's calls (docs/decisions/0007). It is taken for all else: other paths and methods, endpoints that
    take more than the request and what coroutine functions make of it, and applications that override dependencies.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self.app = app
        self._endpoints = {
            (method, route.path): _Endpoint(route)
            for route in routes
            if isinstance(route, APIRoute) and _takes_the_request_only(route.dependant)
            for method in route.methods or ()
        }

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The answer, by the endpoint or by the application behind this."""
        endpoint = self._endpoints.get((scope["method"], route_path(scope))) if scope["type"] == "http" else None
        if endpoint is None or scope["app"].dependency_overrides:
            return self.app(scope, receive, send)
        return endpoint.response(scope, receive, send)


def _takes_the_request_only(needs: Dependant) -> bool:
    """Whether it takes the request, and beside it nothing but what coroutine functions make of the request."""
    others = (
        *(needs.path_params, needs.query_params, needs.header_params, needs.cookie_params, needs.body_params),
        *(needs.response_param_name, needs.background_tasks_param_name, needs.http_connection_param_name),
        needs.security_scopes_param_name,
    )
    return needs.request_param_name is not None and not any(others) and all(map(_is_made_of_it, needs.dependencies))


def _is_made_of_it(given: Dependant) -> bool:
    # Without a name it is a condition, not a value: FastAPI sees to those.
    is_plain = given.name is not None and iscoroutinefunction(given.call) and not given.dependencies
    return is_plain and _takes_the_request_only(given)


class _Endpoint:
    def __init__(self, route: APIRoute) -> None:
        self._call: Callable[..., Awaitable[Response]] = route.endpoint
        self._providers = [(str(given.name), given.call) for given in route.dependant.dependencies]

    async def response(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            given: dict[str, Any] = {}
            for name, provider in self._providers:
                given[name] = await provider(request)  # type: ignore[misc]  # ours are all coroutine functions
            response = await self._call(request, **given)
        except Exception as exc:
            # Whatever the application has a handler for, as in Starlette.
            handler = _handler_of(request, exc)
            if handler is None:
                raise
            response = await handler(request, exc)
            # An exception that is kept, to be raised for the next request too, would gather tracebacks.
            exc.__traceback__ = None
        await response(scope, receive, send)


def _handler_of(request: Request, exc: Exception) -> Callable[[Request, Exception], Awaitable[Response]] | None:
    """The application's handler for it, as FastAPI would find it; bugs are left to the outermost one."""
    handlers = request.app.exception_handlers
    return next((handlers[kind] for kind in type(exc).__mro__ if kind in handlers and kind is not Exception), None)
