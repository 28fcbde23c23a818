"""Upstreams that misbehave in ways that the simulator does not, written byte by byte."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from app.features.llm.from_openai.stream import ChatStream
from app.features.llm.schema import ChatCompletionResponse, JSONObject
from tests.conftest import CHAT
from tests.raw_upstream import (
    FINISH,
    GOOD,
    OK,
    SSE_HEAD,
    answering,
    chunks_in,
    client_of,
    event,
    http_chunk,
    http_response,
    raw_server,
    read_request,
    request,
)
from tests.serving import served_over
from tests.unit.features.llm.test_client import read_until_it_breaks


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(event({**GOOD, "choices": [{**GOOD["choices"][0], "index": 1}]}), id="a choice too many"),
        pytest.param(
            event({**GOOD, "choices": [{**GOOD["choices"][0], "delta": {"content": 5}}]}), id="text as a number"
        ),
        pytest.param(event({"object": "error", "message": "x", "code": 400}), id="an error without an envelope"),
        pytest.param(b"event: error\n" + event({"message": "x"}), id="an event of the kind error"),
        pytest.param(b"event: error\ndata: overloaded\n\n", id="an error in plain text"),
        pytest.param(event({**GOOD, "choices": 5}), id="choices as a number"),
        pytest.param(event({**GOOD, "choices": [5]}), id="a choice as a number"),
        pytest.param(event({**GOOD, "choices": [{**GOOD["choices"][0], "delta": 5}]}), id="delta as a number"),
        pytest.param(event({**GOOD, "choices": [{**GOOD["choices"][0], "logprobs": 5}]}), id="logprobs as a number"),
        pytest.param(event([]), id="a list"),
        pytest.param(
            event({**GOOD, "choices": [{**GOOD["choices"][0], "logprobs": {"content": [{"logprob": float("nan")}]}}]}),
            id="a number that JSON lacks",
        ),
        pytest.param(b"data: NaN\n\n", id="no JSON"),
        pytest.param(event({"error": "x"}), id="error as text"),
        pytest.param(event({"error": {"message": "x"}}), id="error event"),
    ],
)
async def test_events_before_a_broken_one_are_kept(broken: bytes) -> None:
    body = http_chunk(event(GOOD) + broken + event(GOOD)) + http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    async with answering(SSE_HEAD + body) as url, client_of(url) as client:
        chunks = await read_until_it_breaks(await client.stream_chat_completion(request(stream=True)))

    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["", "hi"]


async def test_events_before_a_broken_connection_are_kept() -> None:
    body = http_chunk(event(GOOD)) + b"40\r\ndata: {"
    async with answering(SSE_HEAD + body) as url, client_of(url) as client:
        stream = await client.stream_chat_completion(request(stream=True))
        assert isinstance(stream, ChatStream)
        async with asyncio.timeout(60):
            # Both arrive before the first read.
            while stream._response._response._failure is None:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0)
        chunks = await read_until_it_breaks(stream)

    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["", "hi"]


@pytest.mark.parametrize(("begun", "chunks"), [(b"", 0), (event(GOOD), 2)], ids=["nothing", "no finish"])
async def test_an_end_before_the_choices_finish_is_an_error(begun: bytes, chunks: int) -> None:
    body = http_chunk(begun + b"data: [DONE]\n\n") + b"0\r\n\r\n"
    async with answering(SSE_HEAD + body) as url, client_of(url) as client:
        assert len(await read_until_it_breaks(await client.stream_chat_completion(request(stream=True)))) == chunks


async def test_events_without_choices_and_null_fields_are_accepted() -> None:
    begin = {"id": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": []}
    odd = {**GOOD, "error": None, "usage": None, "choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}
    body = http_chunk(event(begin) + event(GOOD) + event({"choices": None}) + event(odd) + b"data: [DONE]\n\n")
    async with answering(SSE_HEAD + body + b"0\r\n\r\n") as url, client_of(url) as client:
        stream = await client.stream_chat_completion(request(stream=True))
        chunks = [chunk async for events in stream for chunk in chunks_in(events)]
        await stream.aclose()

    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-1"}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]


async def test_nothing_after_the_end_is_passed_on() -> None:
    body = http_chunk(event(GOOD) + event(FINISH) + b"data: [DONE]\n\n" + event(GOOD)) + b"0\r\n\r\n"
    async with answering(SSE_HEAD + body) as url, client_of(url) as client:
        stream = await client.stream_chat_completion(request(stream=True))
        chunks = [chunk async for events in stream for chunk in chunks_in(events)]
        await stream.aclose()

    assert len(chunks) == 3


async def test_a_streams_connection_is_reused_though_its_last_bytes_are_late() -> None:
    connections: set[Any] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        while True:
            await read_request(reader)
            writer.write(SSE_HEAD + http_chunk(event(GOOD) + event(FINISH) + b"data: [DONE]\n\n"))
            await writer.drain()
            # The end of the body is sent only after the client has read the end of the stream.
            await finished.wait()
            finished.clear()
            writer.write(b"0\r\n\r\n")

    finished = asyncio.Event()
    async with raw_server(converse) as url, client_of(url) as client:
        for _ in range(3):
            stream = await client.stream_chat_completion(request(stream=True))
            assert [events async for events in stream]
            closing = asyncio.create_task(stream.aclose())
            await asyncio.sleep(0)
            finished.set()
            await closing

    assert len(connections) == 1


async def test_closed_idle_connections_lose_no_request() -> None:
    served = 0
    waiting = asyncio.Barrier(4)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await read_request(reader)
        if served < 4:
            await waiting.wait()
        served += 1
        writer.write(http_response(OK))
        # Each connection's second request gets no response, as if the keep-alive had just expired.
        await read_request(reader)

    async with raw_server(converse) as url, client_of(url) as client:
        await asyncio.gather(*(client.create_chat_completion(request()) for _ in range(4)))
        await client.create_chat_completion(request())

    assert served == 5


async def response_over(upstream: str, **settings: object) -> httpx.Response:
    async with served_over(upstream, **settings) as url, httpx.AsyncClient(base_url=url) as client:
        return await client.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]})


@pytest.mark.parametrize("value", ["\x01", "a\u00e9", "\u2603", "x" * 1000])
@pytest.mark.parametrize("name", ["x-request-id", "retry-after", "x-other"])
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
async def test_odd_upstream_headers_do_not_lose_the_response(status: str, name: str, value: str) -> None:
    content = OK if status.startswith("200") else b'{"error":{"message":"No."}}'
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(content)}\r\n{name}: {value}\r\n\r\n".encode()
    async with answering(head + content) as upstream:
        response = await response_over(upstream)

    assert response.status_code == int(status[:3])
    assert "x-openai-request-id" not in response.headers


@pytest.mark.parametrize("charset", ["utf-16", "idna", "nonsense"])
async def test_the_upstreams_charset_is_ignored(charset: str) -> None:
    headers = f"content-type: application/json; charset={charset}\r\n"
    async with answering(http_response(b'{"error":{"message":"No."}}', status="400 Bad", headers=headers)) as upstream:
        response = await response_over(upstream)

    assert (response.status_code, response.json()["error"]["message"]) == (400, "No.")


async def test_any_key_is_redacted_in_an_error() -> None:
    content = b'{"error":{"message":"Wrong key gsk_live_0123456789abcdef."}}'
    async with answering(http_response(content, status="400 Bad")) as upstream:
        response = await response_over(upstream, openai_api_key="gsk_live_0123456789abcdef")

    assert response.json()["error"]["message"] == "Wrong key [redacted]."


async def test_any_key_is_redacted_in_a_streams_error() -> None:
    broken = event({"error": {"message": "Wrong key gsk_live_0123456789abcdef."}})
    async with answering(SSE_HEAD + http_chunk(event(GOOD) + broken) + b"0\r\n\r\n") as upstream:
        settings = {"openai_api_key": "gsk_live_0123456789abcdef"}
        async with served_over(upstream, **settings) as url, httpx.AsyncClient(base_url=url) as client:
            body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
            response = await client.post(CHAT, json=body)

    assert "Wrong key [redacted]." in response.text


async def test_netrc_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with answering(http_response(OK)) as upstream:
        assert (await response_over(upstream)).status_code == 200


@pytest.mark.parametrize("listed", [b'{"data": [{"id": 5}]}', b'{"data": 5}', b"[]", b"<html>"])
async def test_an_invalid_model_list_is_an_error(listed: bytes) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http_response(listed))

    async with raw_server(converse) as url, client_of(url) as client:
        with pytest.raises(openai.APIResponseValidationError):
            await client.list_models()


async def whole(content: bytes, **fields: Any) -> ChatCompletionResponse:
    async with answering(http_response(content)) as url, client_of(url) as client:
        return await client.create_chat_completion(request(**fields))


def answer(*choices: object, **fields: Any) -> bytes:
    return json.dumps({"id": "x", "created": 1, "model": "m", "choices": choices, **fields}).encode()


ENDED = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}


async def test_missing_details_are_filled_in() -> None:
    choice = {"message": {"content": "hi"}, "finish_reason": "stop", "logprobs": None}
    response = await whole(json.dumps({"choices": [choice], "usage": "none", "created": "now"}).encode())

    assert response.id.startswith("chatcmpl-")
    assert response.created > 1
    assert (response.choices[0].index, response.choices[0].message.content) == (0, "hi")
    assert response.usage
    assert response.usage.total_tokens == 0


async def test_missing_usage_counts_are_filled_in() -> None:
    response = await whole(answer(ENDED, usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": -1}))

    assert response.usage
    assert response.usage.total_tokens == 7


async def test_choices_with_equal_indexes_are_renumbered() -> None:
    response = await whole(answer(ENDED, {**ENDED, "message": {"content": "you"}}), n=2)

    assert [(choice.index, choice.message.content) for choice in response.choices] == [(0, "hi"), (1, "you")]


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param([], id="none"),
        pytest.param([ENDED, ENDED], id="one too many"),
        pytest.param([{**ENDED, "finish_reason": None}], id="not ended"),
        pytest.param([{**ENDED, "finish_reason": ""}], id="an empty reason"),
        pytest.param([{"index": 0, "message": ENDED["message"]}], id="no reason"),
        pytest.param([{**ENDED, "message": None}], id="no message"),
        pytest.param([{**ENDED, "message": {"content": ["hi"]}}], id="a list as text"),
        pytest.param([{**ENDED, "message": {"tool_calls": [{"id": "1"}]}}], id="a call of nothing"),
        pytest.param([{**ENDED, "logprobs": {"content": [{"token": "hi"}]}}], id="a token without its logprob"),
    ],
)
async def test_an_incomplete_response_is_an_error(choices: list[object]) -> None:
    with pytest.raises(openai.APIResponseValidationError):
        await whole(answer(*choices))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"error": {"message": "Overloaded.", "code": 429}}, "Overloaded."),
        ({"error": "Overloaded."}, "Overloaded."),
        ({"error": ["Overloaded."]}, "Overloaded."),
        ({"object": "error", "message": "Overloaded."}, "Overloaded."),
        ({"type": "error", "error": {"type": "overloaded_error"}}, "The upstream service failed with status 502."),
        ({"detail": [{"loc": ["body"], "msg": "Overloaded."}]}, "Overloaded."),
        ({"message": "Overloaded."}, "Overloaded."),
    ],
)
async def test_an_error_in_a_successful_response_is_an_error(error: JSONObject, message: str, stream: bool) -> None:
    headers = "content-type: application/json\r\n"
    async with (
        answering(http_response(json.dumps(error).encode(), headers=headers)) as upstream,
        served_over(upstream) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
        response = await client.post(CHAT, json=body)

    assert (response.status_code, response.json()["error"]["message"]) == (502, message)


async def streamed(*events: bytes, **fields: Any) -> list[Any]:
    """The chunks of a stream that ends without an error."""
    body = http_chunk(b"".join(events) + b"data: [DONE]\n\n") + b"0\r\n\r\n"
    async with answering(SSE_HEAD + body) as url, client_of(url) as client:
        stream = await client.stream_chat_completion(request(stream=True, **fields))
        chunks = [chunk async for events in stream for chunk in chunks_in(events)]
        await stream.aclose()
    return chunks


def choices(*items: JSONObject) -> bytes:
    return event({"choices": items})


@pytest.mark.parametrize(
    ("events", "n"),
    [
        pytest.param([choices({"delta": {"content": "hi"}, "finish_reason": ""})], 1, id="an empty reason"),
        pytest.param([choices({"delta": {"content": "hi"}, "finish_reason": {}})], 1, id="an object as a reason"),
        pytest.param([choices({"index": 0, "delta": {}, "finish_reason": "stop"})], 2, id="one choice never came"),
        pytest.param(
            [choices({"index": 0, "finish_reason": "stop"}, {"index": 1, "delta": {"content": "hi"}})],
            2,
            id="one choice never ended",
        ),
        pytest.param([choices({"delta": {}, "finish_reason": "stop"})], 2, id="which choice is not said"),
    ],
)
async def test_a_stream_with_unfinished_choices_is_an_error(events: list[bytes], n: int) -> None:
    with pytest.raises(openai.APIError):
        await streamed(*events, n=n)


async def test_what_chunks_lack_is_filled_in() -> None:
    chunks = await streamed(
        choices({"delta": {"role": "assistant", "content": "hi"}, "finish_reason": ""}),
        choices({"index": None, "delta": None, "finish_reason": "stop", "logprobs": None}),
        event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}),
        stream_options={"include_usage": True},
    )

    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all(chunk["id"] and chunk["created"] and chunk["model"] for chunk in chunks)
    assert [chunk["choices"][0]["index"] for chunk in chunks[:-1]] == [0, 0, 0]
    assert chunks[-1]["usage"]["total_tokens"] == 3


async def test_tool_call_deltas_without_an_index_get_one() -> None:
    def piece(id_: str | None, arguments: str) -> JSONObject:
        call = {"id": id_, "type": "function", "function": {"name": "f", "arguments": arguments}}
        return {"index": 0, "delta": {"tool_calls": [call]}}

    chunks = await streamed(
        *map(choices, [piece("a", "{"), piece(None, "}"), piece("b", "{}"), {"finish_reason": "tool_calls"}])
    )
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]

    assert [(call["index"], call["id"]) for call in calls] == [(0, "a"), (0, None), (1, "b")]


async def test_an_odd_error_is_reported_by_its_status() -> None:
    odd = {"message": {"reason": 1}, "type": ["invalid"], "param": {}, "code": {"value": 1}}
    content = json.dumps({"error": odd}).encode()
    statuses = {}
    for status in (400, 401, 404, 409, 413, 418, 422, 429, 500, 503, 599, 999):
        async with answering(http_response(content, status=f"{status} X")) as upstream:
            response = await response_over(upstream, upstream_max_attempts=1)
            statuses[status] = response.status_code
            assert isinstance(response.json()["error"]["message"], str)

    assert statuses == {
        400: 400, 401: 502, 404: 502, 409: 503, 413: 413, 418: 502, 422: 422, 429: 429, 500: 500, 503: 503, 599: 502,
        999: 502,
    }  # fmt: skip
