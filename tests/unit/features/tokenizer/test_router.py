"""The tokenizer routes over real sockets."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from app.simulator.server import Simulator
from tests.serving import served_over

of_module = pytest.mark.asyncio(loop_scope="module")

MODELS = {"o200k_base": "gpt-4o-mini", "cl100k_base": "gpt-4"}
TEXTS = Path(__file__).parents[2] / "core" / "tokens.jsonl"
HELLO = {"prompt": "Hello world"}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hello"}]}
LONG = "Hello " * 1000
UNKNOWN_MODEL = "gpt-99"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with models of both encodings, one of unknown encoding and one of unknown context."""
    served = {name: name for name in ("gpt-4o-mini", "gpt-4", UNKNOWN_MODEL, "own")}
    async with (
        Simulator() as simulator,
        served_over(simulator.base_url, served_models=served, model_families={"own": {}}) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        yield client


async def result_of(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    parsed: dict[str, Any] = response.json()
    return parsed


async def error_of(client: httpx.AsyncClient, path: str, body: object) -> dict[str, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error.pop("code") == 400
    return error


@of_module
async def test_a_prompt_is_encoded(client: httpx.AsyncClient) -> None:
    assert await result_of(client, "/tokenize", HELLO) == {
        "count": 2,
        "max_model_len": 128_000,
        "tokens": [13225, 2375],
        "token_strs": None,
    }


@pytest.mark.parametrize("encoding", MODELS)
@of_module
async def test_texts_in_every_script_are_encoded_and_decoded(client: httpx.AsyncClient, encoding: str) -> None:
    # Every text has its own test at the encoding; here a sample passes the route.
    for line in TEXTS.read_text().splitlines()[::25]:
        known = json.loads(line)
        request = {"model": MODELS[encoding], "prompt": known["text"]}
        tokens = (await result_of(client, "/tokenize", request))["tokens"]
        assert tokens == known[encoding]
        decoded = await result_of(client, "/detokenize", {"model": MODELS[encoding], "tokens": tokens})
        assert decoded == {"prompt": known["text"]}


@settings(max_examples=50, deadline=None, database=None)
@given(text=st.text())
@of_module
async def test_any_encoded_text_decodes_to_itself(client: httpx.AsyncClient, text: str) -> None:
    encoded = await result_of(client, "/tokenize", {"prompt": text, "return_token_strs": True})

    assert encoded["count"] == len(encoded["tokens"]) == len(encoded["token_strs"])
    assert await result_of(client, "/detokenize", {"tokens": encoded["tokens"]}) == {"prompt": text}


@pytest.mark.parametrize("words", [9_999, 10_000, 10_001, 25_000])
@of_module
async def test_a_long_response_is_complete(client: httpx.AsyncClient, words: int) -> None:
    encoded = await result_of(client, "/tokenize", {"prompt": " word" * words, "return_token_strs": True})

    assert (encoded["tokens"], encoded["token_strs"]) == ([2195] * words, ["Ġword"] * words)


@of_module
async def test_token_strings_are_spelled_as_in_the_vocabulary(client: httpx.AsyncClient) -> None:
    request = {"prompt": "Hello world\n é 🦩", "return_token_strs": True}

    token_strings = (await result_of(client, "/tokenize", request))["token_strs"]

    # GPT-2's alphabet has a character for every byte; those of "🦩" are f0 9f, a6 and a9.
    assert token_strings == ["Hello", "Ġworld", "Ċ", "ĠÃ©", "ĠðŁ", "¦", "©"]


@of_module
async def test_a_conversation_is_encoded_in_openais_chat_format(client: httpx.AsyncClient) -> None:
    encoded = await result_of(client, "/tokenize", {**CHAT, "return_token_strs": True})

    assert "".join(encoded["token_strs"]) == (
        "<|im_start|>user<|im_sep|>SayĠhello<|im_end|><|im_start|>assistant<|im_sep|>"
    )
    decoded = await result_of(client, "/detokenize", {"tokens": encoded["tokens"]})
    assert decoded["prompt"] == "<|im_start|>user<|im_sep|>Say hello<|im_end|><|im_start|>assistant<|im_sep|>"


@pytest.mark.parametrize(
    ("options", "fewer"),
    [
        ({"add_generation_prompt": False}, 3),
        ({"continue_final_message": True}, 4),
        ({"continue_final_message": True, "add_generation_prompt": False}, 4),
        ({"add_special_tokens": True}, 0),
        ({"tools": []}, 0),
    ],
    ids=["no generation prompt", "continued", "continued without generation prompt", "special tokens", "no tools"],
)
@of_module
async def test_options_change_the_end_of_the_prompt(
    client: httpx.AsyncClient, options: dict[str, Any], fewer: int
) -> None:
    plain = await result_of(client, "/tokenize", CHAT)

    assert (await result_of(client, "/tokenize", CHAT | options))["count"] == plain["count"] - fewer


@of_module
async def test_tools_are_encoded(client: httpx.AsyncClient) -> None:
    tool = {"type": "function", "function": {"name": "look"}}
    plain = await result_of(client, "/tokenize", CHAT)

    assert (await result_of(client, "/tokenize", {**CHAT, "tools": [tool]}))["count"] == plain["count"] + 7 + 2 + 12


@pytest.mark.parametrize("key", ["temperature", "truncate", "messages"])
@of_module
async def test_unknown_keys_are_ignored(client: httpx.AsyncClient, key: str) -> None:
    assert (await result_of(client, "/tokenize", {**HELLO, key: []}))["count"] == 2


@pytest.mark.parametrize(("model", "context"), [("gpt-4", 8192), ("own", None), (None, 128_000)])
@of_module
async def test_the_context_length_is_reported_if_known(
    client: httpx.AsyncClient, model: str | None, context: int | None
) -> None:
    assert (await result_of(client, "/tokenize", {**HELLO, "model": model}))["max_model_len"] == context


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([], ""),
        ([13225, 2375], "Hello world"),
        ([199999, 200018, 200264, 200265, 200266], "<|endoftext|><|endofprompt|><|im_start|><|im_end|><|im_sep|>"),
        ([13225, 199_998, 2**63 - 1], "Hello"),
        (["13225", 2375.0], "Hello world"),
        ([9552], " \ufffd"),
    ],
    ids=["none", "words", "special", "unknown", "numbers in any form", "half a character"],
)
@of_module
async def test_ids_are_decoded(client: httpx.AsyncClient, tokens: list[Any], text: str) -> None:
    assert await result_of(client, "/detokenize", {"tokens": tokens}) == {"prompt": text}


@pytest.mark.parametrize(
    ("path", "body", "param", "message"),
    [
        ("/tokenize", {"model": "nope", **HELLO}, "model", "The model `nope` does not exist. Valid aliases: "),
        ("/detokenize", {"model": "nope", "tokens": []}, "model", "The model `nope` does not exist."),
        ("/tokenize", {"model": UNKNOWN_MODEL, **HELLO}, "model", "The tokenizer of the model `gpt-99` is not known"),
        ("/detokenize", {"model": UNKNOWN_MODEL, "tokens": []}, "model", "The tokenizer of the model `gpt-99` is not"),
        ("/tokenize", {"prompt": 1}, "body.prompt", "1 validation error:\n  {'type': 'string_type', 'loc': '"),
        ("/tokenize", {"messages": "x"}, "body.messages", "1 validation error:\n  {'type': 'list_type'"),
        ("/tokenize", {"messages": []}, "messages", "Cannot apply chat template to an empty conversation."),
        ("/tokenize", {**CHAT, "chat_template": "x"}, "chat_template", "Chat template is passed with request, but"),
        ("/tokenize", {**CHAT, "chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs", "Chat"),
        ("/tokenize", {**CHAT, "media_io_kwargs": {"a": {}}}, "media_io_kwargs", "Per-request media_io_kwargs are dis"),
        ("/tokenize", {**CHAT, "mm_processor_kwargs": {"a": 1}}, "mm_processor_kwargs", "Per-request mm_processor"),
        (
            "/tokenize",
            {**CHAT, "add_generation_prompt": True, "continue_final_message": True},
            "continue_final_message",
            "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
        ),
        ("/detokenize", {}, "body.tokens", "1 validation error:\n  {'type': 'missing', 'loc': 'body.tokens'"),
        ("/detokenize", {"tokens": [-1]}, "body.tokens.0", "1 validation error:\n  {'type': 'greater_than_equal'"),
        ("/detokenize", {"tokens": [2**63]}, "body.tokens.0", "1 validation error:\n  {'type': 'less_than_equal'"),
        ("/detokenize", {"tokens": [1, "x", "y"]}, "body.tokens.1", "1 validation error:\n  {'type': 'int_parsing'"),
        ("/tokenize", [], "body", "1 validation error:\n  {'type': 'model_attributes_type', 'loc': 'body'"),
        ("/tokenize", None, "body", "1 validation error:\n  {'type': 'missing', 'loc': 'body'"),
        ("/tokenize", b"", "body", "1 validation error:\n  {'type': 'missing', 'loc': 'body'"),
        ("/tokenize", b'{"a":', "body.5", "1 validation error:\n  {'type': 'json_invalid', 'loc': 'body.5'"),
        ("/tokenize", {"prompt": LONG + "\ud800"}, "prompt", "The request has text that is not valid Unicode"),
        ("/tokenize", {"prompt": LONG, "model": 1}, "body.model", "1 validation error:\n  {'type': 'string_type'"),
    ],
    ids=[
        "model", "model of ids", "no tokenizer", "no tokenizer of ids", "prompt", "messages", "no messages", "template",
        "template in kwargs", "media", "processor", "two ends", "no ids", "negative", "too large", "no number", "list",
        "null", "empty", "no JSON", "surrogate", "long",
    ],
)  # fmt: skip
@of_module
async def test_an_error_names_the_field(
    client: httpx.AsyncClient, path: str, body: object, param: str, message: str
) -> None:
    error = await error_of(client, path, body)

    assert error["param"] == param
    assert error["message"].startswith(message)
    assert error["type"] == ("Bad Request" if param.startswith("body") else "BadRequestError")


@of_module
async def test_without_prompt_and_messages_both_are_reported_as_missing(client: httpx.AsyncClient) -> None:
    error = await error_of(client, "/tokenize", {"model": "gpt-4o-mini"})

    assert error["param"] == "body.prompt"
    assert error["message"] == (
        "2 validation errors:\n"
        "  {'type': 'missing', 'loc': 'body.prompt', 'msg': 'Field required', 'input': '<dict of 1 items>'}\n"
        "  {'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required', 'input': '<dict of 1 items>'}"
    )


@of_module
async def test_invalid_utf_8_is_rejected_as_by_fastapi(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/tokenize", content=b'{"prompt": "\xff"}', headers={"content-type": "application/json"}
    )

    assert (response.status_code, response.json()) == (400, {"detail": "There was an error parsing the body"})


@of_module
async def test_a_content_type_other_than_json_is_rejected(client: httpx.AsyncClient) -> None:
    response = await client.post("/tokenize", content=json.dumps(HELLO))

    assert response.status_code == 400
    assert "Only 'application/json' is allowed" in response.json()["error"]["message"]


@of_module
async def test_ignored_template_arguments_are_reported(client: httpx.AsyncClient) -> None:
    response = await client.post("/tokenize", json={**CHAT, "chat_template_kwargs": {"date": "today"}})

    assert response.headers["x-ignored-params"] == "chat_template_kwargs"


@pytest.mark.parametrize("path", ["/v1/tokenize", "/v1/detokenize"])
@of_module
async def test_the_routes_have_no_v1_prefix(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.post(path, json=HELLO)).status_code == 404


@of_module
async def test_tokenizer_info_is_off_by_default(client: httpx.AsyncClient) -> None:
    response = await client.get("/tokenizer_info")

    assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})


async def test_tokenizer_info_has_what_evaluation_tools_read(simulator: Simulator) -> None:
    async with (
        served_over(simulator.base_url, enable_tokenizer_info_endpoint=True) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        info = (await client.get("/tokenizer_info")).json()

    assert info["eos_token"] == info["bos_token"] == "<|endoftext|>"
    assert info["tokenizer_class"] == "GPT2TokenizerFast"
    assert info["model_max_length"] == 128_000
    assert info["added_tokens_decoder"]["199999"]["content"] == "<|endoftext|>"
    assert info["added_tokens_decoder"]["200264"]["content"] == "<|im_start|>"


def references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


@of_module
async def test_the_openapi_document_describes_the_tokenizer_requests(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()

    body = document["paths"]["/tokenize"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    named = [schema["$ref"].rpartition("/")[2] for schema in body["anyOf"]]
    assert named == ["TokenizePromptRequest", "TokenizeChatRequest"]
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= schemas
