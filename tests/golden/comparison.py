"""Holds an answer against the one vLLM gave to the same request: by shape, never by generated text."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tests.golden.exchanges import Answer, Exchange, JSONObject

Shape = Mapping[str, set[str]]

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"


# --- where this server need not do what vLLM did ----------------------------------------------------------------------

UNKNOWN_MODEL = Answer(
    400,
    JSON,
    '{"error":{"message":"The model `no-such-model` does not exist. Valid aliases: gpt-4o-mini.",'
    '"type":"BadRequestError","param":"model","code":400}}',
)
SPECIFIED = {
    # Where this server's own specification departs from vLLM, it wins.
    "chat/err-model": UNKNOWN_MODEL,
    "tokenize/err-model": UNKNOWN_MODEL,
    "completion/err-model": UNKNOWN_MODEL,
    "route/health": Answer(200, JSON, '{"status":"healthy","service":"llm-server"}'),
}

# vLLM answers these from the weights and the tokenizer themselves. Over a hosted model both are right: do it, or refuse
# it with a 400 that names the field. To answer as if nothing had been asked is not.
MAY_REFUSE = {
    "chat/ext-bad-words": "bad_words",
    "chat/ext-continue-final": "continue_final_message",
    "chat/ext-echo": "echo",
    "chat/ext-min-tokens": "min_tokens",
    "chat/ext-prompt-logprobs": "prompt_logprobs",
    "chat/ext-return-token-ids": "return_token_ids",
    "chat/ext-stop-token-ids": "stop_token_ids",
    "chat/ext-structured-regex": "structured_outputs",
    "chat/ext-truncate": "truncate_prompt_tokens",
    "chat/stream-continuous-usage": "stream_options",
}

# Only a server with the weights can fill these: they may be absent.
ENGINE_ONLY = {
    "routed_experts",
    "kv_transfer_params",
    "ec_transfer_params",
    "metrics",
    "prompt_text",
    "prompt_tokens_details",
    "completion_tokens_details",
}

# OpenAI ends a choice with a chunk of its own, vLLM with its last text: what that chunk says is no part of the shape.
SAID_EARLIER = (".finish[].choices[].delta.", ".finish[].choices[].logprobs.")

# What OpenAI sends and vLLM does not, unless vLLM's answer has it too.
LEAKS = re.compile(r"\.(usage|obfuscation|logprobs\.refusal)$")

# pydantic's list of what it tried depends on how the types are written, not only on the request.
OWN_LISTS = {"chat/err-message-no-role", "chat/err-response-format"}

# The description of all routes: each server has its own.
OWN_BODIES = {"route/openapi"}


# --- the comparison ---------------------------------------------------------------------------------------------------


def differences(exchange: Exchange, answer: Answer) -> list[str]:
    """In what the answer differs from vLLM's; empty where a client could not tell them apart."""
    expected = SPECIFIED.get(exchange.id, exchange.vllm)
    if _is_refused_by_name(exchange, answer):
        return []
    if answer.status != expected.status:
        return [f"status {answer.status}, vLLM {expected.status}: {answer.body[:200]}"]
    if answer.content_type != expected.content_type:
        return [f"content-type {answer.content_type!r}, vLLM {expected.content_type!r}"]
    try:
        return list(_body_differences(exchange, expected, answer))
    except ValueError as exc:
        return [f"unreadable: {exc}"]


def _is_refused_by_name(exchange: Exchange, answer: Answer) -> bool:
    field = MAY_REFUSE.get(exchange.id)
    error = _error(answer.body) if field and answer.status == 400 else None
    return error is not None and str(error.get("param")).split(".")[0] == field


def _body_differences(exchange: Exchange, expected: Answer, answer: Answer) -> Iterator[str]:
    if expected.status >= 400:
        yield from _error_differences(exchange, expected.body, answer.body)
    elif expected.content_type == EVENTS:
        yield from _stream_differences(_events(expected.body), _events(answer.body))
    elif expected.content_type == JSON and exchange.id not in OWN_BODIES:
        yield from _json_differences(exchange, json.loads(expected.body), json.loads(answer.body))


def _json_differences(exchange: Exchange, theirs: JSONObject, ours: JSONObject) -> Iterator[str]:
    yield from _shape_differences(shape(theirs), shape(ours))
    yield from _identity_differences(theirs, ours)
    if _asks_for_an_id(exchange) and ours.get("id") != theirs["id"]:
        yield f"id {ours.get('id')!r}, vLLM {theirs['id']!r}"
    if _indexes(ours) != _indexes(theirs):
        yield f"choices {_indexes(ours)}, vLLM {_indexes(theirs)}"


def _asks_for_an_id(exchange: Exchange) -> bool:
    return isinstance(exchange.body, dict) and "request_id" in exchange.body


def _identity_differences(theirs: JSONObject, ours: JSONObject) -> Iterator[str]:
    for key in ("object", "model"):
        if ours.get(key) != theirs.get(key):
            yield f"{key} {ours.get(key)!r}, vLLM {theirs.get(key)!r}"
    if _id_prefix(ours) != _id_prefix(theirs):
        yield f"id {ours.get('id')!r}, vLLM {theirs.get('id')!r}"
    usage = ours.get("usage")
    if usage and usage["total_tokens"] != usage["prompt_tokens"] + usage["completion_tokens"]:
        yield f"usage does not add up: {usage}"


def _id_prefix(answer: JSONObject) -> str:
    return str(answer.get("id")).partition("-")[0]


def _indexes(answer: JSONObject) -> list[Any]:
    return [choice.get("index") for choice in answer.get("choices") or ()]


# --- shapes -----------------------------------------------------------------------------------------------------------

_TYPES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}


def shape(value: object) -> Shape:
    """The paths in a JSON value (`.choices[].index`), each with the JSON types found there; null is none."""
    seen: defaultdict[str, set[str]] = defaultdict(set)
    _note(value, "", seen)
    return seen


def _note(value: object, path: str, seen: defaultdict[str, set[str]]) -> None:
    seen[path] |= set() if value is None else {_TYPES[type(value)]}
    if isinstance(value, dict):
        for key, member in value.items():
            if key not in ENGINE_ONLY:
                _note(member, f"{path}.{key}", seen)
    # Where log probabilities are keyed by token, the keys are data, not shape.
    elif isinstance(value, list) and not path.endswith((".prompt_logprobs", ".logprobs.top_logprobs")):
        for member in value:
            _note(member, f"{path}[]", seen)


def _shape_differences(theirs: Shape, ours: Shape) -> Iterator[str]:
    missing = {path for path in theirs.keys() - ours.keys() if not path.endswith("[]")}
    missing -= {path for path in missing if path.startswith(SAID_EARLIER)}
    if missing:
        yield f"lacks {sorted(missing)}"
    leaked = [path for path in ours.keys() - theirs.keys() if LEAKS.search(path)]
    if leaked:
        yield f"has {sorted(leaked)}, vLLM not"
    for path in sorted(theirs.keys() & ours.keys()):
        if theirs[path] and not ours[path] <= theirs[path]:
            yield f"{path} is {_listed(ours[path])}, vLLM {_listed(theirs[path])}"


def _listed(types: Iterable[str]) -> str:
    return " or ".join(sorted(types))


# --- streams ----------------------------------------------------------------------------------------------------------

Event = JSONObject | None
"""What an event carries; None for `[DONE]`."""


def _events(body: str) -> list[Event]:
    """The events of a stream.

    Raises:
        ValueError: it is not written as vLLM writes it, one line of data an event.
    """
    if not body.endswith("\n\n"):
        raise ValueError(f"the stream ends with {body[-20:]!r}")
    return [_event(block) for block in body.removesuffix("\n\n").split("\n\n")]


def _event(block: str) -> Event:
    prefix, _, line = block.partition("data: ")
    if prefix or "\n" in line:
        raise ValueError(f"an event is written as {block[:80]!r}")
    return None if line == "[DONE]" else json.loads(line)


def _kind(event: Event) -> str:
    """What part an event plays in the stream."""
    if event is None:
        return "done"
    if "error" in event:
        return "error"
    choices = event.get("choices")
    return _choice_kind(choices[0]) if choices else "usage"


def _choice_kind(choice: JSONObject) -> str:
    if choice.get("finish_reason"):
        return "finish"
    return "role" if choice.get("delta", {}).get("role") else "delta"


def _stream_differences(theirs: list[Event], ours: list[Event]) -> Iterator[str]:
    if _order(ours) != _order(theirs):
        yield f"comes as {_order(ours)}, vLLM {_order(theirs)}"
    yield from _shape_differences(shape(_by_kind(theirs)), shape(_by_kind(ours)))
    first = _chunks(theirs)[0]
    for chunk in _chunks(ours):
        yield from _identity_differences(first, chunk)
    ids = {chunk.get("id") for chunk in _chunks(ours)}
    if len(ids) > 1:
        yield f"has the ids {sorted(map(str, ids))}"


def _chunks(events: Iterable[Event]) -> list[JSONObject]:
    return [event for event in events if event is not None and "error" not in event]


def _by_kind(events: Iterable[Event]) -> dict[str, list[Event]]:
    kinds: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        kinds[_kind(event)].append(event)
    return dict(kinds)


def _order(events: Iterable[Event]) -> dict[str, list[str]]:
    """The kinds of the whole stream, and of each of its choices; how many pieces a text comes in is left out."""
    order: defaultdict[str, list[str]] = defaultdict(list)
    for event in events:
        choices = (event or {}).get("choices") or ()
        _append(order["stream"], "choices" if choices else _kind(event))
        for choice in choices:
            _append(order[f"choice {choice.get('index')}"], _choice_kind(choice))
    return dict(order)


def _append(kinds: list[str], kind: str) -> None:
    if kind not in ("choices", "delta") or kinds[-1:] != [kind]:
        kinds.append(kind)


# --- errors -----------------------------------------------------------------------------------------------------------


def _error(body: str) -> JSONObject | None:
    """The error object of an answer, or None."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return None
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return error if isinstance(error, dict) else None


def _error_differences(exchange: Exchange, their_body: str, our_body: str) -> Iterator[str]:
    theirs, ours = _error(their_body), _error(our_body)
    if theirs is None or ours is None:
        if our_body != their_body:
            yield f"body {our_body[:200]!r}, vLLM {their_body!r}"
        return
    told: dict[str, Callable[[Any], str]] = {"type": repr, "code": repr}
    # Naming the field where vLLM names none is better.
    told |= {"param": _place} if theirs["param"] is not None else {}
    told |= {"message": _wording} if exchange.id not in OWN_LISTS else {}
    for key, essence in told.items():
        if key not in ours or essence(ours[key]) != essence(theirs[key]):
            yield f"error.{key} {ours.get(key)!r}, vLLM {theirs[key]!r}"


def _place(param: str | None) -> str:
    # The name of the union's branch that pydantic tried is no place in the request.
    return re.sub(r"\.[A-Z]\w*", "", str(param))


def _wording(message: str) -> str:
    """A message without its numbers and the names that are served."""
    return re.sub(r"-?\d[\d.]*|\b(?:nan|inf)\b|Valid aliases: .*", "#", message)
