"""Limits, encodings and errors of request bodies."""

import asyncio
import json
import time
from itertools import product

import httpx
import pytest

from app.core.http.request_body import LONG_BODY_BYTES, MAX_COUNTS
from tests.conftest import CHAT

HEADERS = {"content-type": "application/json"}


def hello(fields: str = "", content: str = '"hi"') -> str:
    return '{"messages":[{"role":"user","content":' + content + "}]" + fields + "}"


TOO_MUCH = {
    "elements": hello(',"x":[' + "1," * MAX_COUNTS[b","][0] + "1]"),
    "members of objects": hello(',"x":{' + '"":1,' * MAX_COUNTS[b":"][0] + '"":1}'),
    "arrays": hello(',"x":[' + "[]," * MAX_COUNTS[b"["][0] + "[]]"),
    "objects": hello(',"x":[' + "{}," * MAX_COUNTS[b"{"][0] + "{}]"),
}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *((CHAT, kind) for kind in TOO_MUCH),
        *((path, "arrays") for path in ("/v1/completions", "/invocations", "/tokenize")),
    ],
)
async def test_a_body_with_too_many_elements_is_rejected(client: httpx.AsyncClient, path: str, kind: str) -> None:
    response = await client.post(path, content=TOO_MUCH[kind], headers=HEADERS)

    assert response.status_code == 400
    assert response.json()["error"]["message"].endswith(f" {kind}.")


async def test_the_content_of_strings_is_not_counted(client: httpx.AsyncClient) -> None:
    text = json.dumps('[{"a\\": "' * MAX_COUNTS[b"["][0] + "\\")
    response = await client.post("/tokenize", content='{"prompt": ' + text + "}", headers=HEADERS)

    assert response.status_code == 200, response.text


@pytest.mark.parametrize(("depth", "status"), [(190, 200), (10_000, 400)], ids=["as deep as allowed", "too deep"])
async def test_the_nesting_depth_is_limited(client: httpx.AsyncClient, depth: int, status: int) -> None:
    response = await client.post(CHAT, content=hello(',"x":' + "[" * depth + "]" * depth), headers=HEADERS)

    assert response.status_code == status, response.text
    assert status == 200 or "nested too deep" in response.json()["error"]["message"]


ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
"""What Python's parser, and so vLLM, accepts besides UTF-8. Those without -le or -be have a byte order mark."""
PATHS = [CHAT, "/v1/chat/completions/batch", "/v1/completions", "/invocations", "/tokenize", "/detokenize"]
BODIES = {
    "too deep": hello(',"x":' + "[" * 202 + "]" * 202, '"∀"'),
    "too deep, after half a character": hello(',"y":"\\ud800","x":' + "[" * 9000 + "]" * 9000),
    "five thousand digits": hello(',"n":' + "9" * 5000),
    "half a character": hello(',"user":"\\udfff"'),
    "a NUL": hello(',"user":"\0"'),
    "the end missing": hello()[:-1],
    "a second byte order mark": "\ufeff\ufeff" + hello(),
    "nothing": " ",
}
LONG_BODIES = {kind: body.replace('"hi"', '"∀"') for kind, body in TOO_MUCH.items()}


@pytest.mark.parametrize(
    ("kind", "path"), [*product(BODIES, PATHS), *product(LONG_BODIES, [CHAT])], ids=lambda value: value
)
async def test_an_invalid_body_gets_the_same_error_in_every_encoding(
    client: httpx.AsyncClient, kind: str, path: str
) -> None:
    responses = []
    for encoding in ("utf-8", *ENCODINGS):
        body = (BODIES | LONG_BODIES)[kind].encode(encoding)
        response = await client.post(path, content=body, headers=HEADERS)
        responses.append((response.status_code, response.json()))

    assert responses[0][0] == 400
    assert responses == responses[:1] * len(responses)


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_every_encoding_that_vllm_reads_is_accepted(client: httpx.AsyncClient, encoding: str) -> None:
    body = '{"prompt":"안녕 🎉","x":' + "[" * 190 + "]" * 190 + "}"
    as_utf8 = await client.post("/tokenize", content=body.encode(), headers=HEADERS)
    response = await client.post("/tokenize", content=body.encode(encoding), headers=HEADERS)

    assert (response.status_code, response.json()) == (200, as_utf8.json())


@pytest.mark.parametrize("body", [b"\xff\xfe{", b"\xff\xfe\x00\x00{", b'{"a": "\xff"}', b"\xef\xbb\xbf\xff"])
async def test_a_body_that_is_invalid_in_its_encoding_is_rejected(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post(CHAT, content=body, headers=HEADERS)

    assert (response.status_code, response.json()) == (400, {"detail": "There was an error parsing the body"})


async def test_errors_of_a_short_list_are_reported_as_in_vllm(client: httpx.AsyncClient) -> None:
    message = (await client.post(CHAT, json={"messages": [1] * 40})).json()["error"]["message"]

    assert message.startswith("40 validation errors:")
    assert message.endswith("  ...and 30 more errors")


async def test_only_the_first_error_of_a_long_list_is_reported(client: httpx.AsyncClient) -> None:
    error = (await client.post(CHAT, json={"messages": [{"role": "user"}] * 9 + [1] * 90})).json()["error"]

    assert error["message"].startswith("1 validation error:")
    assert error["param"] == "body.messages.9"


async def test_the_last_of_duplicate_keys_wins(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, content=hello(',"n":{},"n":1'), headers=HEADERS)

    assert response.status_code == 200


LONG = {
    "wrong messages": '{"messages":[' + "1," * 200_000 + "1]}",
    "wrong token ids": hello(',"allowed_token_ids":[' + '"x",' * 500_000 + "1]"),
    "wrong prompts": '{"messages":[{"role":"user","content":[' + "1," * 500_000 + "1]}]}",
    "wrong biases": hello(',"logit_bias":{' + ",".join(f'"{token}":"x"' for token in range(200_000)) + "}"),
    "wrong arguments": hello(',"vllm_xargs":{' + ",".join(f'"{key}":[[]]' for key in range(30_000)) + "}"),
    "a long text": hello(',"x":"' + "a" * 30_000_000 + '","n":"x"'),
}


@pytest.mark.parametrize("kind", LONG)
async def test_a_long_invalid_body_does_not_block_other_requests(client: httpx.AsyncClient, kind: str) -> None:
    begun = time.process_time()
    json.loads(LONG[kind])
    parsed = time.process_time()
    rejected, health = await asyncio.gather(
        client.post(CHAT, content=LONG[kind], headers=HEADERS), client.get("/health")
    )

    assert len(LONG[kind]) > LONG_BODY_BYTES
    assert (rejected.status_code, health.status_code) == (400, 200)
    # Formatting each of 200,000 errors would take hundreds of times as long.
    assert time.process_time() - parsed < 50 * (parsed - begun)
