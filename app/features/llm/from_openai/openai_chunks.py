"""The types of OpenAI's responses and chunks, and the one validation that each response and chunk passes.

Details that a client can do without (id, time, usage, fingerprint) are None if missing or invalid. If the content
(choices, texts, tool calls, log probabilities) is invalid, so is the response.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Required, TypeVar

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError, with_config
from pydantic_core import CoreSchema, core_schema, from_json
from typing_extensions import TypedDict

from app.features.llm.schema import JSONObject

MAX_COUNT = 2**53
"""The maximum of a token count or a time. Every JSON parser reads integers up to it exactly."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _NoneIfInvalid:
    """Marks a detail: None if missing or invalid. The key is always present after validation."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=None, on_error="default")


@dataclass(frozen=True, slots=True)
class _EmptyIfInvalid:
    """Marks a list that is empty if missing or invalid."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default_factory=list, on_error="default")


Detail = Annotated[T | None, _NoneIfInvalid()]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Byte = Annotated[int, Field(ge=0, le=255)]


class TopLogprobEntry(TypedDict, total=False):
    """A candidate token. `bytes` is None if missing or invalid."""

    token: Required[str]
    logprob: Required[float]
    bytes: Detail[list[Byte]]


class LogprobEntry(TopLogprobEntry, total=False):
    """A token of the text and its alternatives."""

    top_logprobs: Annotated[list[TopLogprobEntry], _EmptyIfInvalid()]


class Logprobs(TypedDict, total=False):
    """The log probabilities of a text's tokens."""

    content: list[LogprobEntry] | None


@with_config(ConfigDict(extra="allow"))
class TokenUsage(TypedDict, total=False):
    """The tokens that a call used."""

    prompt_tokens: Detail[Count]
    completion_tokens: Detail[Count]
    total_tokens: Detail[Count]
    prompt_tokens_details: Detail[JSONObject]
    completion_tokens_details: Detail[JSONObject]


@with_config(ConfigDict(extra="allow"))
class FunctionDelta(TypedDict, total=False):
    """A fragment of a called function's name or arguments."""

    name: str | None
    arguments: str | None


@with_config(ConfigDict(extra="allow"))
class ToolCallDelta(TypedDict, total=False):
    """A fragment of a tool call. Fragments with the same `index` belong together."""

    index: Detail[Count]
    id: str | None
    type: str | None
    function: FunctionDelta | None


@with_config(ConfigDict(extra="allow"))
class Delta(TypedDict, total=False):
    """What a chunk adds to a choice's message. Unknown keys are passed on."""

    role: Any
    content: str | None
    refusal: str | None
    tool_calls: list[ToolCallDelta] | None


class ChunkChoice(TypedDict, total=False):
    """One choice's part of a chunk. An empty `finish_reason` counts as null."""

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
    """A called function. `arguments` is JSON text, or empty if missing."""

    name: Required[str]
    arguments: Annotated[str, Field(default="")]


@with_config(ConfigDict(extra="allow"))
class ToolCall(TypedDict, total=False):
    """A complete tool call."""

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
    """A complete choice. It must have a finish reason."""

    index: Detail[Count]
    message: Required[Message]
    logprobs: Logprobs | None
    finish_reason: Required[Annotated[str, Field(min_length=1)]]
    stop_reason: Detail[int | str]
    token_ids: Detail[list[int]]


class Completion(TypedDict, total=False):
    """A complete chat completion."""

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
    """Validate an event's JSON as a chunk. The caller checks the choices' indexes.

    Raises:
        ValueError: it is not a chunk; names the field, without its content.
    """
    try:
        chunk: Chunk = _check_chunk(event)
    except ValidationError as exc:
        raise ValueError(_first_error(exc)) from None
    return chunk


def checked_completion(content: bytes, choices: int) -> Completion:
    """Parse a response as a chat completion with `choices` complete choices, numbered from 0.

    Raises:
        ValueError: it is not such a completion; names the field, without its content.
    """
    try:
        completion: Completion = _check_completion(from_json(content, allow_inf_nan=False))
    except ValidationError as exc:
        raise ValueError(_first_error(exc)) from None
    found = completion["choices"]
    if len(found) != choices:
        raise ValueError(f"{len(found)} choices where {choices} were asked for")
    if {choice["index"] for choice in found} != set(range(choices)):
        for index, choice in enumerate(found):
            choice["index"] = index
    return completion


def token_counts(usage: TokenUsage | None) -> JSONObject | None:
    """Return the counts of prompt, completion and both, filling in missing ones; None if all are missing."""
    if usage is None:
        return None
    counts = usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]
    if counts == (None, None, None):
        return None
    prompt, completion, total = counts[0] or 0, counts[1] or 0, counts[2]
    total = prompt + completion if total is None else total
    return {"prompt_tokens": prompt, "total_tokens": total, "completion_tokens": completion}


def logprob_entries(choice: ChunkChoice | CompletionChoice) -> list[LogprobEntry]:
    """Return the log probabilities of a choice's tokens, an empty list if there are none."""
    logprobs = choice.get("logprobs")
    return (logprobs.get("content") if logprobs else None) or []


def _first_error(failure: ValidationError) -> str:
    error = failure.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
