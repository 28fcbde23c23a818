"""Upstreams that misbehave in ways a simulator of OpenAI does not: each byte is written by hand."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import CHAT
from tests.serving import served_over
from tests.unit.features.llm.test_client import (
    OK,
    chunks_in,
    client_of,
    http_answer,
    raw_server,
    read_request,
    read_until_it_breaks,
    request,
)

SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
GOOD: dict[str, Any] = {
    "id": "chatcmpl-1",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": None}],
}
FINISH: dict[str, Any] = {**GOOD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def event(body: object) -> bytes:
    return b"data: %b\n\n" % json.dumps(body).encode()


def http_chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


@asynccontextmanager
async def answering(*writes: bytes) -> AsyncIterator[str]:
    """An upstream that answers every request with these bytes and closes."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for content in writes:
            writer.write(content)
            await writer.drain()

    async with raw_server(converse) as url:
        yield url


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(event({"choices": [{"delta": {}}]}), id="no index"),
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
async def test_what_came_before_a_broken_event_is_kept(broken: bytes) -> None:
    body = http_chunk(event(GOOD) + broken + event(GOOD)) + http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    async with answering(SSE_HEAD + body) as url, client_of(url) as client:
        chunks = await read_until_it_breaks(await client.stream_chat_completion(request(stream=True)))

    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["", "hi"]


async def test_what_came_before_a_break_of_the_connection_is_kept() -> None:
    body = http_chunk(event(GOOD)) + b"40\r\ndata: {"
    async with answering(SSE_HEAD + body) as url, client_of(url) as client:
        stream = await client.stream_chat_completion(request(stream=True))
        async with asyncio.timeout(60):
            # Both have arrived before anybody reads.
            while stream._response._response._failure is None:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0)
        chunks = await read_until_it_breaks(stream)

    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["", "hi"]


@pytest.mark.parametrize(("begun", "chunks"), [(b"", 0), (event(GOOD), 2)], ids=["nothing", "no finish"])
async def test_an_end_before_the_choices_have_ended_is_no_success(begun: bytes, chunks: int) -> None:
    body = http_chunk(begun + b"data: [DONE]\n\n") + b"0\r\n\r\n"
    async with answering(SSE_HEAD + body) as url, client_of(url) as client:
        assert len(await read_until_it_breaks(await client.stream_chat_completion(request(stream=True)))) == chunks


async def test_events_without_choices_and_null_fields_are_no_trouble() -> None:
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


async def test_a_streams_connection_is_used_again_though_its_last_bytes_come_late() -> None:
    connections: set[Any] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        while True:
            await read_request(reader)
            writer.write(SSE_HEAD + http_chunk(event(GOOD) + event(FINISH) + b"data: [DONE]\n\n"))
            await writer.drain()
            # The client has read the end of the stream when it says so; only then the end of the body comes.
            await told.wait()
            told.clear()
            writer.write(b"0\r\n\r\n")

    told = asyncio.Event()
    async with raw_server(converse) as url, client_of(url) as client:
        for _ in range(3):
            stream = await client.stream_chat_completion(request(stream=True))
            assert [events async for events in stream]
            closing = asyncio.create_task(stream.aclose())
            await asyncio.sleep(0)
            told.set()
            await closing

    assert len(connections) == 1


async def test_idle_connections_that_were_closed_cost_no_request() -> None:
    served = 0
    waiting = asyncio.Barrier(4)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await read_request(reader)
        if served < 4:
            await waiting.wait()
        served += 1
        writer.write(http_answer(OK))
        # Each connection's second request is read and never answered: what a closing keep-alive looks like.
        await read_request(reader)

    async with raw_server(converse) as url, client_of(url) as client:
        await asyncio.gather(*(client.create_chat_completion(request()) for _ in range(4)))
        await client.create_chat_completion(request())

    assert served == 5


async def answer_over(upstream: str, **settings: object) -> httpx.Response:
    async with served_over(upstream, **settings) as url, httpx.AsyncClient(base_url=url) as client:
        return await client.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]})


@pytest.mark.parametrize("value", ["\x01", "a\u00e9", "\u2603", "x" * 1000])
@pytest.mark.parametrize("name", ["x-request-id", "retry-after", "x-other"])
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
async def test_odd_headers_of_the_upstream_do_not_lose_its_answer(status: str, name: str, value: str) -> None:
    content = OK if status.startswith("200") else b'{"error":{"message":"No."}}'
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(content)}\r\n{name}: {value}\r\n\r\n".encode()
    async with answering(head + content) as upstream:
        response = await answer_over(upstream)

    assert response.status_code == int(status[:3])
    assert "x-openai-request-id" not in response.headers


@pytest.mark.parametrize("charset", ["utf-16", "idna", "nonsense"])
async def test_the_upstreams_charset_is_not_believed(charset: str) -> None:
    headers = f"content-type: application/json; charset={charset}\r\n"
    async with answering(http_answer(b'{"error":{"message":"No."}}', status="400 Bad", headers=headers)) as upstream:
        response = await answer_over(upstream)

    assert (response.status_code, response.json()["error"]["message"]) == (400, "No.")


async def test_a_key_of_whatever_form_is_taken_out_of_the_upstreams_texts() -> None:
    content = b'{"error":{"message":"Wrong key gsk_live_0123456789abcdef."}}'
    async with answering(http_answer(content, status="400 Bad")) as upstream:
        response = await answer_over(upstream, openai_api_key="gsk_live_0123456789abcdef")

    assert response.json()["error"]["message"] == "Wrong key [redacted]."


async def test_a_key_of_whatever_form_is_taken_out_of_a_streams_error_too() -> None:
    broken = event({"error": {"message": "Wrong key gsk_live_0123456789abcdef."}})
    async with answering(SSE_HEAD + http_chunk(event(GOOD) + broken) + b"0\r\n\r\n") as upstream:
        settings = {"openai_api_key": "gsk_live_0123456789abcdef"}
        async with served_over(upstream, **settings) as url, httpx.AsyncClient(base_url=url) as client:
            body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
            response = await client.post(CHAT, json=body)

    assert "Wrong key [redacted]." in response.text


async def test_the_machines_netrc_is_no_business_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with answering(http_answer(OK)) as upstream:
        assert (await answer_over(upstream)).status_code == 200


@pytest.mark.parametrize("listed", [b'{"data": [{"id": 5}]}', b'{"data": 5}', b"[]", b"<html>"])
async def test_a_list_of_models_that_is_none_is_an_error(listed: bytes) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http_answer(listed))

    async with raw_server(converse) as url, client_of(url) as client:
        with pytest.raises(openai.APIResponseValidationError):
            await client.list_models()


async def test_an_answer_without_usage_is_an_answer() -> None:
    async with (
        answering(http_answer(b'{"id":"x","created":1,"model":"m","choices":[]}')) as url,
        client_of(url) as client,
    ):
        assert (await client.create_chat_completion(request())).usage.total_tokens == 0
