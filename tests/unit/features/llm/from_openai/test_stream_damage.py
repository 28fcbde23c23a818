"""Broken and unusual upstream streams, as a client of the server sees them."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.lifecycle import Lifecycle
from app.core.redaction import Redactor
from app.features.llm.from_openai.chunk_translator import ChunkTranslator
from app.features.llm.from_openai.plan import ResponsePlan
from app.features.llm.from_openai.stream import ChatStream
from app.features.llm.from_openai.usage_meter import UsageMeter
from app.upstream.sse import BOM
from app.upstream.upstream_response import UpstreamResponse
from tests.conftest import CHAT
from tests.raw_upstream import SSE_HEAD, answering, event, http_chunk, http_response, raw_server, read_request, request
from tests.serving import served_over

DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def choice(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def chunk(*choices: dict[str, Any], **fields: Any) -> bytes:
    body = {"id": "chatcmpl-1", "created": 1, "model": "m", "choices": [*choices], **fields}
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def call(index: int, **function: str) -> dict[str, Any]:
    return {"index": index, "function": function}


def named_call(index: int, name: str) -> dict[str, Any]:
    return {"id": f"call_{name}", "type": "function", **call(index, name=name, arguments="")}


BEGIN = chunk(choice(role="assistant", content="")) + chunk(choice(content="안녕"))
FINISH = chunk(choice(finish="stop"))
GOOD = BEGIN + FINISH + DONE
CALLS = [
    choice(0, role="assistant", content=None, tool_calls=[named_call(0, "ab")]),
    choice(1, role="assistant", content=None, tool_calls=[named_call(0, "ac")]),
    choice(0, tool_calls=[call(0, arguments='{"x"')]),
    choice(0, tool_calls=[named_call(1, "b"), call(0, arguments=": 1}")]),
    choice(1, tool_calls=[call(0, arguments="{}")]),
    choice(0, tool_calls=[call(1, arguments='{"città": "서울"}')]),
    choice(0, finish="tool_calls"),
    choice(1, finish="tool_calls"),
]


@asynccontextmanager
async def server_over(body: bytes, *, end: bytes = END) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        answering(SSE_HEAD + http_chunk(body) + end) as upstream,
        served_over(upstream) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client


async def streamed(body: bytes, *, end: bytes = END, **fields: Any) -> list[Any]:
    """The events a client of our server gets, without `[DONE]`, which must be the last."""
    asked = {"messages": [{"role": "user", "content": "hi"}], "stream": True, **fields}
    async with server_over(body, end=end) as client:
        response = await client.post(CHAT, json=asked)
    assert response.status_code == 200
    *events, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in events]


@pytest.mark.parametrize(
    ("after", "end"),
    [
        pytest.param(b'data: {"id": "chatcm', b"", id="cut in an event"),
        pytest.param(b'data: {"id": "chatcm', END, id="ended in an event"),
        pytest.param(b"", b"", id="cut between events"),
        pytest.param(b"", END, id="ended between events"),
        pytest.param(FINISH, END, id="ended without DONE"),
        pytest.param(FINISH + b"data: [DONE]", END, id="ended in DONE"),
        pytest.param(DONE, END, id="DONE without a finish"),
        pytest.param(event({"error": {"message": "Sorry."}}), END, id="an error event"),
        pytest.param(event({"error": "Sorry."}) + DONE, END, id="an error event that is a string"),
        pytest.param(b"data: {'a': 1}\n\n" + FINISH + DONE, END, id="no JSON"),
        pytest.param(b'data: {"a": NaN}\n\n' + FINISH + DONE, END, id="a number that is none"),
        pytest.param(b'data: {"a": "\xff"}\n\n' + FINISH + DONE, END, id="no UTF-8"),
        pytest.param(b"data: []\n\n" + FINISH + DONE, END, id="no object"),
        pytest.param(b"data: <html>\n\n" + FINISH + DONE, END, id="HTML"),
    ],
)
async def test_a_damaged_stream_is_its_complete_events_and_one_error(after: bytes, end: bytes) -> None:
    *events, error = await streamed(BEGIN + after, end=end)

    assert [event["choices"][0]["delta"]["content"] for event in events] == ["", "안녕", ""][: len(events)]
    assert 2 <= len(events) <= 3
    assert list(error) == ["error"]
    assert error["error"]["code"] in {500, 502}


async def test_an_endless_event_is_an_error() -> None:
    async with (
        endless(SSE_HEAD + http_chunk(BEGIN + b"data: "), http_chunk(b"x" * 100_000)) as upstream,
        served_over(upstream) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        response = await client.post(CHAT, json=body)

    assert response.text.count('data: {"error"') == 1
    assert response.text.endswith("data: [DONE]\n\n")


@asynccontextmanager
async def endless(begin: bytes, more: bytes) -> AsyncIterator[str]:
    """An upstream that sends until the connection closes."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(begin)
        while True:
            writer.write(more)
            await writer.drain()

    async with raw_server(converse) as url:
        yield url


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
async def test_a_body_in_place_of_a_stream_is_read_up_to_a_limit(kind: str) -> None:
    head = SSE_HEAD.replace(b"text/event-stream", kind.encode())
    async with (
        endless(head, http_chunk(b"[" * 1000)) as upstream,
        served_over(upstream) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        response = await client.post(CHAT, json=body)

    assert response.status_code == 502


@pytest.mark.parametrize("end", [b"", END], ids=["cut", "ended"])
async def test_an_empty_body_is_an_error(end: bytes) -> None:
    [error] = await streamed(b": nothing\n\n", end=end)

    assert error["error"]["code"] == 502


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("content_type", ["text/html", "text/plain", "text/event-stream", ""])
async def test_another_content_type_is_a_502(content_type: str, stream: bool) -> None:
    headers = f"content-type: {content_type}\r\n" if content_type else ""
    if stream and content_type == "text/event-stream":
        headers = "content-type: application/json\r\n"
    async with (
        answering(http_response(b'{"ok": true}', headers=headers)) as upstream,
        served_over(upstream) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
        response = await client.post(CHAT, json=body)

    assert response.status_code == 502
    assert response.json()["error"]["message"] == "The upstream service's response could not be understood."


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda body: body.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(lambda body: body.replace(b"\n", b"\r"), id="CR"),
        pytest.param(lambda body: BOM + body, id="BOM"),
        pytest.param(lambda body: b": a comment\n\n" + body.replace(b"\n\n", b"\n: another\n\n"), id="comments"),
        pytest.param(lambda body: body.replace(b"data: ", b"event: chunk\nid: 7\ndata:"), id="other fields"),
    ],
)
async def test_other_sse_forms_give_the_same_stream(form: Any) -> None:
    assert await streamed(form(GOOD)) == await streamed(GOOD)


async def test_tool_call_deltas_are_passed_on() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("ab", "ac", "b")]
    body = b"".join(chunk(each) for each in CALLS) + DONE
    choices = [event["choices"][0] for event in await streamed(body, n=2, tools=tools)]
    calls = [each for each in choices if "tool_calls" in each["delta"]]

    assert [(each["index"], each["delta"]["tool_calls"]) for each in calls] == [
        (each["index"], each["delta"]["tool_calls"]) for each in CALLS if "tool_calls" in each["delta"]
    ]
    assert [each["index"] for each in choices if each["finish_reason"] == "tool_calls"] == [0, 1]


class Pieces:
    """A response read in exactly these pieces; a socket would join them."""

    url = "http://upstream/v1/chat/completions"

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    read_all = read

    def close(self) -> None:
        """Nothing is open."""


async def read_in(pieces: Sequence[bytes]) -> tuple[bytes, bool]:
    """The translated events of a stream in `pieces`, and whether it ended without an error."""
    asked = request(stream=True, n=2, stream_options={"include_usage": True})
    answer = cast("UpstreamResponse", Pieces(pieces))
    stream = ChatStream(
        answer,
        ChunkTranslator(asked, ResponsePlan()),
        redactor=Redactor(()),
        lifecycle=Lifecycle(),
        usage_meter=UsageMeter(b""),
    )
    made = b""
    try:
        async for events in stream:
            made += events
    except openai.APIError:
        return made, False
    await stream.aclose()
    return made, True


TEXTS = chunk(choice(0, role="assistant", content="")) + chunk(choice(1, role="assistant", content=""))
TEXTS += chunk(choice(0, content="안녕 🎉")) + event({"choices": []}) + chunk(choice(1, content="日本\n\n語"))
TEXTS += chunk(choice(1, finish="length")) + chunk(choice(0, finish="stop")) + chunk(usage=USAGE) + DONE
STREAMS = {
    "texts": TEXTS,
    "CRLF": (b": ping\n\n" + TEXTS).replace(b"\n", b"\r\n"),
    "calls": b"".join(chunk(each) for each in CALLS) + chunk(usage=USAGE) + DONE,
    "an error": BEGIN + event({"error": {"message": "죄송합니다"}}) + DONE,
}


@given(st.sampled_from(sorted(STREAMS)), st.data())
def test_any_cut_of_a_stream_gives_the_same_chunks(name: str, data: st.DataObject) -> None:
    stream = STREAMS[name]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert asyncio.run(read_in(pieces)) == asyncio.run(read_in([stream]))


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
async def test_every_single_cut_gives_the_same_chunks(stream: bytes) -> None:
    whole = await read_in([stream])

    assert await read_in([bytes([byte]) for byte in stream]) == whole
    for cut in range(len(stream)):
        assert await read_in([stream[:cut], stream[cut:]]) == whole


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
async def test_no_truncated_stream_is_a_success(stream: bytes) -> None:
    made, _ = await read_in([stream])
    for end in range(len(stream) - 1):
        begun, ended_well = await read_in([stream[:end]])
        assert not ended_well
        assert begun == made[: len(begun)]
