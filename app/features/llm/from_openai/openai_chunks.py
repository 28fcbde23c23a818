"""What OpenAI and the services like it send: the types, and the one check that makes a response or a chunk one of them.

A detail that the client can do without (an id, the time, the usage, a fingerprint) is None where it is missing or odd.
What the response is made of (choices, texts, tool calls, log probabilities) has its form, or the check fails.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Required, TypeVar

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError, with_config
from pydantic_core import CoreSchema, core_schema, from_json
from typing_extensions import TypedDict

from app.features.llm.schema import JSONObject

MAX_COUNT = 2**53
"""No number of tokens and no time is larger; every JSON parser reads numbers up to it exactly."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _NoneIfOdd:
    """Marks a detail: present after the check, None where it was missing or had another form."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=None, on_error="default")


@dataclass(frozen=True, slots=True)
class _EmptyIfOdd:
    """The same for a list, which is empty then."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default_factory=list, on_error="default")


Detail = Annotated[T | None, _NoneIfOdd()]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Byte = Annotated[int, Field(ge=0, le=255)]


class TopLogprobEntry(TypedDict, total=False):
    """A token that could have stood there. `bytes` is None where the token has no bytes of its own, or odd ones."""

    token: Required[str]
    logprob: Required[float]
    bytes: Detail[list[Byte]]


class LogprobEntry(TopLogprobEntry, total=False):
    """A token of the text, and what else could have stood there."""

    top_logprobs: Annotated[list[TopLogprobEntry], _EmptyIfOdd()]


class Logprobs(TypedDict, total=False):
    """The log probabilities of the tokens of a text."""

    content: list[LogprobEntry] | None


@with_config(ConfigDict(extra="allow"))
class TokenUsage(TypedDict, total=False):
    """What a call cost in tokens."""

    prompt_tokens: Detail[Count]
    completion_tokens: Detail[Count]
    total_tokens: Detail[Count]
    prompt_tokens_details: Detail[JSONObject]
    completion_tokens_details: Detail[JSONObject]


@with_config(ConfigDict(extra="allow"))
class FunctionDelta(TypedDict, total=False):
    """A piece of a called function's name or arguments."""

    name: str | None
    arguments: str | None


@with_config(ConfigDict(extra="allow"))
class ToolCallDelta(TypedDict, total=False):
    """A piece of a tool call. Pieces of the same `index` belong together."""

    index: Detail[Count]
    id: str | None
    type: str | None
    function: FunctionDelta | None


@with_config(ConfigDict(extra="allow"))
class Delta(TypedDict, total=False):
    """What a chunk adds to a choice's message. Keys beyond these are the service's own, and passed on."""

    role: Any
    content: str | None
    refusal: str | None
    tool_calls: list[ToolCallDelta] | None


class ChunkChoice(TypedDict, total=False):
    """One choice's part of a chunk. An empty `finish_reason` is none."""

    index: Detail[Count]
    delta: Delta | None
    logprobs: Logprobs | None
    finish_reason: Detail[Annotated[str, Field(min_length=1)]]
    stop_reason: Detail[int | str]
    token_ids: Detail[list[int]]


class Chunk(TypedDict, total=False):
    """A chat completion chunk."""

    id: Detail[str]
    created: Detail[Count]
    model: Detail[str]
    choices: list[ChunkChoice] | None
    usage: Detail[TokenUsage]
    system_fingerprint: Detail[str]


@with_config(ConfigDict(extra="allow"))
class CalledFunction(TypedDict, total=False):
    """A function that is called. `arguments` are JSON as a text; absent ones are none."""

    name: Required[str]
    arguments: Annotated[str, Field(default="")]


@with_config(ConfigDict(extra="allow"))
class ToolCall(TypedDict, total=False):
    """A whole tool call."""

    id: str | None
    type: str | None
    function: Required[CalledFunction]


class Message(TypedDict, total=False):
    """The message of a choice."""

    role: Any
    content: str | None
    refusal: str | None
    annotations: Detail[list[JSONObject]]
    audio: Detail[JSONObject]
    function_call: Detail[JSONObject]
    tool_calls: list[ToolCall] | None
    reasoning: Detail[str]


class CompletionChoice(TypedDict, total=False):
    """One of the choices. It has ended: there is a reason."""

    index: Detail[Count]
    message: Required[Message]
    logprobs: Logprobs | None
    finish_reason: Required[Annotated[str, Field(min_length=1)]]
    stop_reason: Detail[int | str]
    token_ids: Detail[list[int]]


class Completion(TypedDict, total=False):
    """A whole chat completion."""

    id: Detail[str]
    created: Detail[Count]
    model: Detail[str]
    choices: Required[list[CompletionChoice]]
    service_tier: Detail[str]
    system_fingerprint: Detail[str]
    usage: Detail[TokenUsage]


_check_chunk = TypeAdapter(Chunk).validator.validate_python
_check_completion = TypeAdapter(Completion).validator.validate_python


def checked_chunk(event: JSONObject) -> Chunk:
    """An event's JSON as a chunk; its choices are still to be held against those that were asked for.

    Raises:
        ValueError: it is none; says where, without its text.
    """
    try:
        chunk: Chunk = _check_chunk(event)
    except ValidationError as exc:
        raise ValueError(_complaint(exc)) from None
    return chunk


def checked_completion(content: bytes, choices: int) -> Completion:
    """A response's JSON as a chat completion with so many choices, numbered from 0; they have all ended.

    Raises:
        ValueError: it is none; says where, without its text.
    """
    try:
        completion: Completion = _check_completion(from_json(content, allow_inf_nan=False))
    except ValidationError as exc:
        raise ValueError(_complaint(exc)) from None
    found = completion["choices"]
    if len(found) != choices:
        raise ValueError(f"{len(found)} choices where {choices} were asked for")
    if {choice["index"] for choice in found} != set(range(choices)):
        for index, choice in enumerate(found):
            choice["index"] = index
    return completion


def token_counts(usage: TokenUsage | None) -> JSONObject | None:
    """`prompt_tokens`, `total_tokens` and `completion_tokens`, what is missing supplied; None where none is told."""
    if usage is None:
        return None
    told = usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]
    if told == (None, None, None):
        return None
    prompt, completion, total = told[0] or 0, told[1] or 0, told[2]
    total = prompt + completion if total is None else total
    return {"prompt_tokens": prompt, "total_tokens": total, "completion_tokens": completion}


def logprob_entries(choice: ChunkChoice | CompletionChoice) -> list[LogprobEntry]:
    """The log probabilities of a choice's tokens; none where it has none."""
    logprobs = choice.get("logprobs")
    return (logprobs.get("content") if logprobs else None) or []


def _complaint(failure: ValidationError) -> str:
    error = failure.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
