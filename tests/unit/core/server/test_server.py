"""Shutdown and pipelining, over raw sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.simulator.server import Simulator
from tests.conftest import CHAT
from tests.raw_upstream import FINISH, GOOD, OK, SSE_HEAD, event, http_chunk, http_response, raw_server, read_request
from tests.serving import ReadyServer, serving, settings_for

BATCH = f"{CHAT}/batch"
SLOW = "[sim fault=slow seconds=600]"
STALLED = "[sim fault=stall seconds=600 after=2 tokens=20]"
LAST_WORDS = "[DONE]"


@asynccontextmanager
async def server_over(upstream: Simulator | str, *, shutdown_timeout_s: int) -> AsyncIterator[ReadyServer]:
    app = create_app(settings_for(upstream if isinstance(upstream, str) else upstream.base_url))
    lifecycle = app.state.components.lifecycle
    async with serving(app, lifecycle, shutdown_timeout_s=shutdown_timeout_s) as server:
        yield server


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


def request_bytes(body: dict[str, Any], path: str = CHAT) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


class Caller:
    """A client that writes bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def until(self, end: bytes) -> str:
        async with asyncio.timeout(60):
            return (await self.reader.readuntil(end)).decode()

    async def rest(self) -> str:
        async with asyncio.timeout(60):
            return (await self.reader.read()).decode()


@asynccontextmanager
async def calling(server: ReadyServer, sent: bytes = b"") -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()


def live(simulator: Simulator, count: int) -> Any:
    return simulator.traffic.wait_for(lambda traffic: traffic.live == count)


def events_of(body: str) -> list[Any]:
    return [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: {")]


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, chat(SLOW)), (CHAT, chat(SLOW, stream=True)), (CHAT, chat(STALLED, stream=True))],
    ids=["whole", "before the headers", "mid-stream"],
)
async def test_a_disconnect_cancels_the_current_request_while_another_waits(
    simulator: Simulator, path: str, body: dict[str, Any]
) -> None:
    async with server_over(simulator, shutdown_timeout_s=60) as server:
        async with calling(server, request_bytes(body, path)) as caller:
            await simulator.traffic.wait_for(lambda traffic: traffic.live == 1)
            caller.writer.write(request_bytes(chat("hi")))
            await caller.writer.drain()
        await live(simulator, 0)

        async with httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/load")).json() == {"server_load": 0}
    assert len(simulator.traffic.exchanges) == 1


async def test_pipelined_requests_get_responses_in_order(simulator: Simulator) -> None:
    requests = b"".join(request_bytes(chat(f"[sim tokens=3] {name}", request_id=name)) for name in "abc")
    async with server_over(simulator, shutdown_timeout_s=60) as server, calling(server, requests) as caller:
        heads = [await caller.until(b'"metrics":null}') for _ in range(3)]

    assert [head.partition('{"id":"')[2].partition('"')[0] for head in heads] == [
        "chatcmpl-a",
        "chatcmpl-b",
        "chatcmpl-c",
    ]


async def test_idle_connections_are_closed_at_shutdown(simulator: Simulator) -> None:
    async with (
        server_over(simulator, shutdown_timeout_s=60) as server,
        calling(server) as unused,
        calling(server, request_bytes(chat("[sim tokens=1]"))) as used,
    ):
        await used.until(b'"metrics":null}')
        server.ending.set()

        assert await used.rest() == ""
        assert await unused.rest() == ""


@pytest.mark.parametrize("size", [2, 4_000_000], ids=["small", "large"])
async def test_a_request_that_arrives_during_shutdown_gets_a_whole_503(simulator: Simulator, size: int) -> None:
    sent = request_bytes(chat("x" * size))
    async with server_over(simulator, shutdown_timeout_s=60) as server, calling(server, sent[:30]) as caller:
        async with calling(server, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n") as probe:
            # This response shows that the server has read what was sent before.
            await probe.until(b'"llm-server"}')
            server.ending.set()
            await probe.rest()
        caller.writer.write(sent[30:])
        response = await caller.rest()

    head, _, body = response.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 503 ")
    assert "connection: close" in head
    error = {"message": "The server is shutting down.", "type": "ServiceUnavailableError", "param": None, "code": 503}
    assert json.loads(body) == {"error": error}
    assert not simulator.traffic.exchanges


async def test_a_disconnect_within_a_request_is_not_an_error(
    simulator: Simulator, capfd: pytest.CaptureFixture[str]
) -> None:
    async with server_over(simulator, shutdown_timeout_s=60) as server:
        async with calling(server, request_bytes(chat("hi"))[:-5]), httpx.AsyncClient(base_url=server.url) as client:
            await load_becomes(client, 1)
        async with httpx.AsyncClient(base_url=server.url) as client:
            await load_becomes(client, 0)

    assert "Traceback" not in capfd.readouterr().err


async def load_becomes(client: httpx.AsyncClient, load: int) -> None:
    async with asyncio.timeout(60):
        while (await client.get("/load")).json() != {"server_load": load}:
            pass


@pytest.mark.parametrize("path", ["/health", "/v1/models"])
async def test_health_and_models_respond_during_shutdown(simulator: Simulator, path: str) -> None:
    sent = f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
    async with server_over(simulator, shutdown_timeout_s=60) as server, calling(server) as caller:
        server.ending.set()
        caller.writer.write(sent)

        response = await caller.rest()
    assert response.startswith("HTTP/1.1 200 ")
    assert "connection: close" in response


STREAM_END = http_chunk(event(FINISH) + b"data: [DONE]\n\n") + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("stream", "begin", "end"),
    [(False, b"", http_response(OK)), (True, SSE_HEAD + http_chunk(event(GOOD)), STREAM_END)],
    ids=["whole", "stream"],
)
async def test_a_request_behind_one_in_flight_at_shutdown_gets_a_503_after_it(
    stream: bool, begin: bytes, end: bytes
) -> None:
    received, pipelined = asyncio.Semaphore(0), asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        received.release()
        writer.write(begin)
        await pipelined.wait()
        writer.write(end)
        await reader.read()

    async with (
        raw_server(converse) as url,
        server_over(url, shutdown_timeout_s=60) as server,
        calling(server, request_bytes(chat("hi", stream=stream))) as caller,
    ):
        await received.acquire()
        begun = await caller.until(b"data: ") if stream else ""
        server.ending.set()
        async with not_accepting(server):
            caller.writer.write(request_bytes(chat("hi")))
            await caller.writer.drain()
            pipelined.set()
            responses = begun + await caller.rest()

    assert responses.count("HTTP/1.1 200 ") == 1
    assert responses.count("HTTP/1.1 503 ") == 1
    assert "abort" not in responses
    assert received.locked()


@asynccontextmanager
async def not_accepting(server: ReadyServer) -> AsyncIterator[None]:
    """Wait until the server accepts no new connections."""
    port = server.port
    while True:
        try:
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            break
        writer.close()
    yield


async def aborted_response(
    simulator: Simulator, body: dict[str, Any], path: str = CHAT, *, calls: int = 1
) -> httpx.Response:
    """The response to a request during which the server shuts down with a timeout of zero."""
    async with server_over(simulator, shutdown_timeout_s=0) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            pending = asyncio.create_task(client.post(path, json=body))
            await simulator.traffic.wait_for(lambda traffic: traffic.live == calls)
            server.ending.set()
            response = await pending
        await live(simulator, 0)
    return response


@pytest.mark.parametrize("n", [1, 2])
async def test_a_response_that_exceeds_the_shutdown_timeout_is_vllms_abort(simulator: Simulator, n: int) -> None:
    response = await aborted_response(simulator, chat(SLOW, n=n, request_id="mine", echo=False))
    completion = response.json()

    assert (response.status_code, response.headers["connection"]) == (200, "close")
    assert (completion["id"], completion["object"], completion["model"]) == (
        "chatcmpl-mine",
        "chat.completion",
        "gpt-4o-mini",
    )
    assert [choice["index"] for choice in completion["choices"]] == list(range(n))
    assert {choice["finish_reason"] for choice in completion["choices"]} == {"abort"}
    assert {choice["message"]["content"] for choice in completion["choices"]} == {""}
    assert completion["usage"]["total_tokens"] == 0


async def test_a_batch_keeps_finished_conversations_when_aborted(simulator: Simulator) -> None:
    app = create_app(settings_for(simulator.base_url))
    lifecycle = app.state.components.lifecycle
    conversations = [chat("[sim tokens=3]")["messages"], chat(SLOW)["messages"]]
    async with (
        serving(app, lifecycle, shutdown_timeout_s=0) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        pending = asyncio.create_task(client.post(BATCH, json={"messages": conversations}))
        await simulator.traffic.wait_for(lambda traffic: (traffic.answered, traffic.live) == (1, 1))
        # The first response's bytes are on their way; a later request arrives after them.
        await client.post(CHAT, json=chat("[sim tokens=1]"))
        server.ending.set()
        choices = (await pending).json()["choices"]

    assert [choice["finish_reason"] for choice in choices] == ["stop", "abort"]
    assert choices[0]["message"]["content"]


def role(index: int) -> dict[str, Any]:
    return {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}


def abort(index: int) -> dict[str, Any]:
    ended = {"delta": {"content": ""}, "logprobs": None, "finish_reason": "abort"}
    return {"index": index, **ended, "stop_reason": None, "token_ids": None, "weight_versions": None}


async def test_a_stream_that_has_not_started_is_vllms_abort(simulator: Simulator) -> None:
    response = await aborted_response(simulator, chat(SLOW, stream=True, n=2, request_id="mine"))
    events = events_of(response.text)

    assert response.headers["content-type"].startswith("text/event-stream")
    assert [event["choices"][0] for event in events] == [role(0), abort(0), role(1), abort(1)]
    assert {event["id"] for event in events} == {"chatcmpl-mine"}
    assert [set(event) - {"id", "object", "created", "model", "choices"} for event in events] == [
        {"prompt_token_ids", "prompt_text"},
        {"system_fingerprint", "kv_transfer_params"},
    ] * 2
    assert response.text.endswith("data: [DONE]\n\n")


async def test_a_started_stream_is_aborted_as_in_vllm(simulator: Simulator) -> None:
    body = chat(STALLED, stream=True, n=2, stream_options={"include_usage": True})
    async with server_over(simulator, shutdown_timeout_s=0) as server:
        async with calling(server, request_bytes(body)) as caller:
            begun = await caller.until(b'"delta":{"role":"assistant"')
            begun += await caller.until(b"\n\n")
            server.ending.set()
            text = begun + await caller.rest()
        await live(simulator, 0)

    events = events_of(text)
    finishes = [choice for event in events for choice in event["choices"] if choice["finish_reason"]]
    assert finishes == [abort(0), abort(1)]
    assert sum("role" in choice["delta"] for event in events for choice in event["choices"]) == 2
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == {"prompt_tokens": 0, "total_tokens": 0, "completion_tokens": 0}
    assert '"error"' not in text
    assert "data: [DONE]\n\n" in text


async def test_text_completions_are_aborted_in_their_own_format(simulator: Simulator) -> None:
    response = await aborted_response(simulator, {"prompt": [SLOW, SLOW]}, "/v1/completions", calls=2)
    completion = response.json()

    assert (response.status_code, completion["object"]) == (200, "text_completion")
    assert [(each["index"], each["text"], each["finish_reason"]) for each in completion["choices"]] == [
        (0, "", "abort"),
        (1, "", "abort"),
    ]


async def test_text_completion_streams_are_aborted_in_their_own_format(simulator: Simulator) -> None:
    body = {"prompt": [SLOW, SLOW], "stream": True, "stream_options": {"include_usage": True}}
    response = await aborted_response(simulator, body, "/v1/completions", calls=2)
    events = events_of(response.text)

    finished = sorted((each["index"], each["finish_reason"]) for event in events for each in event["choices"])
    assert finished == [(0, "abort"), (1, "abort")]
    assert events[-1]["usage"]["total_tokens"] == 0
    assert response.text.endswith("data: [DONE]\n\n")


async def test_shutdown_leaves_no_task_and_no_traceback(
    simulator: Simulator, capfd: pytest.CaptureFixture[str]
) -> None:
    before = asyncio.all_tasks()
    await aborted_response(simulator, chat(STALLED, stream=True))
    assert asyncio.all_tasks() == before
    assert "Traceback" not in capfd.readouterr().err
