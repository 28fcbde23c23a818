"""Compares a response with vLLM's response to the same request: by shape, never by generated text."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tests.golden.exchanges import Answer, Exchange, JSONObject

Shape = Mapping[str, set[str]]

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"


UNKNOWN_MODEL = Answer(
    400,
    JSON,
    '{"error":{"message":"The model `no-such-model` does not exist. Valid aliases: gpt-4o-mini.",'
    '"type":"BadRequestError","param":"model","code":400}}',
)
SPECIFIED = {
    # This server's specification takes precedence over vLLM.
    "chat/err-model": UNKNOWN_MODEL,
    "tokenize/err-model": UNKNOWN_MODEL,
    "completion/err-model": UNKNOWN_MODEL,
    "batch/err-model": UNKNOWN_MODEL,
    "route/health": Answer(200, JSON, '{"status":"healthy","service":"llm-server"}'),
    # vLLM reports it in the stream, after a status of 200. This server rejects it before the stream starts.
    "chat/err-logprobs-many-stream": Answer(
        400,
        JSON,
        '{"error":{"message":"Requested sample logprobs of 50, which is greater than max allowed: 20 '
        '(parameter=logprobs, value=50)","type":"BadRequestError","param":"logprobs","code":400}}',
    ),
}

# vLLM implements these with the model's weights and tokenizer. With a hosted model two results are correct: support the
# field, or reject it with a 400 that names it. Ignoring the field is wrong.
MAY_REJECT = {
    "chat/err-prompt-logprobs-all": "prompt_logprobs",
    "chat/ext-continue-final": "continue_final_message",
    "chat/ext-echo": "echo",
    "chat/ext-min-tokens": "min_tokens",
    "chat/ext-prompt-logprobs": "prompt_logprobs",
    "chat/ext-structured-regex": "structured_outputs",
    "chat/ext-truncate": "truncate_prompt_tokens",
    "chat/structural-tag": "response_format",
}

# Details of the usage, which vLLM's engine and OpenAI count differently: they may be absent.
USAGE_DETAILS = {"prompt_tokens_details", "completion_tokens_details"}

# OpenAI ends a choice with a separate chunk, vLLM with its last text: that chunk's content is not compared.
SENT_EARLIER = (".finish[].choices[].delta.", ".finish[].choices[].logprobs.")

# Members of OpenAI's that must not appear unless vLLM's response has them too.
LEAKS = re.compile(r"\.(usage|obfuscation|logprobs\.refusal)$")

# The message is not compared: vLLM's own depends on its implementation, not only on the request.
OWN_WORDS = {
    # pydantic's list of attempted types.
    "chat/err-message-no-role",
    "chat/err-response-format",
    "chat/err-content-null",
    "chat/err-embeds-part-empty",
    "chat/err-part-unknown",
    # An accident in the grammar engine; OpenAI's message names the fault in the schema.
    "chat/err-tool-bad-schema",
    # vLLM parses this route's body apart; this server describes malformed JSON alike on every route.
    "invocations/err-json",
}

# Lists and mappings whose members are data, not shape: log probabilities keyed by token, versions of the weights.
DATA = (".prompt_logprobs", ".logprobs.top_logprobs", ".weight_versions")

# The OpenAPI description: each server has its own.
OWN_BODIES = {"route/openapi"}


def differences(exchange: Exchange, response: Answer) -> list[str]:
    """Return the differences from vLLM's response; empty if a client could not tell them apart."""
    expected = SPECIFIED.get(exchange.id, exchange.vllm)
    if _is_rejected_by_name(exchange, response):
        return []
    if response.status != expected.status:
        return [f"status {response.status}, vLLM {expected.status}: {response.body[:200]}"]
    if response.content_type != expected.content_type:
        return [f"content-type {response.content_type!r}, vLLM {expected.content_type!r}"]
    try:
        return list(_body_differences(exchange, expected, response))
    except ValueError as exc:
        return [f"unreadable: {exc}"]


def _is_rejected_by_name(exchange: Exchange, response: Answer) -> bool:
    field = MAY_REJECT.get(exchange.id)
    error = _error(response.body) if field and response.status == 400 else None
    return error is not None and str(error.get("param")).split(".")[0] == field


def _body_differences(exchange: Exchange, expected: Answer, response: Answer) -> Iterator[str]:
    if expected.status >= 400:
        yield from _error_differences(exchange, expected.body, response.body)
    elif expected.content_type == EVENTS:
        yield from _stream_differences(_events(expected.body), _events(response.body))
    elif expected.content_type == JSON and exchange.id not in OWN_BODIES:
        yield from _json_differences(exchange, json.loads(expected.body), json.loads(response.body))


def _json_differences(exchange: Exchange, theirs: JSONObject, ours: JSONObject) -> Iterator[str]:
    yield from _shape_differences(shape(theirs), shape(ours))
    yield from _identity_differences(theirs, ours)
    if _requests_an_id(exchange) and ours.get("id") != theirs["id"]:
        yield f"id {ours.get('id')!r}, vLLM {theirs['id']!r}"
    if _indexes(ours) != _indexes(theirs):
        yield f"choices {_indexes(ours)}, vLLM {_indexes(theirs)}"


def _requests_an_id(exchange: Exchange) -> bool:
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


def _id_prefix(response: JSONObject) -> str:
    return str(response.get("id")).partition("-")[0]


def _indexes(response: JSONObject) -> list[Any]:
    return [choice.get("index") for choice in response.get("choices") or ()]


_TYPES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}


def shape(value: object) -> Shape:
    """Return the paths in a JSON value (`.choices[].index`), each with its JSON types; null counts as none."""
    seen: defaultdict[str, set[str]] = defaultdict(set)
    _note(value, "", seen)
    return seen


def _note(value: object, path: str, seen: defaultdict[str, set[str]]) -> None:
    seen[path] |= set() if value is None else {_TYPES[type(value)]}
    if isinstance(value, dict):
        for key, member in value.items():
            if key not in USAGE_DETAILS:
                _note(member, f"{path}.{key}", seen)
    elif isinstance(value, list) and not path.endswith(DATA):
        for member in value:
            _note(member, f"{path}[]", seen)


def _shape_differences(theirs: Shape, ours: Shape) -> Iterator[str]:
    missing = {path for path in theirs.keys() - ours.keys() if not path.endswith("[]")}
    missing -= {path for path in missing if path.startswith(SENT_EARLIER)}
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


Event = JSONObject | None
"""The data of an event; None for `[DONE]`."""


def _events(body: str) -> list[Event]:
    """Return the events of a stream.

    Raises:
        ValueError: the format is not vLLM's, with one data line for each event.
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
    """Return the kind of an event."""
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
    """Return the kinds of events in order, for the stream and for each choice; repeated text deltas count once."""
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


def _error(body: str) -> JSONObject | None:
    """Return the error object of a response, or None."""
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
    compared: dict[str, Callable[[Any], str]] = {"type": repr, "code": repr}
    # Naming the field is allowed where vLLM names none.
    compared |= {"param": _field_path} if theirs["param"] is not None else {}
    compared |= {"message": _wording} if exchange.id not in OWN_WORDS else {}
    for key, normalized in compared.items():
        if key not in ours or normalized(ours[key]) != normalized(theirs[key]):
            yield f"error.{key} {ours.get(key)!r}, vLLM {theirs[key]!r}"


def _field_path(param: str | None) -> str:
    # pydantic adds the name of the union's branch, which is not part of the request.
    return re.sub(r"\.[A-Z]\w*", "", str(param))


def _wording(message: str) -> str:
    """Return a message without numbers and served model names."""
    return re.sub(r"-?\d[\d.]*|\b(?:nan|inf)\b|Valid aliases: .*", "#", message)
