"""The routes over real sockets: requests and their responses."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.core.dependencies import get_llm_service
from app.features.llm.schema import ModelsResponse
from app.main import create_app
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.serving import served, served_over, settings_for

HELLO = {"messages": [{"role": "user", "content": "Say hello"}]}


def events(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def test_health_is_the_owners(client: httpx.AsyncClient) -> None:
    response = await client.get("/health")

    assert (response.status_code, response.json()) == (200, {"status": "healthy", "service": "llm-server"})
    assert "x-request-id" not in response.headers


async def test_a_response_has_vllms_keys_in_its_order(client: httpx.AsyncClient) -> None:
    completion = (await client.post(CHAT, json=HELLO)).json()

    assert list(completion) == [
        "id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage", "prompt_logprobs",
        "prompt_token_ids", "prompt_text", "kv_transfer_params", "ec_transfer_params", "metrics",
    ]  # fmt: skip
    (choice,) = completion["choices"]
    assert list(choice) == [
        "index", "message", "logprobs", "finish_reason", "stop_reason", "token_ids", "routed_experts",
        "weight_versions",
    ]  # fmt: skip
    assert list(choice["message"]) == [
        "role", "content", "refusal", "annotations", "audio", "function_call", "reasoning",
    ]  # fmt: skip
    assert completion["usage"].items() >= {"prompt_tokens_details": None, "completion_tokens_details": None}.items()


async def test_a_response_is_compact_json_in_plain_utf_8(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json={"messages": [{"role": "user", "content": "안녕하세요"}]})

    assert response.headers["content-type"] == "application/json"
    assert "안녕하세요" in response.text
    assert '"object":"chat.completion"' in response.text


async def test_a_stream_starts_with_a_role_and_ends_with_done(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json={**HELLO, "stream": True})
    first, *_, last = events(response)

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert response.text.endswith("\n\ndata: [DONE]\n\n")


async def test_a_stream_has_the_text_of_the_whole_response(client: httpx.AsyncClient) -> None:
    whole = (await client.post(CHAT, json=HELLO)).json()["choices"][0]["message"]["content"]
    chunks = events(await client.post(CHAT, json={**HELLO, "stream": True}))

    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == whole


async def test_a_response_names_the_served_model_not_openais(simulator: Simulator) -> None:
    served = {"meta-llama/Llama-3.1-8B-Instruct": "gpt-4o-mini", "other": "gpt-4o"}
    async with served_over(simulator.base_url, served_models=served) as url, httpx.AsyncClient(base_url=url) as client:
        named = await client.post(CHAT, json={**HELLO, "model": "other"})
        streamed = events(await client.post(CHAT, json={**HELLO, "model": "other", "stream": True}))
        unnamed = await client.post(CHAT, json=HELLO)

    assert named.json()["model"] == "other"
    assert {chunk["model"] for chunk in streamed} == {"other"}
    assert unnamed.json()["model"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert [exchange.body["model"] for exchange in simulator.traffic.exchanges] == ["gpt-4o", "gpt-4o", "gpt-4o-mini"]


@pytest.mark.parametrize("model", [None, ""])
async def test_null_and_empty_model_mean_the_default(client: httpx.AsyncClient, model: str | None) -> None:
    assert (await client.post(CHAT, json={**HELLO, "model": model})).json()["model"] == "gpt-4o-mini"


async def test_an_unknown_model_is_rejected_without_a_call(client: httpx.AsyncClient, simulator: Simulator) -> None:
    response = await client.post(CHAT, json={**HELLO, "model": "nope"})

    assert response.status_code == 400
    assert response.json() == {
        "error": {
            "message": "The model `nope` does not exist. Valid aliases: gpt-4o-mini.",
            "type": "BadRequestError",
            "param": "model",
            "code": 400,
        }
    }
    assert not simulator.traffic.exchanges


async def test_openai_rejects_an_unknown_model_if_every_model_is_served(simulator: Simulator) -> None:
    async with served_over(simulator.base_url, served_models="*") as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post(CHAT, json={**HELLO, "model": "nope"})

    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("BadRequestError", "model")
    assert "nope" in error["message"]
    assert response.headers["x-openai-error-code"] == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
async def test_ignored_and_adjusted_params_are_reported_in_headers(client: httpx.AsyncClient, stream: bool) -> None:
    extras = {"min_p": 0.1, "top_k": 20, "foo": 1, "max_tokens": 20_000, "repetition_penalty": 1.0}
    response = await client.post(CHAT, json={**HELLO, "stream": stream, **extras})

    assert response.status_code == 200
    assert response.headers["x-ignored-params"] == "top_k,min_p,1 unknown"
    assert response.headers["x-adjusted-params"] == "max_tokens=16384"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_request_id_header_wins_over_the_body(client: httpx.AsyncClient, stream: bool) -> None:
    body = {**HELLO, "stream": stream, "request_id": "from-body"}
    response = await client.post(CHAT, json=body, headers={"X-Request-Id": "from-header"})

    completion = events(response)[0] if stream else response.json()
    assert completion["id"] == "chatcmpl-from-header"
    assert response.headers["x-request-id"] == "from-header"


async def test_the_bodys_request_id_names_the_response(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json={**HELLO, "request_id": "from-body"})

    assert response.json()["id"] == "chatcmpl-from-body"
    assert len(response.headers["x-request-id"]) == 32


async def test_rate_limit_headers_pass_and_private_headers_do_not(client: httpx.AsyncClient) -> None:
    headers = (await client.post(CHAT, json=HELLO)).headers

    assert headers["x-openai-request-id"].startswith("req_")
    assert headers["x-ratelimit-remaining-requests"]
    assert not {"set-cookie", "openai-organization", "openai-project", "cf-ray", "alt-svc"} & set(headers)


async def test_a_clients_own_authorization_is_ignored(client: httpx.AsyncClient, simulator: Simulator) -> None:
    response = await client.post(CHAT, json=HELLO, headers={"Authorization": "Bearer EMPTY"})

    assert response.status_code == 200
    assert simulator.traffic.exchanges[0].headers["authorization"] == "Bearer sk-test-key"


async def test_models_are_listed_as_vllm_model_cards(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()

    (card,) = listed["data"]
    assert listed["object"] == "list"
    assert (card["id"], card["root"], card["owned_by"], card["max_model_len"]) == (
        "gpt-4o-mini", "gpt-4o-mini", "vllm", 128_000,
    )  # fmt: skip
    assert card["permission"][0]["id"].startswith("modelperm-")


BAD_REQUESTS = [
    pytest.param({}, "Bad Request", "body.messages", id="no messages"),
    pytest.param({"messages": []}, "BadRequestError", "messages", id="empty messages"),
    pytest.param({"messages": None}, "BadRequestError", "messages", id="null messages"),
    pytest.param({"messages": "hi"}, "Bad Request", "body.messages", id="messages as a string"),
    pytest.param({"messages": [{"content": "hi"}]}, "Bad Request", "body.messages.0.role", id="no role"),
    pytest.param({**HELLO, "temperature": 2.5}, "BadRequestError", "temperature", id="temperature too high"),
    pytest.param({**HELLO, "temperature": "hot"}, "Bad Request", "body.temperature", id="temperature as a word"),
    pytest.param({**HELLO, "stop": list("abcde")}, "Bad Request", "body.stop", id="five stops"),
    pytest.param({**HELLO, "response_format": {"type": "xml"}}, "Bad Request", "body.response_format.type", id="xml"),
    pytest.param({**HELLO, "max_tokens": 200_000}, "BadRequestError", "max_tokens", id="more than the context"),
    pytest.param({**HELLO, "n": 200}, "BadRequestError", "n", id="more choices than OpenAI allows"),
    pytest.param({**HELLO, "use_beam_search": True}, "BadRequestError", "use_beam_search", id="beam search"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("body", "type_", "param"), BAD_REQUESTS)
async def test_bad_input_is_a_400_that_names_the_field(
    client: httpx.AsyncClient, simulator: Simulator, body: dict[str, object], type_: str, param: str, stream: bool
) -> None:
    response = await client.post(CHAT, json={**body, "stream": stream})

    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"], error["param"]) == (400, 400, type_, param)
    assert error["message"]
    assert not simulator.traffic.exchanges


RAW = [
    pytest.param(b'{"model":', "body.9", "'type': 'json_invalid'", id="malformed"),
    pytest.param(b"", "body", "Field required", id="empty"),
    pytest.param(b"[]", "body", "valid dictionary or object", id="a list"),
]


@pytest.mark.parametrize(("content", "param", "words"), RAW)
async def test_a_body_that_is_no_json_object_is_a_400(
    client: httpx.AsyncClient, content: bytes, param: str, words: str
) -> None:
    response = await client.post(CHAT, content=content, headers={"content-type": "application/json"})

    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "Bad Request", param)
    assert error["message"].startswith("1 validation error:\n  {'type': ")
    assert words in error["message"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/vnd.api+json"]
)
async def test_another_content_type_is_a_400(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post(CHAT, content=json.dumps(HELLO), headers={"content-type": content_type})

    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed",
        "type": "Bad Request",
        "param": None,
        "code": 400,
    }


@pytest.mark.parametrize("content_type", ["Application/JSON; charset=utf-8", "application/json ;charset=utf-8"])
async def test_a_charset_in_the_content_type_is_accepted(client: httpx.AsyncClient, content_type: str) -> None:
    headers = {"content-type": content_type}

    assert (await client.post(CHAT, content=json.dumps(HELLO), headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}]}, "messages"),
        ({"model": "\ud800"}, "model"),
        ({"request_id": "\udfff"}, "request_id"),
        ({"tool_choice": "\ud800"}, "tool_choice"),
        ({"top_logprobs": "\ud800"}, "top_logprobs"),
        ({"a\ud800": 1}, "a\\ud800"),
    ],
)
async def test_text_with_a_lone_surrogate_is_a_400_and_logs_nothing(
    simulator: Simulator, fields: dict[str, Any], param: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.dumps({**HELLO, **fields})
    async with served_over(simulator.base_url) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post(CHAT, content=content, headers={"content-type": "application/json"})

    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert "not valid Unicode" in error["message"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "levels"),
    [("status status=401", ["ERROR"]), ("rate_limit", ["WARNING"]), ("status status=400", [])],
)
async def test_upstream_failures_are_logged_without_a_key(
    client: httpx.AsyncClient, fault: str, levels: list[str], stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    await client.post(CHAT, json={"messages": conversation(f"[sim fault={fault}]"), "stream": stream})

    logged = [entry for entry in caplog.records if entry.name == "app.core.errors.upstream_errors"]
    assert [entry.levelname for entry in logged] == levels
    assert "sk-" not in caplog.text


async def test_a_disconnected_client_logs_no_error(simulator: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    body = {"messages": conversation("[sim fault=slow seconds=600]")}
    async with served_over(simulator.base_url) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            request = asyncio.create_task(client.post(CHAT, json=body))
            await simulator.traffic.wait_for(lambda traffic: traffic.live == 1)
            request.cancel()
        await simulator.traffic.wait_for(lambda traffic: traffic.abandoned == 1)

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [("GET", "/v1/nope", 404, "Not Found"), ("GET", CHAT, 405, "Method Not Allowed")],
)
async def test_unknown_routes_and_methods_get_fastapis_error_form(
    client: httpx.AsyncClient, method: str, path: str, status: int, detail: str
) -> None:
    response = await client.request(method, path)

    assert (response.status_code, response.json()) == (status, {"detail": detail})


async def test_the_openapi_schema_has_every_field_of_vllms_request(client: httpx.AsyncClient) -> None:
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]

    assert (await client.get("/docs")).status_code == 200
    assert len(schemas["ChatCompletionRequest"]["properties"]) == 69


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize(
    ("choice", "reason"),
    [("required", "tool_calls"), ({"type": "function", "function": {"name": "f"}}, "stop"), ("none", "stop")],
)
async def test_the_finish_reason_of_tool_calls_is_vllms(client: httpx.AsyncClient, choice: object, reason: str) -> None:
    body = {"messages": conversation("hi"), "tools": [TOOL], "tool_choice": choice}
    whole = (await client.post(CHAT, json=body)).json()["choices"][0]
    chunks = events(await client.post(CHAT, json={**body, "stream": True}))

    assert ("tool_calls" in whole["message"]) == (choice != "none")
    assert (whole["finish_reason"], chunks[-1]["choices"][0]["finish_reason"]) == (reason, reason)


BATCH = f"{CHAT}/batch"


def conversation(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def test_a_batch_has_one_choice_for_each_conversation_in_order(client: httpx.AsyncClient) -> None:
    texts = ["one", "two", "three"]
    singles = [(await client.post(CHAT, json={"messages": conversation(text)})).json() for text in texts]
    response = await client.post(BATCH, json={"messages": [conversation(text) for text in texts], "stream": True})

    completion = response.json()
    assert completion["object"] == "chat.completion"
    assert [choice["index"] for choice in completion["choices"]] == [0, 1, 2]
    assert [choice["message"] for choice in completion["choices"]] == [s["choices"][0]["message"] for s in singles]
    assert completion["usage"]["total_tokens"] == sum(single["usage"]["total_tokens"] for single in singles)


async def test_a_batch_reports_the_changes_of_every_conversation(client: httpx.AsyncClient) -> None:
    odd = [{"role": "critic", "content": "a", "reasoning": "b"}]
    response = await client.post(BATCH, json={"messages": [odd, conversation("hi")], "top_k": 5})

    assert set(response.headers["x-ignored-params"].split(",")) == {"messages.reasoning", "top_k"}
    assert response.headers["x-adjusted-params"] == "messages.0.role=user"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "body.messages"),
        ({"messages": [[]]}, "body.messages.0"),
        ({"messages": [conversation("hi")], "n": 2}, "n"),
        ({"messages": [conversation("hi")], "n": 2, "temperature": 0}, "n"),
        ({"messages": [conversation("hi")], "n": 0}, "n"),
        ({"messages": conversation("hi")}, "body.messages.0"),
    ],
)
async def test_a_malformed_batch_is_a_400(client: httpx.AsyncClient, body: object, param: str) -> None:
    response = await client.post(BATCH, json=body)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_the_first_failure_of_a_batch_is_returned_and_cancels_the_other_calls(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    texts = ["[sim fault=slow seconds=600]", "[sim fault=rate_limit]", "[sim fault=slow seconds=600]"]
    response = await client.post(BATCH, json={"messages": [conversation(text) for text in texts]})

    assert response.status_code == 429
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 0)


async def test_a_batch_makes_at_most_sixteen_concurrent_calls(client: httpx.AsyncClient, simulator: Simulator) -> None:
    batch = [conversation(f"[sim ttft=0.01] {number}") for number in range(40)]
    response = await client.post(BATCH, json={"messages": batch})
    stalled = [conversation("[sim fault=slow seconds=600]")] * 40
    request = asyncio.create_task(client.post(BATCH, json={"messages": stalled}))
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 16)
    request.cancel()

    assert len(response.json()["choices"]) == 40
    assert simulator.traffic.most_live == 16


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_ping_is_an_empty_200(client: httpx.AsyncClient, method: str) -> None:
    response = await client.request(method, "/ping")

    assert (response.status_code, response.content) == (200, b"")
    assert "content-type" not in response.headers


async def test_the_version_is_vllms(client: httpx.AsyncClient) -> None:
    assert (await client.get("/version")).json() == {"version": "0.33.0"}


async def test_the_load_is_the_number_of_requests_in_flight(client: httpx.AsyncClient, simulator: Simulator) -> None:
    body = {"messages": conversation("[sim fault=stall seconds=600 after=1]"), "stream": True}
    async with client.stream("POST", CHAT, json=body) as response:
        await anext(response.aiter_lines())
        during = (await client.get("/load")).json()
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 0)

    assert during == {"server_load": 1}


async def test_a_cross_origin_preflight_is_rejected(client: httpx.AsyncClient) -> None:
    headers = {"Origin": "http://example.com", "Access-Control-Request-Method": "POST"}
    response = await client.options(CHAT, headers=headers)

    assert (response.status_code, response.text) == (400, "Disallowed CORS origin")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"structured_outputs": {"choice": ["red", "blue"]}}, lambda text: text in {"red", "blue"}),
        ({"guided_choice": ["안녕", "🎉"]}, lambda text: text in {"안녕", "🎉"}),
        ({"structured_outputs": {"regex": "[a-c]{3}"}}, re.compile("[a-c]{3}").fullmatch),
        ({"structured_outputs": {"json": {"type": "array", "items": {"type": "integer"}, "minItems": 2}}},
         lambda text: len(json.loads(text)) >= 2),
        ({"structured_outputs": {"json": {"type": "object", "properties": {"a": {"const": 1}}}}},
         lambda text: json.loads(text) == {"a": 1}),
    ],
)  # fmt: skip
async def test_structured_outputs_hold_for_streams_and_whole_responses(
    client: httpx.AsyncClient, fields: dict[str, Any], fits: Callable[[str], object], stream: bool
) -> None:
    response = await client.post(CHAT, json={**HELLO, **fields, "stream": stream})

    assert response.status_code == 200
    if stream:
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in events(response))
    else:
        text = response.json()["choices"][0]["message"]["content"]
    assert fits(text)


@pytest.mark.parametrize("usage", [False, True])
async def test_a_stop_string_of_a_reasoning_model_is_found_by_this_server(simulator: Simulator, usage: bool) -> None:
    body = {**HELLO, "model": "o3", "stop": [" "], "stream": True, "stream_options": {"include_usage": usage}}
    async with served_over(simulator.base_url, served_models="*") as url, httpx.AsyncClient(base_url=url) as client:
        chunks = events(await client.post(CHAT, json=body))
        whole = (await client.post(CHAT, json={**HELLO, "model": "o3", "stop": [" "]})).json()

    finish = [chunk["choices"][0] for chunk in chunks if chunk["choices"] and chunk["choices"][0]["finish_reason"]]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])
    assert [(choice["finish_reason"], choice["stop_reason"]) for choice in finish] == [("stop", " ")]
    assert text == whole["choices"][0]["message"]["content"]
    assert " " not in text
    assert whole["choices"][0]["stop_reason"] == " "
    assert ("usage" in chunks[-1]) is usage
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 0)


async def test_an_application_can_override_the_service(simulator: Simulator) -> None:
    class Other:
        async def get_models(self) -> ModelsResponse:
            return ModelsResponse(data=[])

    app = create_app(settings_for(simulator.base_url))
    app.dependency_overrides[get_llm_service] = Other
    async with served(app) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/v1/models")).json() == {"object": "list", "data": []}
