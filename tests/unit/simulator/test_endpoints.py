"""Keys, paths, headers and embeddings."""

import base64
import math
import re
import struct
from typing import Any

import httpx
import pytest

from app.simulator.server import Simulator

NO_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY)"
)
HEADERS = {
    "x-request-id": "req_[0-9a-f]{32}",
    "openai-processing-ms": r"\d+",
    "openai-organization": "org-simulator0123456789ABCD",
    "openai-project": "proj_simulator0123456789ABCD",
    "openai-version": "2020-10-01",
    "x-ratelimit-limit-requests": r"\d+",
    "x-ratelimit-remaining-requests": r"\d+",
    "x-ratelimit-reset-requests": r"[\d.]+m?s",
    "x-ratelimit-limit-tokens": r"\d+",
    "x-ratelimit-remaining-tokens": r"\d+",
    "x-ratelimit-reset-tokens": r"[\d.]+m?s",
    "set-cookie": "__cf_bm=[0-9a-f]+; path=/; HttpOnly",
    "cf-ray": "[0-9a-f]{16}-[A-Z]{3}",
    "alt-svc": "h3=.*",
    "strict-transport-security": "max-age=.*",
    "server": "cloudflare",
}
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}


def embed(given: Any, **members: Any) -> dict[str, Any]:
    return {"model": "text-embedding-3-small", "input": given, **members}


async def vectors(client: httpx.AsyncClient, body: dict[str, Any]) -> list[Any]:
    response = await client.post("/embeddings", json=body)
    assert response.status_code == 200, response.text
    return [entry["embedding"] for entry in response.json()["data"]]


@pytest.mark.parametrize("header", [None, "", "Basic c2s6", "Bearer", "sk-test"])
async def test_a_missing_key_is_a_401(simulator: Simulator, header: str | None) -> None:
    async with httpx.AsyncClient(headers={"Authorization": header} if header is not None else {}) as client:
        response = await client.get(simulator.base_url + "/models")
    error = response.json()["error"]
    assert response.status_code == 401
    assert error["message"].startswith(NO_KEY)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, None)


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        pytest.param("sk-proj-wrong-0123456789", "sk-proj-************6789", id="long"),
        pytest.param("pk-123", "pk-123", id="short"),
        pytest.param("sk-wrong9012", "sk-wrong9012", id="nothing to hide"),
        pytest.param("sk-wrong90123", "sk-wrong*0123", id="one to hide"),
    ],
)
async def test_a_wrong_key_is_shown_masked(client: httpx.AsyncClient, key: str, shown: str) -> None:
    response = await client.post("/chat/completions", json=CHAT, headers={"Authorization": f"Bearer {key}"})
    assert response.status_code == 401
    assert response.json()["error"] == {
        "message": (
            f"Incorrect API key provided: {shown}. "
            "You can find your API key at https://platform.openai.com/account/api-keys."
        ),
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }


@pytest.mark.parametrize(("key", "status"), [("only-this", 200), ("only-thi", 401), ("sk-test", 401)])
async def test_a_configured_key_is_the_only_one_accepted(key: str, status: int) -> None:
    async with Simulator(api_key="only-this") as simulator, httpx.AsyncClient() as client:
        response = await client.get(simulator.base_url + "/models", headers={"Authorization": f"Bearer {key}"})
    assert response.status_code == status


@pytest.mark.parametrize(
    ("method", "path", "status", "problem"),
    [
        ("POST", "/foo", 404, "Invalid URL (POST /v1/foo)"),
        ("GET", "/foo", 404, "Invalid URL (GET /v1/foo)"),
        ("POST", "/completions", 404, "Invalid URL (POST /v1/completions)"),
        ("GET", "/chat/completions", 405, "Invalid method for URL (GET /v1/chat/completions)"),
        ("POST", "/models", 405, "Invalid method for URL (POST /v1/models)"),
        ("HEAD", "/models", 405, ""),
    ],
)
async def test_unknown_paths_and_methods_are_errors_even_without_a_key(
    simulator: Simulator, method: str, path: str, status: int, problem: str
) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.request(method, simulator.base_url + path)
    assert response.status_code == status
    if problem:
        error = {"message": problem, "type": "invalid_request_error", "param": None, "code": None}
        assert response.json() == {"error": error}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/completions", CHAT),
        ("/chat/completions", CHAT | {"stream": True}),
        ("/chat/completions", {}),
        ("/nowhere", {}),
    ],
    ids=["whole", "stream", "error", "no such path"],
)
async def test_every_response_has_openais_headers(client: httpx.AsyncClient, path: str, body: Any) -> None:
    response = await client.post(path, json=body)
    for name, pattern in HEADERS.items():
        (value,) = response.headers.get_list(name)
        assert re.fullmatch(pattern, value), (name, value)


async def test_every_response_has_its_own_request_id(client: httpx.AsyncClient) -> None:
    ids = {(await client.get("/models")).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("model", "length"),
    [("text-embedding-3-small", 1536), ("text-embedding-3-large", 3072), ("text-embedding-ada-002", 1536)],
)
async def test_an_embedding_is_a_unit_vector(client: httpx.AsyncClient, model: str, length: int) -> None:
    (vector,) = await vectors(client, embed("garden", model=model))
    assert len(vector) == length
    assert math.isclose(sum(number * number for number in vector), 1)


async def test_an_embedding_depends_only_on_the_text(client: httpx.AsyncClient) -> None:
    first, second = await vectors(client, embed(["garden", "forest"]))
    assert await vectors(client, embed("garden")) == [first]
    assert first != second


async def test_dimensions_shorten_an_embedding(client: httpx.AsyncClient) -> None:
    (vector,) = await vectors(client, embed("garden", dimensions=8))
    assert len(vector) == 8
    assert math.isclose(sum(number * number for number in vector), 1)


async def test_base64_encodes_the_same_numbers(client: httpx.AsyncClient) -> None:
    (numbers,) = await vectors(client, embed("garden", dimensions=8, encoding_format="float"))
    (encoded,) = await vectors(client, embed("garden", dimensions=8, encoding_format="base64"))
    assert struct.unpack("<8f", base64.b64decode(encoded)) == pytest.approx(numbers, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "count", "used"),
    [("one two", 1, 2), (["one", "two three"], 2, 3), ([1, 2, 3], 1, 3), ([[1, 2], [3]], 2, 3)],
    ids=["text", "texts", "tokens", "lists of tokens"],
)
async def test_embeddings_accept_every_kind_of_input(
    client: httpx.AsyncClient, given: Any, count: int, used: int
) -> None:
    body = (await client.post("/embeddings", json=embed(given))).json()
    assert [entry["index"] for entry in body["data"]] == list(range(count))
    assert body["usage"] == {"prompt_tokens": used, "total_tokens": used}
    assert body["model"] == "text-embedding-3-small"


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        pytest.param(embed("x", model="gpt-4o-mini"), 404, "The model `gpt-4o-mini` does not exist", id="chat model"),
        pytest.param(embed("x", top_k=1), 400, "Unrecognized request argument supplied: top_k", id="unknown"),
        pytest.param({"model": "x"}, 400, "Missing required parameter: 'input'.", id="no input"),
        pytest.param({"input": "x"}, 400, "Missing required parameter: 'model'.", id="no model"),
        pytest.param(embed(""), 400, "Invalid 'input': empty string.", id="empty"),
        pytest.param(embed([]), 400, "Invalid 'input': empty array.", id="no inputs"),
        pytest.param(embed(5), 400, "Invalid type for 'input'", id="number"),
        pytest.param(embed([None]), 400, "Invalid type for 'input[0]'", id="null"),
        pytest.param(embed(["x"] * 2049), 400, "Invalid 'input': array too long.", id="too many"),
        pytest.param(embed(" x" * 8193), 400, "This model's maximum context length is 8192 tokens", id="too long"),
        pytest.param(embed("x", dimensions=1537), 400, "Invalid 'dimensions': integer above maximum", id="too wide"),
        pytest.param(
            embed("x", model="text-embedding-ada-002", dimensions=8),
            400,
            "This model does not support specifying dimensions.",
            id="dimensions of ada",
        ),
        pytest.param(embed("x", encoding_format="hex"), 400, "Invalid value: 'hex'.", id="format"),
    ],
)
async def test_invalid_embeddings_requests_are_rejected(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, problem: str
) -> None:
    response = await client.post("/embeddings", json=body)
    assert response.status_code == status
    assert response.json()["error"]["message"].startswith(problem)


async def test_mixed_embedding_inputs_are_rejected(client: httpx.AsyncClient) -> None:
    response = await client.post("/embeddings", json=embed([1, "x"]))
    assert response.status_code == 400


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("localhost", "localhost")])
async def test_the_base_url_is_usable_by_a_client(host: str, shown: str) -> None:
    async with Simulator(host=host) as simulator, httpx.AsyncClient() as client:
        assert simulator.base_url.startswith(f"http://{shown}:")
        response = await client.get(simulator.base_url + "/models", headers={"Authorization": "Bearer sk-a"})
    assert response.status_code == 200
