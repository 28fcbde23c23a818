"""What the canned upstream answers: OpenAI's bytes, made once, and the words in a prompt that ask for each."""

import json

MARK = b"seagull"
"""The one word of every streamed content event; counting it counts events, however they are framed on the way."""
SERVED_MODEL = "gpt-4o-mini"
UPSTREAM_MODEL = "gpt-4o-mini-2024-07-18"
"""What OpenAI calls it in its answers. vLLM answers with the name that was asked for."""

BURST, PACED, IDLE = b"[burst]", b"[paced]", b"[idle]"
"""In a prompt: a stream all at once, at a pace, and one that stops after its first event and stays open."""
STREAM_EVENTS = 200
EVENTS_PER_S = 50
STREAM_S = STREAM_EVENTS / EVENTS_PER_S

_HEAD = {"id": "chatcmpl-CfJ2nQ8sWk4Tz1yXb7RmVpLd0HgAe", "created": 1764000000, "model": UPSTREAM_MODEL}
_TAIL = {"service_tier": "default", "system_fingerprint": "fp_b547601dbd"}
_USAGE = {"prompt_tokens": 24, "completion_tokens": STREAM_EVENTS, "total_tokens": 24 + STREAM_EVENTS}
TEXT = "A gull stands on the harbour wall and waits for the boats to come home. " * 4


def _answer(content_type: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
    return f"{head}x-request-id: req_5f1c3a\r\nopenai-processing-ms: 210\r\n\r\n".encode() + body


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(choices: list[object], usage: object = None) -> bytes:
    event = {**_HEAD, "object": "chat.completion.chunk", **_TAIL, "choices": choices, "usage": usage}
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def _delta(delta: dict[str, object], finish_reason: str | None = None) -> bytes:
    return _event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}])


def _whole() -> bytes:
    message: dict[str, object] = {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    answer = {**_HEAD, "object": "chat.completion", **_TAIL, "choices": choices, "usage": _USAGE}
    return json.dumps(answer).encode()


JSON_ANSWER = _answer("application/json", _whole())
MODELS_ANSWER = _answer(
    "application/json", json.dumps({"object": "list", "data": [{"id": SERVED_MODEL, "object": "model"}]}).encode()
)
UNKNOWN = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
"""vllm-router asks for vLLM's `/v1/chat/completions/render` first, which OpenAI does not have."""
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
    b"x-request-id: req_5f1c3a\r\nopenai-processing-ms: 210\r\n\r\n"
)
ROLE_EVENT = _chunked(_delta({"role": "assistant", "content": "", "refusal": None}))
CONTENT_EVENTS = [_chunked(_delta({"content": f"{space}{MARK.decode()}"})) for space in (" ", "; ")]
"""They alternate: LiteLLM breaks a stream off that says the same a hundred times."""
STREAM_END = _chunked(_delta({}, "stop")) + _chunked(_event([], _USAGE)) + _chunked(b"data: [DONE]\n\n") + _chunked(b"")
WHOLE_STREAM = STREAM_HEAD + ROLE_EVENT + b"".join(CONTENT_EVENTS) * (STREAM_EVENTS // 2) + STREAM_END
BEGUN_STREAM = STREAM_HEAD + ROLE_EVENT
IDLE_STREAM = BEGUN_STREAM + CONTENT_EVENTS[0]
