"""A route for endpoints that need nothing of FastAPI but their dependencies."""

from collections.abc import Callable, Coroutine

from fastapi import Request, Response
from fastapi.routing import APIRoute


class PlainRoute(APIRoute):
    """Calls an endpoint that takes the request and what `Depends` gives it, and answers with a response.

    FastAPI's own way, made for parameters of every kind, is an eighth of a request's calls. It is
    taken where an application overrides dependencies. The interface's description is the same.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[object, object, Response]]:
        """The handler (FastAPI's hook for custom routes)."""
        by_fastapi = super().get_route_handler()
        providers = {given.name: given.call for given in self.dependant.dependencies if given.name and given.call}

        async def handle(request: Request) -> Response:
            if request.app.dependency_overrides:
                return await by_fastapi(request)
            given = {name: await provider(request) for name, provider in providers.items()}
            answer: Response = await self.endpoint(request, **given)
            return answer

        return handle
