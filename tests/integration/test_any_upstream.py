"""Any upstream data gives a complete response or an error in vLLM's form, and no traceback in the log."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors.request_errors import INTERNAL_ERROR
from tests.conftest import CHAT
from tests.golden.exchanges import JSONObject
from tests.golden.requests import json_values
from tests.properties import examples, place
from tests.raw_upstream import http_response, raw_server
from tests.serving import served_over

of_module = pytest.mark.asyncio(loop_scope="module")

BATCH, COMPLETIONS, INVOCATIONS = "/v1/chat/completions/batch", "/v1/completions", "/invocations"
HI = [{"role": "user", "content": "hi"}]
SUM = {"include_usage": True}
REQUESTS: dict[str, tuple[str, JSONObject]] = {
    "a chat": (CHAT, {"messages": HI}),
    "two choices": (CHAT, {"messages": HI, "n": 2}),
    "log probabilities": (CHAT, {"messages": HI, "logprobs": True, "top_logprobs": 1}),
    "token ids": (CHAT, {"messages": HI, "return_token_ids": True}),
    "named tokens": (CHAT, {"messages": HI, "logprobs": True, "top_logprobs": 1, "return_tokens_as_token_ids": True}),
    "a stop token": (CHAT, {"messages": HI, "stop_token_ids": [0], "logprobs": True}),
    "one tool call": (
        CHAT,
        {
            "messages": HI,
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": "required",
            "parallel_tool_calls": False,
        },
    ),
    "an echo": (CHAT, {"messages": [*HI, {"role": "assistant", "content": "a"}], "echo": True}),
    "a value in an envelope": (CHAT, {"messages": HI, "structured_outputs": {"choice": ["hi", "you"]}}),
    "two texts": (COMPLETIONS, {"prompt": ["a", "b"], "echo": True}),
    "rated texts": (COMPLETIONS, {"prompt": "a", "n": 2, "logprobs": 1}),
    "a chat in an invocation": (INVOCATIONS, {"messages": HI}),
    "a text in an invocation": (INVOCATIONS, {"prompt": "a", "return_token_ids": True}),
}
WHOLE = {**REQUESTS, "a batch": (BATCH, {"messages": [HI, HI]})}
STREAMED = {
    **REQUESTS,
    "a chat's usage": (CHAT, {"messages": HI, "stream_options": SUM}),
    "running usage": (CHAT, {"messages": HI, "stream_options": {**SUM, "continuous_usage_stats": True}}),
    "a text's usage": (COMPLETIONS, {"prompt": ["a", "b"], "stream_options": SUM}),
}


# --- one server and one upstream for all examples ---------------------------------------------------------------------


class Upstream:
    """Sends `response` for every request."""

    def __init__(self) -> None:
        self.response = b""
        self.base_url = ""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            _, announced, length = head.partition(b"content-length: ")
            await reader.readexactly(int(length.partition(b"\r\n")[0]) if announced else 0)
            writer.write(self.response)
            await writer.drain()
            if self.response.startswith(b"HTTP/1.1 1"):
                # Nothing follows what was only to come before the response.
                writer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    running = Upstream()
    async with raw_server(running.converse) as running.base_url:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream: Upstream) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        served_over(upstream.base_url, upstream_max_attempts=1) as url,
        httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client,
    ):
        yield client


class Tracebacks(logging.Handler):
    """Keeps log records that have an exception."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(record)


@pytest.fixture(autouse=True)
def no_traceback() -> Iterator[None]:
    """Fails if the test logs an exception."""
    tracebacks = Tracebacks()
    loggers = [logging.getLogger(name) for name in (None, "uvicorn.error")]
    for logger in loggers:
        logger.addHandler(tracebacks)
    yield
    for logger in loggers:
        logger.removeHandler(tracebacks)
    assert tracebacks.found == []


# --- what a client may get --------------------------------------------------------------------------------------------


def strictly(text: str) -> Any:
    """Parse JSON without NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def check_is_error(body: JSONObject) -> None:
    assert list(body) == ["error"]
    error = body["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["message"] != INTERNAL_ERROR.message
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    assert isinstance(error["param"], str | None)


def check_is_message(message: JSONObject) -> None:
    """Check that a message or delta has the form that client libraries rely on."""
    assert isinstance(message.get("content"), str | None)
    assert isinstance(message.get("refusal"), str | None)
    for call in message.get("tool_calls", ()):
        assert isinstance(call["function"]["name"] if "message" in call else "", str)
        assert isinstance(call, dict)


def check_is_answer(body: JSONObject) -> None:
    assert isinstance(body["id"], str)
    assert isinstance(body["model"], str)
    assert isinstance(body["created"], int)
    assert all(isinstance(choice["index"], int) for choice in body["choices"])
    for choice in body["choices"]:
        check_is_message(choice.get("message") or choice.get("delta") or {"content": choice.get("text")})
    if body.get("usage"):
        assert all(isinstance(body["usage"][f"{kind}_tokens"], int) for kind in ("prompt", "completion", "total"))


def events_of(response: httpx.Response) -> list[Any]:
    *events, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [strictly(event.removeprefix("data: ")) for event in events]


def check_is_honest(response: httpx.Response, *, may_succeed: bool, statuses: tuple[int, ...] = (502,)) -> None:
    """Check for a response if upstream's was complete, else an error, which is a stream's last event."""
    if response.status_code != 200:
        assert response.status_code in statuses, response.text
        check_is_error(strictly(response.text))
        return
    is_stream = response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response) if is_stream else [strictly(response.text)]
    failed = bool(events) and "error" in events[-1]
    for event in events[:-1] if failed else events:
        check_is_answer(event)
    if failed:
        check_is_error(events[-1])
    else:
        assert may_succeed, response.text


# --- what an upstream may send ----------------------------------------------------------------------------------------

LOGPROB = {"token": "hi", "logprob": -0.5, "bytes": [104, 105]}
LOGPROBS = {"content": [{**LOGPROB, "top_logprobs": [LOGPROB]}], "refusal": None}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
USAGE = {
    "prompt_tokens": 1,
    "completion_tokens": 2,
    "total_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 0},
}
HEAD = {"id": "chatcmpl-1", "created": 1, "model": "m", "system_fingerprint": "fp", "service_tier": "default"}


def whole_choice(index: int | None) -> JSONObject:
    message = {
        "role": "assistant",
        "content": '{"value":"hi"}',
        "refusal": None,
        "annotations": [],
        "tool_calls": [CALL],
    }
    return {"index": index, "message": message, "logprobs": LOGPROBS, "finish_reason": "stop"}


def whole_answer(choices: int) -> JSONObject:
    return {**HEAD, "object": "chat.completion", "choices": [*map(whole_choice, range(choices))], "usage": USAGE}


def chunk(*choices: JSONObject, **fields: object) -> JSONObject:
    return {**HEAD, "object": "chat.completion.chunk", "choices": [*choices], "usage": None, **fields}


def delta(index: int | None, *, finish: str | None = None, logprobs: object = None, **said: object) -> JSONObject:
    return {"index": index, "delta": said, "logprobs": logprobs, "finish_reason": finish}


def stream_of(choices: int) -> list[JSONObject]:
    """The chunks of a complete response, some with several choices."""
    each = range(choices)
    return [
        chunk(prompt_filter_results=[]),
        chunk(*(delta(index, role="assistant", content="", refusal=None) for index in each)),
        *(chunk(delta(index, content='{"value":"h', logprobs=LOGPROBS)) for index in each),
        *(chunk(delta(index, content='i"}')) for index in each),
        *(chunk(delta(index, tool_calls=[{"index": 0, **CALL}])) for index in each),
        *(chunk(delta(index, finish="stop")) for index in each),
        chunk(usage=USAGE),
    ]


odd_values: st.SearchStrategy[Any] = (
    st.sampled_from([None, "", 0, -1, 1, True, [], {}, [{}], 2**63, 10**30, 0.5, "stop", 5000 * [0]]) | json_values
)


NAMES = [
    "error",
    "finish_reason",
    "index",
    "choices",
    "logprobs",
    "delta",
    "message",
    "content",
    "tool_calls",
    "refusal",
]


@st.composite
def spoiled(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with up to three changes: replaced, removed or added parts."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        if not value:
            break
        container, key = place(draw, value)
        # A copy, so that no value is in two places.
        odd = deepcopy(draw(odd_values))
        what = draw(st.sampled_from(["replace", "replace", "delete", "insert"]))
        if what == "delete":
            del container[key]
        elif what == "replace":
            container[key] = odd
        elif isinstance(container, list):
            container.insert(key, deepcopy(container[key]) if draw(st.booleans()) else odd)
        else:
            container[draw(st.sampled_from(NAMES))] = odd
    return value


def index_of(choice: JSONObject, choices: int) -> int | None:
    """The index of a choice; one that is missing or no count is supplied where there is only one choice."""
    with suppress(KeyError, TypeError, ValueError, OverflowError):
        if 0 <= int(choice["index"]) == float(choice["index"]):
            return int(choice["index"])
    return 0 if choices == 1 else None


def has_ended(choice: object) -> bool:
    reason = choice.get("finish_reason") if isinstance(choice, dict) else None
    return isinstance(reason, str) and reason != ""


def is_whole(body: Any, choices: int) -> bool:
    """Whether a response has everything requested."""
    found = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(found, list) or len(found) != choices:
        return False
    return all(has_ended(choice) and isinstance(choice.get("message"), dict) for choice in found)


def ends_well(events: list[Any], choices: int) -> bool:
    """Whether every choice of a stream finishes before any error."""
    ended: set[int | None] = set()
    for event in events:
        if not isinstance(event, dict) or event.get("error"):
            return False
        found = event.get("choices")
        ended |= (
            {index_of(choice, choices) for choice in found or () if has_ended(choice)}
            if isinstance(found, list)
            else set()
        )
    return ended >= set(range(choices))


def in_json(body: object) -> bytes:
    return http_response(json.dumps(body).encode(), headers="content-type: application/json\r\n")


def in_events(events: list[Any], *, done: bool = True, prefix: str = "") -> bytes:
    sent = "".join(f"{prefix}data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n" * done
    return http_response(sent.encode(), headers="content-type: text/event-stream\r\n")


async def answer_to(
    server: httpx.AsyncClient, asked: tuple[str, JSONObject], *, stream: bool = False
) -> httpx.Response:
    path, body = asked
    return await server.post(path, json={**body, "stream": True} if stream else body)


def choices_of(asked: tuple[str, JSONObject]) -> int:
    choices: int = asked[1].get("n", 1)
    return choices


# --- the properties ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", WHOLE.values(), ids=WHOLE)
@of_module
async def test_a_complete_response_is_passed_on(
    server: httpx.AsyncClient, upstream: Upstream, asked: tuple[str, JSONObject]
) -> None:
    upstream.response = in_json(whole_answer(choices_of(asked)))
    response = await answer_to(server, asked)

    assert response.status_code == 200
    check_is_honest(response, may_succeed=True)


@pytest.mark.parametrize("asked", STREAMED.values(), ids=STREAMED)
@of_module
async def test_a_complete_stream_is_passed_on(
    server: httpx.AsyncClient, upstream: Upstream, asked: tuple[str, JSONObject]
) -> None:
    upstream.response = in_events(stream_of(choices_of(asked)))
    response = await answer_to(server, asked, stream=True)

    assert "error" not in events_of(response)[-1]
    check_is_honest(response, may_succeed=True)


# Few values, so that streams that nearly end well are frequent.
few_indexes = st.sampled_from([0, 0, 1, 2, None])
few_reasons = st.sampled_from(["stop", "stop", None, ""])
few_texts: st.SearchStrategy[Any] = st.sampled_from(["hi", "hi", "hi", "", None, 5, ["hi"], {}])
few_logprobs: st.SearchStrategy[Any] = st.sampled_from(
    [None, None, LOGPROBS, {"content": None}, {"content": [{"token": "hi", "logprob": -1}]}]
    + [{"content": [{**LOGPROB, "bytes": odd}]} for odd in ([300], [-1], "hi", None)]
)
few_deltas = st.builds(
    lambda index, finish, text, logprobs: delta(index, finish=finish, logprobs=logprobs, content=text),
    *(few_indexes, few_reasons, few_texts, few_logprobs),
)
small_streams = st.lists(st.lists(few_deltas, max_size=2).map(lambda choices: chunk(*choices)), max_size=4)
small_answers = st.lists(
    st.builds(
        lambda index, reason, logprobs: {**whole_choice(index), "finish_reason": reason, "logprobs": logprobs},
        *(few_indexes, few_reasons, few_logprobs),
    ),
    max_size=3,
).map(lambda choices: {**whole_answer(0), "choices": choices})


@examples(700)
@given(asked=st.sampled_from(sorted(WHOLE)), data=st.data())
@of_module
async def test_any_response_is_complete_or_an_error(
    server: httpx.AsyncClient, upstream: Upstream, asked: str, data: st.DataObject
) -> None:
    choices = choices_of(WHOLE[asked])
    body = data.draw(st.one_of(spoiled(whole_answer(choices)), small_answers, json_values))
    upstream.response = in_json(body)

    check_is_honest(await answer_to(server, WHOLE[asked]), may_succeed=is_whole(body, choices))


@st.composite
def spoiled_streams(draw: st.DrawFn, choices: int) -> list[Any]:
    """A stream with odd values, or with events lost, repeated or replaced."""
    events: list[Any] = draw(spoiled(stream_of(choices)))
    for _ in range(draw(st.integers(0, 1)) if events else 0):
        at = draw(st.integers(0, len(events) - 1))
        events[at : at + 1] = draw(
            st.sampled_from([[], [events[at], deepcopy(events[at])], [draw(json_values)], [{"error": "x"}]])
        )
    return events


@examples(900)
@given(asked=st.sampled_from(sorted(STREAMED)), done=st.sampled_from([True, True, False]), data=st.data())
@of_module
async def test_any_stream_is_complete_or_ends_with_an_error(
    server: httpx.AsyncClient, upstream: Upstream, asked: str, done: bool, data: st.DataObject
) -> None:
    choices = choices_of(STREAMED[asked])
    events = data.draw(st.one_of(spoiled_streams(choices), small_streams))
    upstream.response = in_events(events, done=done)
    response = await answer_to(server, STREAMED[asked], stream=True)

    # A text that stops here needs no more of the stream.
    may_stop = asked in {"a stop token", "a value in an envelope"}
    check_is_honest(response, may_succeed=may_stop or (done and ends_well(events, choices)))


STATUSES = [*range(100, 104), *range(200, 209), *range(300, 309), *range(400, 452), *range(500, 512), 599, 600, 999]
ERROR = {"error": {"message": "No.", "type": "t", "param": "p", "code": "c"}, "detail": [{"loc": [], "msg": "No."}]}
error_texts = st.sampled_from([b"", b"No.", b"<html>", b'{"error": "No."}', b"\xff", b"null", b'"No."', b"x" * 5000])
error_bodies = error_texts | (spoiled(ERROR) | json_values).map(lambda body: json.dumps(body).encode())


@examples(500)
@given(
    asked=st.sampled_from(sorted(STREAMED.keys() & WHOLE.keys())),
    status=st.sampled_from(STATUSES),
    content=error_bodies,
    kind=st.sampled_from(["application/json", "text/plain", "text/html", "text/event-stream"]),
    stream=st.booleans(),
)
@of_module
async def test_any_error_is_an_error(
    server: httpx.AsyncClient, upstream: Upstream, asked: str, status: int, content: bytes, kind: str, stream: bool
) -> None:
    upstream.response = http_response(content, status=f"{status} X", headers=f"content-type: {kind}\r\n")
    response = await answer_to(server, STREAMED[asked], stream=stream)

    own = (
        (status,) if status in {400, 413, 422, 429, 500, 502, 503, 504} else {404: (400,), 409: (503,)}.get(status, ())
    )
    check_is_honest(response, may_succeed=False, statuses=(502, *own))


@examples(60)
@given(content=error_bodies | spoiled({"object": "list", "data": [{"id": "m", "object": "model"}]}).map(in_json))
@of_module
async def test_any_model_list_is_a_list_or_an_error(upstream: Upstream, content: bytes) -> None:
    upstream.response = content if content.startswith(b"HTTP/") else http_response(content)
    # Each time a new server, for it keeps the list for minutes.
    async with (
        served_over(upstream.base_url, served_models="*", upstream_max_attempts=1) as url,
        httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client,
    ):
        response = await client.get("/v1/models")

    assert response.status_code in {200, 502}
    if response.status_code == 502:
        check_is_error(strictly(response.text))
    else:
        assert all(isinstance(model["id"], str) for model in strictly(response.text)["data"])
