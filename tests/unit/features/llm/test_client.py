"""The client with upstreams on real sockets: the simulator, and misbehaving ones."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import aiohttp.web
import httpx2
import openai
import pytest

from app.core.errors.request_errors import RequestError
from app.core.request_record import RequestRecord, begin_record
from app.features.llm.client import OpenAIClient
from app.features.llm.from_openai.stream import AbortedStream, ChatStream
from app.simulator.server import Simulator
from app.upstream.session import new_session
from tests.raw_upstream import OK, chunks_in, chunks_of, client_of, http_response, raw_server, read_request, request


@pytest.fixture
async def openai_client(simulator: Simulator) -> AsyncIterator[OpenAIClient]:
    async with client_of(simulator.base_url) as client:
        yield client


async def test_a_response_has_the_requested_model_name(openai_client: OpenAIClient) -> None:
    answer = await openai_client.create_chat_completion(request(model="gpt-4o-mini"))

    assert answer.model == "gpt-4o-mini"
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_a_stream_comes_as_chunks(openai_client: OpenAIClient) -> None:
    chunks = await chunks_of(openai_client)

    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_the_models_are_listed(openai_client: OpenAIClient) -> None:
    assert "gpt-4o-mini" in await openai_client.list_models()


async def test_calls_have_the_accounts_headers(simulator: Simulator) -> None:
    async with new_session() as session:
        client = OpenAIClient("sk-test", simulator.base_url, session=session, organization="org-1", project="proj_1")
        await client.create_chat_completion(request())

    headers = simulator.traffic.exchanges[0].headers
    assert headers["authorization"] == "Bearer sk-test"
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj_1")


async def test_without_an_organization_none_is_sent(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "")
    async with client_of(simulator.base_url) as client:
        await client.create_chat_completion(request())

    assert not {"openai-organization", "openai-project", "cookie"} & set(simulator.traffic.exchanges[0].headers)


async def test_connections_are_reused(openai_client: OpenAIClient, simulator: Simulator) -> None:
    connections: set[Any] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        while True:
            await read_request(reader)
            writer.write(http_response(OK))

    async with raw_server(converse) as url, client_of(url) as client:
        for _ in range(5):
            await client.create_chat_completion(request())

    assert len(connections) == 1


async def test_a_call_on_a_stale_connection_is_retried() -> None:
    served = 0

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await read_request(reader)
        writer.write(http_response(OK))
        served += 1
        # The next request on this connection gets no response, as if the keep-alive had just expired.
        await read_request(reader)

    async with raw_server(converse) as url, client_of(url) as client:
        await client.create_chat_completion(request())
        await client.create_chat_completion(request())

    assert served == 2


async def test_a_call_on_a_new_connection_is_not_retried() -> None:
    calls = 0

    async def converse(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        await read_request(reader)
        calls += 1

    async with raw_server(converse) as url, client_of(url) as client:
        with pytest.raises(openai.APIConnectionError):
            await client.create_chat_completion(request())

    assert calls == 1


async def test_a_redirect_is_not_followed() -> None:
    asked: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            asked.append(await read_request(reader))
            writer.write(http_response(b"", status="307 Temporary Redirect", headers="location: /elsewhere\r\n"))

    async with raw_server(converse) as url, client_of(url) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.create_chat_completion(request())

    assert caught.value.status_code == 307
    assert len(asked) == 1


async def test_an_unreachable_upstream_is_a_connection_error() -> None:
    async with raw_server(read_request) as url:  # type: ignore[arg-type]  # closed before anybody calls
        pass
    async with client_of(url) as client:
        with pytest.raises(openai.APIConnectionError, match="could not be reached"):
            await client.create_chat_completion(request())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["not_json", "empty"])
async def test_an_invalid_success_is_an_error(openai_client: OpenAIClient, fault: str, stream: bool) -> None:
    text = f"[sim fault={fault}]"
    with pytest.raises(openai.APIResponseValidationError):
        if stream:
            await openai_client.stream_chat_completion(request(text, stream=True))
        else:
            await openai_client.create_chat_completion(request(text))


async def read_until_it_breaks(stream: ChatStream | AbortedStream) -> list[Any]:
    chunks: list[Any] = []
    with pytest.raises(openai.APIError):
        async for events in stream:
            chunks += chunks_in(events)
    await stream.aclose()
    return chunks


@pytest.mark.parametrize("fault", ["cut", "early_end", "error_event", "bad_event"])
async def test_a_broken_stream_gives_its_complete_events_then_the_error(
    openai_client: OpenAIClient, fault: str
) -> None:
    text = f"[sim fault={fault} after=3 tokens=20]"
    chunks = await read_until_it_breaks(await openai_client.stream_chat_completion(request(text, stream=True)))

    assert [list(chunk["choices"][0]["delta"]) for chunk in chunks] == [["role", "content"], ["content"], ["content"]]


async def test_a_reset_stream_is_an_error(openai_client: OpenAIClient) -> None:
    text = "[sim fault=reset after=3 tokens=20]"
    await read_until_it_breaks(await openai_client.stream_chat_completion(request(text, stream=True)))


async def test_an_end_without_done_is_an_error(openai_client: OpenAIClient) -> None:
    text = "[sim fault=no_done tokens=9]"
    chunks = await read_until_it_breaks(await openai_client.stream_chat_completion(request(text, stream=True)))

    assert chunks[-1]["choices"][0]["finish_reason"]


@pytest.mark.parametrize("fault", ["crlf", "dribble"])
async def test_an_unusual_but_valid_stream_is_complete(openai_client: OpenAIClient, fault: str) -> None:
    text = f"[sim fault={fault} tokens=9]"
    chunks = await chunks_of(openai_client, text)
    whole = await openai_client.create_chat_completion(request(text))

    streamed = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert streamed == whole.choices[0].message.content


async def test_closing_a_stream_closes_the_call(openai_client: OpenAIClient, simulator: Simulator) -> None:
    stream = await openai_client.stream_chat_completion(request("[sim fault=stall seconds=600 after=1]", stream=True))
    await anext(aiter(stream))

    await stream.aclose()

    await simulator.traffic.wait_for(lambda traffic: traffic.abandoned == 1 and traffic.live == 0)


async def test_cancelling_a_call_closes_it(openai_client: OpenAIClient, simulator: Simulator) -> None:
    call = asyncio.create_task(openai_client.create_chat_completion(request("[sim fault=slow seconds=600]")))
    await simulator.traffic.wait_for(lambda traffic: traffic.live == 1)

    call.cancel()

    await simulator.traffic.wait_for(lambda traffic: traffic.abandoned == 1 and traffic.live == 0)
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_unsupported_requests_are_rejected_before_a_call(
    openai_client: OpenAIClient, simulator: Simulator
) -> None:
    with pytest.raises(RequestError):
        await openai_client.create_chat_completion(request(prompt_logprobs=1))

    assert not simulator.traffic.exchanges


async def test_the_record_has_what_the_response_reports(openai_client: OpenAIClient) -> None:
    record = RequestRecord()
    begin_record(record)
    await openai_client.create_chat_completion(request(top_k=5, max_tokens=20_000))

    assert record.ignored_params == ["top_k"]
    assert record.adjusted_params == {"max_tokens": 16_384}
    assert record.upstream_headers["x-openai-request-id"].startswith("req_")


async def test_a_client_without_a_session_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="lifespan"):
        await OpenAIClient("sk-test").create_chat_completion(request())


BODIES = {
    "an error object": b'{"error":{"message":"No.","type":"t","param":"p","code":"c"}}',
    "a bare object": b'{"message":"No."}',
    "an error string": b'{"error":"No."}',
    "HTML": b"<html>No.</html>",
    "nothing": b"",
    "a list": b"[1]",
    "a number as code": b'{"error":{"message":"No.","code":7}}',
}


@pytest.fixture
async def status_url() -> AsyncIterator[str]:
    """A server that responds with the status and body in the path: /STATUS/BODY/chat/completions."""
    names = list(BODIES)

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(
            status=int(request.match_info["status"]),
            body=BODIES[names[int(request.match_info["body"])]],
            headers={"x-request-id": "req_1", "retry-after": "7"},
        )

    app = aiohttp.web.Application()
    app.router.add_post("/{status}/{body}/chat/completions", answer)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def raised_by(call: Awaitable[object]) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("body", range(len(BODIES)), ids=list(BODIES))
async def test_our_exceptions_are_the_sdks_own_for_every_status(status_url: str, body: int) -> None:
    statuses = range(400, 600) if body == 0 else (400, 401, 403, 404, 409, 418, 422, 429, 500, 503)
    async with httpx2.AsyncClient() as http, new_session() as session:
        for status in statuses:
            url = f"{status_url}/{status}/{body}"
            sdk = openai.AsyncOpenAI(api_key="sk-test", base_url=url, max_retries=0, http_client=http)
            messages: Any = [{"role": "user", "content": "hi"}]
            theirs = await raised_by(sdk.chat.completions.create(model="gpt-4o-mini", messages=messages))
            client = OpenAIClient("sk-test", url, session=session, max_attempts=1)
            ours = await raised_by(client.create_chat_completion(request()))

            assert type(ours) is type(theirs), status
            assert str(ours) == str(theirs)
            for attribute in ("status_code", "request_id", "body", "code", "param", "type", "message"):
                assert getattr(ours, attribute) == getattr(theirs, attribute), (status, attribute)
            assert ours.response.headers["retry-after"] == "7"
            assert ours.response.content == theirs.response.content


async def test_a_base_url_without_a_path_keeps_its_host() -> None:
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http_response(b'{"data": [{"id": "a"}]}'))

    async with raw_server(answer) as url, client_of(url.removesuffix("/v1")) as client:
        assert await client.list_models() == {"a": None}

    assert asked == [b"GET /models HTTP/1.1\r\n"]
