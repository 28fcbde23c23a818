"""Renders a completion as OpenAI's JSON body or server-sent events."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from app.simulator import json_text
from app.simulator.delivery.faults import Write
from app.simulator.delivery.pacing import Pacing
from app.simulator.generation.completion import Choice, Completion
from app.simulator.generation.logprobs import logprobs_of
from app.simulator.generation.tool_calls import WRITTEN, ToolCall
from app.simulator.json_text import JSONObject
from app.simulator.seeded_random import ALPHANUMERIC
from app.simulator.tokens import Piece

DONE = b"data: [DONE]\n\n"
# OpenAI pads each event to hide its token's length; here the padding depends on the event's index.
PADDING = ALPHANUMERIC * 2
PADDING_CHARACTERS = 16


def body(completion: Completion) -> JSONObject:
    """Return the response body of a request without ``stream``."""
    return {
        "id": completion.id,
        "object": "chat.completion",
        "created": completion.created,
        "model": completion.model,
        "choices": [_choice(completion, choice) for choice in completion.choices],
        "usage": usage(completion),
        "service_tier": "default",
        "system_fingerprint": completion.fingerprint,
    }


def usage(completion: Completion) -> JSONObject:
    """Return ``usage``."""
    prompt, answer = completion.request.prompt_tokens, completion.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": completion.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def events(completion: Completion, pacing: Pacing) -> Iterator[Write]:
    """Yield the events of a stream, each with the delay before it."""
    chunks = _chunks(completion, pacing)
    padded = completion.request.stream_option("include_obfuscation", default=True)
    for number, (chunk, delay_s) in enumerate(chunks):
        if padded:
            chunk["obfuscation"] = _padding(number)
        yield Write(b"data: " + json_text.compact(chunk) + b"\n\n", delay_s)
    yield Write(DONE)


def _chunks(completion: Completion, pacing: Pacing) -> Iterator[tuple[JSONObject, float]]:
    envelope = _envelope(completion)
    delay_s = pacing.time_to_first_token_s
    for deltas in zip_longest(*(_deltas(completion, choice) for choice in completion.choices)):
        # Choices are generated concurrently: a token of each shares one delay.
        for choice in filter(None, deltas):
            yield {**envelope, "choices": [choice]}, delay_s
            delay_s = 0.0
        delay_s = pacing.time_per_token_s
    if "usage" in envelope:
        yield {**envelope, "choices": [], "usage": usage(completion)}, 0.0


def _envelope(completion: Completion) -> JSONObject:
    envelope: JSONObject = {
        "id": completion.id,
        "object": "chat.completion.chunk",
        "created": completion.created,
        "model": completion.model,
        "service_tier": "default",
        "system_fingerprint": completion.fingerprint,
        "choices": [],
    }
    if completion.request.stream_option("include_usage", default=False):
        envelope["usage"] = None
    return envelope


def _deltas(completion: Completion, choice: Choice) -> Iterator[JSONObject]:
    if choice.calls:
        yield from (_chunk_choice(completion, choice, delta) for delta in _call_deltas(choice.calls))
    else:
        opening = {"role": "assistant", "content": "", "refusal": None}
        yield _chunk_choice(completion, choice, opening)
        for position, piece in enumerate(choice.pieces):
            yield _chunk_choice(completion, choice, {"content": piece.text}, piece=piece, position=position)
    yield _chunk_choice(completion, choice, {}, finish_reason=choice.finish_reason)


def _call_deltas(calls: Any) -> Iterator[JSONObject]:
    for index, call in enumerate(calls):
        opened = {"tool_calls": [{"index": index, **call.to_json("")}]}
        yield opened if index else {"role": "assistant", "content": None, **opened, "refusal": None}
        for piece in call.pieces:
            yield {"tool_calls": [{"index": index, **_written(call, piece)}]}


def _written(call: ToolCall, piece: Piece) -> JSONObject:
    return {call.type: {WRITTEN[call.type]: piece.text}}


def _chunk_choice(
    completion: Completion,
    choice: Choice,
    delta: JSONObject,
    *,
    piece: Piece | None = None,
    position: int = 0,
    finish_reason: str | None = None,
) -> JSONObject:
    requested = completion.request.top_logprobs
    chunk: JSONObject = {"index": choice.index, "delta": delta}
    if requested is not None and piece is not None:
        chunk["logprobs"] = logprobs_of([piece], requested, first_position=position)
    elif requested is not None or not completion.request.model.family.reasons:
        chunk["logprobs"] = None
    chunk["finish_reason"] = finish_reason
    return chunk


def _choice(completion: Completion, choice: Choice) -> JSONObject:
    requested = completion.request.top_logprobs
    shown = requested is not None and not choice.calls
    return {
        "index": choice.index,
        "message": _message(choice),
        "logprobs": logprobs_of(choice.pieces, requested or 0) if shown else None,
        "finish_reason": choice.finish_reason,
    }


def _message(choice: Choice) -> JSONObject:
    message: JSONObject = {"role": "assistant", "content": None if choice.calls else choice.text}
    if choice.calls:
        message["tool_calls"] = [call.to_json() for call in choice.calls]
    return {**message, "refusal": None, "annotations": []}


def _padding(number: int) -> str:
    start = number * 7 % len(ALPHANUMERIC)
    return PADDING[start : start + 1 + number % PADDING_CHARACTERS]
