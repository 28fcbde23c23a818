"""What a request's body has to be before anybody looks into it, and a reader for bodies that may be long."""

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from app.core.encoding import beside_the_loop
from app.core.errors import Refusal
from app.features.llm.wire import refuse_lone_surrogates

Model = TypeVar("Model", bound=BaseModel)

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


async def json_body(request: Request) -> None:
    """Takes a body only where it is declared as JSON, exactly as vLLM does.

    Raises:
        Refusal: the content type is another, or there is none; the text in it is not valid Unicode.
    """
    _require_json(request)
    # A lone surrogate is valid in JSON's escapes and nowhere else: no answer, log or call could carry it.
    if _SURROGATE_ESCAPE.search(await request.body()):
        refuse_lone_surrogates(await request.json())


class JSONRoute(APIRoute):
    """A route whose endpoint takes the request, a model as `body`, and what `Depends` gives it.

    It reads the body itself: a long one beside the event loop, and every one in a fraction of the time that FastAPI's
    way through an endpoint's parameters takes. Answers and errors are the same, and so is the interface's description.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler (FastAPI's hook for custom routes)."""
        by_fastapi = super().get_route_handler()
        model = self.endpoint.__annotations__.get("body")
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return by_fastapi
        providers = {given.name: given.call for given in self.dependant.dependencies if given.name and given.call}

        async def handle(request: Request) -> Response:
            if request.app.dependency_overrides:
                return await by_fastapi(request)
            body = await read_model(request, lambda _value: model)
            given = {name: await provider(request) for name, provider in providers.items()}
            answer: Response = await self.endpoint(request, body, **given)
            return answer

        return handle


async def read_model(request: Request, model_for: Callable[[object], type[Model]]) -> Model:
    """The body as the model that `model_for` names for it. A long one does not keep the event loop waiting.

    Raises:
        Refusal: as `json_body`.
        RequestValidationError: it is no JSON, or does not fit the model; as FastAPI would say it.
        HTTPException: it cannot be decoded.
    """
    _require_json(request)
    body = await request.body()
    return await beside_the_loop(len(body), lambda: _validated(body, model_for))


def _require_json(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        # vLLM answers 400 here, not 415.
        message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise Refusal(message, type="Bad Request")


def _validated(body: bytes, model_for: Callable[[object], type[Model]]) -> Model:
    value = _parsed(body) if body else None
    if _SURROGATE_ESCAPE.search(body):
        refuse_lone_surrogates(value)
    if value is None:
        raise _invalid(type="missing", loc=("body",), msg="Field required", input=None)
    try:
        return model_for(value).model_validate(value, from_attributes=True)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
        raise RequestValidationError([{**error, "loc": ("body", *error["loc"])} for error in errors]) from None


def _parsed(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:
        return _parsed_slowly(body)


def _parsed_slowly(body: bytes) -> Any:
    """As FastAPI parses it: it takes a little more, and says where it fails as vLLM does."""
    try:
        return json.loads(body)
    except json.JSONDecodeError as exc:
        place, told = ("body", exc.pos), {"error": exc.msg}
        raise _invalid(type="json_invalid", loc=place, msg="JSON decode error", input={}, ctx=told) from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "There was an error parsing the body") from None


def _invalid(**error: object) -> RequestValidationError:
    return RequestValidationError([error])
