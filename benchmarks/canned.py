"""The canned upstream's responses as prepared bytes, and the words in a prompt that select each."""

import json

EVENT_MARK = b"seagull"
"""A word in every content event; counting it counts events, whatever their framing."""
SERVED_MODEL = "gpt-4o-mini"
UPSTREAM_MODEL = "gpt-4o-mini-2024-07-18"
"""The name in OpenAI's responses. vLLM's responses have the requested name."""

BURST, PACED, IDLE = b"[burst]", b"[paced]", b"[idle]"
"""In a prompt: a stream sent at once, a paced one, and one that stays open after its first event."""
STREAM_EVENTS = 200
EVENTS_PER_S = 50
STREAM_S = STREAM_EVENTS / EVENTS_PER_S

_HEAD = {"id": "chatcmpl-CfJ2nQ8sWk4Tz1yXb7RmVpLd0HgAe", "created": 1764000000, "model": UPSTREAM_MODEL}
_TAIL = {"service_tier": "default", "system_fingerprint": "fp_b547601dbd"}
_USAGE = {"prompt_tokens": 24, "completion_tokens": STREAM_EVENTS, "total_tokens": 24 + STREAM_EVENTS}
TEXT = "A gull stands on the harbour wall and waits for the boats to come home. " * 4


def _http_response(content_type: str, body: bytes) -> bytes:
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
    response = {**_HEAD, "object": "chat.completion", **_TAIL, "choices": choices, "usage": _USAGE}
    return json.dumps(response).encode()


JSON_RESPONSE = _http_response("application/json", _whole())
MODELS_RESPONSE = _http_response(
    "application/json", json.dumps({"object": "list", "data": [{"id": SERVED_MODEL, "object": "model"}]}).encode()
)
UNKNOWN = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
"""vllm-router first requests vLLM's `/v1/chat/completions/render`, which OpenAI does not have."""
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
    b"x-request-id: req_5f1c3a\r\nopenai-processing-ms: 210\r\n\r\n"
)
ROLE_EVENT = _chunked(_delta({"role": "assistant", "content": "", "refusal": None}))
CONTENT_EVENTS = [_chunked(_delta({"content": f"{space}{EVENT_MARK.decode()}"})) for space in (" ", "; ")]
"""They alternate: LiteLLM aborts a stream that repeats the same text a hundred times."""
STREAM_END = _chunked(_delta({}, "stop")) + _chunked(_event([], _USAGE)) + _chunked(b"data: [DONE]\n\n") + _chunked(b"")
WHOLE_STREAM = STREAM_HEAD + ROLE_EVENT + b"".join(CONTENT_EVENTS) * (STREAM_EVENTS // 2) + STREAM_END
STREAM_START = STREAM_HEAD + ROLE_EVENT
IDLE_STREAM = STREAM_START + CONTENT_EVENTS[0]
