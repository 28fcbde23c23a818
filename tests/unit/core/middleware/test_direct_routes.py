"""Endpoints called without FastAPI's router, over real sockets."""

import traceback
from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response

from app.core.errors.request_errors import RequestError
from app.core.http.error_handlers import register_error_handlers
from app.core.middleware.direct_routes import DirectRoutesMiddleware
from tests.serving import served

KEPT = RequestError("kept")
router = APIRouter()


async def provided(_request: Request) -> str:
    return "given"


@router.post("/echo")
async def echo(request: Request, word: Annotated[str, Depends(provided)]) -> Response:
    return Response(await request.body() + word.encode() + str(request.scope.get("route")).encode())


async def nested(word: Annotated[str, Depends(provided)]) -> str:
    return f"nested {word}"


@router.post("/deep")
async def deep(_request: Request, word: Annotated[str, Depends(nested)]) -> Response:
    return Response(word)


@router.post("/ask")
async def ask(_request: Request, word: str) -> Response:
    return Response(word)


async def forbid_guests(request: Request) -> None:
    if "guest" in request.query_params:
        raise RequestError("forbidden")


@router.post("/guarded", dependencies=[Depends(forbid_guests)])
async def guarded(_request: Request) -> Response:
    return Response()


@router.post("/nothing")
async def take_nothing() -> Response:
    return Response("nothing")


@router.post("/reject")
async def reject(_request: Request) -> Response:
    raise KEPT


@router.post("/fail")
async def fail(_request: Request) -> Response:
    raise KeyError("a secret")


def application() -> FastAPI:
    app = FastAPI()
    register_error_handlers(app)
    app.add_middleware(DirectRoutesMiddleware, routes=router.routes)
    app.include_router(router)
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with served(application()) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


async def test_an_endpoint_gets_its_request_and_dependencies(client: httpx.AsyncClient) -> None:
    # FastAPI's router would have set `route` in the scope.
    assert (await client.post("/echo", content=b"said, ")).text == "said, givenNone"


async def test_other_methods_and_paths_are_left_to_fastapi(client: httpx.AsyncClient) -> None:
    assert [(await client.get("/echo")).status_code, (await client.post("/nope")).status_code] == [405, 404]
    assert (await client.post("/echo/")).headers["location"].endswith("/echo")


async def test_endpoints_with_other_parameters_are_left_to_fastapi(client: httpx.AsyncClient) -> None:
    assert (await client.post("/ask?word=asked")).text == "asked"
    assert (await client.post("/deep")).text == "nested given"
    assert (await client.post("/nothing")).text == "nothing"


async def test_a_guard_dependency_runs(client: httpx.AsyncClient) -> None:
    assert (await client.post("/guarded")).status_code == 200
    assert (await client.post("/guarded?guest")).json()["error"]["message"] == "forbidden"


async def test_dependencies_can_be_overridden() -> None:
    app = application()
    app.dependency_overrides[provided] = lambda: "other"
    async with served(app) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/echo")).text.startswith("other")


async def test_an_exception_goes_to_the_applications_handler(client: httpx.AsyncClient) -> None:
    responses = [await client.post("/reject") for _ in range(3)]

    assert [(each.status_code, each.json()["error"]["message"]) for each in responses] == [(400, "kept")] * 3
    assert not traceback.extract_tb(KEPT.__traceback__)


async def test_a_bug_is_a_500_and_logged(capsys: pytest.CaptureFixture[str]) -> None:
    async with served(application()) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post("/fail")

    assert (response.status_code, response.json()["error"]["type"]) == (500, "InternalServerError")
    assert "KeyError" in capsys.readouterr().err
