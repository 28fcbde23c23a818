"""Faults as a client sees them."""

import asyncio
import json
import re
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.simulator.server import Simulator

URL = "/chat/completions"
SERVER_ERROR = {
    "message": "The server had an error while processing your request. Sorry about that!",
    "type": "server_error",
    "param": None,
    "code": None,
}
RATE_LIMIT = {
    "message": (
        "Rate limit reached for gpt-4o-mini in organization org-simulator on requests per min (RPM): "
        "Limit 3, Used 3, Requested 1. Please try again in 7s."
    ),
    "type": "requests",
    "param": None,
    "code": "rate_limit_exceeded",
}
BEFORE_HEADERS = b""
# The only member of a response that depends on the clock.
CREATED = re.compile(r'"created":\d+')


def chat(directive: str, **members: Any) -> dict[str, Any]:
    text = f"[sim {directive}] What grows in a garden?"
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **members}


def streamed(directive: str, **members: Any) -> dict[str, Any]:
    return chat(directive, stream=True, **members)


async def events(client: httpx.AsyncClient, directive: str) -> list[str]:
    response = await client.post(URL, json=streamed(directive))
    assert response.status_code == 200
    return CREATED.sub('"created":0', response.text).split("\n\n")


async def received(simulator: Simulator, body: dict[str, Any]) -> tuple[bytes, str]:
    """Return the raw response to ``body``, and whether the connection was then closed or reset."""
    address = urlsplit(simulator.base_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    content = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-a\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    got = b""
    try:
        async with asyncio.timeout(60):
            while piece := await reader.read(65_536):
                got += piece
    except ConnectionResetError:
        return got, "reset"
    else:
        return got, "closed"
    finally:
        writer.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("directive", "status", "error"),
    [
        pytest.param("fault=rate_limit", 429, RATE_LIMIT, id="rate_limit"),
        pytest.param("fault=server_error", 500, SERVER_ERROR, id="server_error"),
        pytest.param(
            "fault=overloaded",
            503,
            SERVER_ERROR | {"message": "The engine is currently overloaded, please try again later"},
            id="overloaded",
        ),
        pytest.param(
            "fault=quota",
            429,
            {
                "message": (
                    "You exceeded your current quota, please check your plan and billing details. For more "
                    "information on this error, read the docs: "
                    "https://platform.openai.com/docs/guides/error-codes/api-errors."
                ),
                "type": "insufficient_quota",
                "param": None,
                "code": "insufficient_quota",
            },
            id="quota",
        ),
    ],
)
async def test_an_error_fault_replaces_the_response(
    client: httpx.AsyncClient, directive: str, status: int, error: dict[str, Any], *, stream: bool
) -> None:
    response = await client.post(URL, json=chat(directive, stream=stream))
    assert (response.status_code, response.json()) == (status, {"error": error})


@pytest.mark.parametrize(("seconds", "milliseconds"), [("7", "7000"), ("0.5", "500"), ("60", "60000")])
async def test_a_rate_limit_has_a_retry_after(client: httpx.AsyncClient, seconds: str, milliseconds: str) -> None:
    response = await client.post(URL, json=chat(f"fault=rate_limit retry_after={seconds}"))
    assert response.headers["retry-after"] == seconds
    assert response.headers["retry-after-ms"] == milliseconds
    assert response.json()["error"]["message"].endswith(f"Please try again in {seconds}s.")


@pytest.mark.parametrize("status", [401, 403, 418, 504])
async def test_any_status_can_be_requested_with_confidential_text(client: httpx.AsyncClient, status: int) -> None:
    response = await client.post(URL, json=chat(f"fault=status status={status}"))
    message = response.json()["error"]["message"]
    assert response.status_code == status
    assert "sk-proj-abc***" in message
    assert "organization org-simulator" in message


@pytest.mark.parametrize(
    ("directive", "status", "content_type", "start"),
    [
        pytest.param("fault=bad_gateway", 502, "text/html", "<html>", id="bad_gateway"),
        pytest.param("fault=not_json", 200, "text/plain", "upstream", id="not_json"),
        pytest.param("fault=empty", 200, "application/json", "", id="empty"),
    ],
)
async def test_a_response_may_not_be_json(
    client: httpx.AsyncClient, directive: str, status: int, content_type: str, start: str
) -> None:
    response = await client.post(URL, json=chat(directive))
    assert response.status_code == status
    assert response.headers["content-type"].startswith(content_type)
    assert response.text.startswith(start)
    assert bool(response.text) == bool(start)


@pytest.mark.parametrize("stream", [False, True])
async def test_slow_delays_the_status_line(client: httpx.AsyncClient, *, stream: bool) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await client.post(URL, json=chat("fault=slow", stream=stream), timeout=httpx.Timeout(60, read=0.1))
    response = await client.post(URL, json=chat("fault=slow seconds=0.01", stream=stream))
    assert response.status_code == 200


async def test_stall_pauses_a_stream(client: httpx.AsyncClient) -> None:
    body = streamed("fault=stall after=3")
    async with client.stream("POST", URL, json=body) as response:
        pieces, received = response.aiter_text(), ""
        while received.count("data: ") < 3:
            received += await anext(pieces)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(pieces), 0.1)
        assert received.count("data: ") == 3


@pytest.mark.parametrize("after", [2, 900])
async def test_a_stalled_stream_continues(client: httpx.AsyncClient, after: int) -> None:
    assert await events(client, f"fault=stall after={after} seconds=0.01") == await events(client, "itl=0")


async def test_cut_closes_the_connection_within_an_event(simulator: Simulator) -> None:
    got, end = await received(simulator, streamed("fault=cut after=3"))
    assert end == "closed"
    assert got.count(b"data: ") == 4
    assert got.count(b"\n\n") == 3
    assert not got.endswith(b"0\r\n\r\n")


async def test_no_done_omits_only_done(client: httpx.AsyncClient) -> None:
    whole = await events(client, "itl=0")
    assert await events(client, "fault=no_done") == [*whole[:-2], ""]


async def test_early_end_ends_the_body_within_an_event(client: httpx.AsyncClient) -> None:
    whole, short = await events(client, "itl=0"), await events(client, "fault=early_end after=3")
    assert short[:-1] == whole[:3]
    assert whole[3].startswith(short[-1])
    assert 0 < len(short[-1]) < len(whole[3])


async def test_error_event_ends_the_stream_with_an_error(client: httpx.AsyncClient) -> None:
    *before, error, rest = await events(client, "fault=error_event after=3")
    assert before == (await events(client, "itl=0"))[:3]
    assert json.loads(error.removeprefix("data: ")) == {"error": SERVER_ERROR}
    assert rest == ""


async def test_a_stream_continues_after_bad_event(client: httpx.AsyncClient) -> None:
    whole, with_bad = await events(client, "itl=0"), await events(client, "fault=bad_event after=3")
    bad = with_bad.pop(3)
    assert with_bad == whole
    with pytest.raises(json.JSONDecodeError):
        json.loads(bad.removeprefix("data: "))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(chat("fault=reset"), id="whole"),
        pytest.param(chat("fault=reset after=2"), id="whole, after"),
        pytest.param(streamed("fault=reset"), id="stream"),
    ],
)
async def test_reset_comes_before_the_status_line(simulator: Simulator, body: dict[str, Any]) -> None:
    assert await received(simulator, body) == (BEFORE_HEADERS, "reset")


async def test_reset_can_come_after_some_events(simulator: Simulator) -> None:
    got, end = await received(simulator, streamed("fault=reset after=3"))
    assert end == "reset"
    assert got.count(b"data: ") == 3


async def test_crlf_changes_only_the_line_ends(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json=streamed("fault=crlf"))
    lines = response.content.split(b"\r\n")
    assert b"\n" not in b"".join(lines)
    assert lines.count(b": ping") == len([line for line in lines if line.startswith(b"data: ")])
    blocks = [CREATED.sub('"created":0', line.decode()) for line in lines if line.startswith(b"data: ")]
    assert [*blocks, ""] == await events(client, "itl=0")


async def test_dribble_sends_a_byte_at_a_time(client: httpx.AsyncClient, simulator: Simulator) -> None:
    got, _ = await received(simulator, streamed("fault=dribble tokens=2"))
    chunks = got.partition(b"\r\n\r\n")[2].split(b"\r\n")
    assert set(chunks[:-3:2]) == {b"1"}
    assert await events(client, "fault=dribble") == await events(client, "itl=0")


@pytest.mark.parametrize("fault", ["cut", "early_end"])
async def test_a_whole_response_can_end_early(simulator: Simulator, fault: str) -> None:
    got, end = await received(simulator, chat(f"fault={fault}"))
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert end == "closed"
    assert len(body) == length // 2


@pytest.mark.parametrize("fault", ["stall", "no_done", "error_event", "bad_event", "crlf", "dribble"])
async def test_stream_faults_do_not_affect_whole_responses(client: httpx.AsyncClient, fault: str) -> None:
    response = await client.post(URL, json=chat(f"fault={fault}"))
    assert response.json()["choices"][0]["finish_reason"] == "stop"


async def test_the_last_directive_of_all_messages_wins(client: httpx.AsyncClient) -> None:
    body = chat("fault=quota retry_after=9")
    body["messages"].insert(0, {"role": "system", "content": "[sim fault=empty] [sim tokens=1]"})
    body["messages"].append({"role": "user", "content": [{"type": "text", "text": "[sim fault=rate_limit]"}]})
    response = await client.post(URL, json=body)
    assert response.json()["error"]["code"] == "rate_limit_exceeded"
    assert response.headers["retry-after"] == "9"


async def test_a_bad_request_takes_precedence_over_a_fault(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json=chat("fault=server_error", temperature=5))
    assert response.status_code == 400


async def test_a_fault_can_be_limited_to_the_first_equal_requests(client: httpx.AsyncClient) -> None:
    statuses = [(await client.post(URL, json=chat("fault=server_error times=2"))).status_code for _ in range(3)]
    other = await client.post(URL, json=chat("fault=server_error times=2", seed=1))

    assert (statuses, other.status_code) == ([500, 500, 200], 500)


async def test_a_fault_can_be_limited_to_one_key(client: httpx.AsyncClient) -> None:
    body = chat("fault=quota key=poor")
    rich = await client.post(URL, json=body, headers={"Authorization": "Bearer sk-rich"})
    poor = await client.post(URL, json=body, headers={"Authorization": "Bearer sk-poor"})

    assert (rich.status_code, poor.status_code) == (200, 429)


async def test_should_retry_sets_the_errors_header(client: httpx.AsyncClient) -> None:
    advised = await client.post(URL, json=chat("fault=overloaded retry_after=3 should_retry=false"))
    plain = await client.post(URL, json=chat("fault=overloaded"))

    assert (advised.headers["retry-after"], advised.headers["x-should-retry"]) == ("3", "false")
    assert not {"retry-after", "x-should-retry"} & set(plain.headers)
