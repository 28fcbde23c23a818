"""The completion of a chat request, before it is rendered as JSON or events."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.simulator import directives, json_text, tokens
from app.simulator.generation import prose, tool_calls
from app.simulator.generation.bias import biased
from app.simulator.generation.instances import instance_text
from app.simulator.generation.tool_calls import ToolCall
from app.simulator.request import ChatRequest
from app.simulator.seeded_random import SeededRandom
from app.simulator.tokens import Piece

ID_LETTERS = 29


@dataclass(frozen=True)
class Choice:
    """One of the ``n`` choices: either ``pieces`` of text or ``calls``.

    ``tokens`` is the choice's total, ``reasoning_tokens`` included.
    """

    index: int
    pieces: Sequence[Piece]
    calls: Sequence[ToolCall]
    finish_reason: str
    tokens: int
    reasoning_tokens: int

    @property
    def text(self) -> str:
        """The whole text of the choice."""
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True)
class Completion:
    """All choices of one response; only ``created`` (Unix time) depends on the clock."""

    request: ChatRequest
    id: str
    created: int
    choices: Sequence[Choice]

    @property
    def model(self) -> str:
        """The snapshot name of the model."""
        return self.request.model.response_name(self.request.body["model"])

    @property
    def fingerprint(self) -> str | None:
        """The system fingerprint, which is null for reasoning models."""
        if self.request.model.family.reasons:
            return None
        return "fp_" + hashlib.sha256(self.model.encode()).hexdigest()[:10]

    @property
    def completion_tokens(self) -> int:
        """The tokens of all choices."""
        return sum(choice.tokens for choice in self.choices)

    @property
    def reasoning_tokens(self) -> int:
        """The reasoning tokens of all choices."""
        return sum(choice.reasoning_tokens for choice in self.choices)

    @property
    def longest(self) -> int:
        """The tokens of the longest choice, which determine how long a paced response takes."""
        return max(choice.tokens for choice in self.choices)


def complete(request: ChatRequest) -> Completion:
    """Return the completion of ``request``; equal requests get equal completions."""
    seed = (directives.remove_from(json_text.compact(request.messages).decode()), request.body.get("seed"))
    number = SeededRandom(directives.remove_from(request.raw.decode())).letters(ID_LETTERS)
    choices = [_choice(request, index, SeededRandom(*seed, index)) for index in range(request.choices)]
    return Completion(request, f"chatcmpl-{number}", int(time.time()), choices)


def _choice(request: ChatRequest, index: int, rng: SeededRandom) -> Choice:
    left = request.limit - request.reasoning_tokens
    if left <= 0:
        return Choice(index, [], [], "length", request.limit, request.limit)
    calls = tool_calls.tool_calls_for(request, rng)
    return _tool_call_choice(request, index, calls, left) if calls else _text_choice(request, index, rng, left)


def _tool_call_choice(request: ChatRequest, index: int, full_calls: Sequence[ToolCall], left: int) -> Choice:
    calls = []
    for call in full_calls:
        calls.append(call.within(left))
        left -= calls[-1].tokens
    whole = calls == list(full_calls)
    finish_reason = tool_calls.finish_reason(request) if whole else "length"
    spent = sum(call.tokens for call in calls) + request.reasoning_tokens
    return Choice(index, [], calls, finish_reason, spent, request.reasoning_tokens)


def _text_choice(request: ChatRequest, index: int, rng: SeededRandom, left: int) -> Choice:
    whole = _pieces(request, rng)
    pieces = tokens.first(whole, left)
    finish_reason = "stop" if len(pieces) == len(whole) and pieces[-1:] == whole[-1:] else "length"
    text = "".join(piece.text for piece in pieces)
    ends = [text.index(stop) for stop in request.stops if stop and stop in text]
    if ends:
        pieces, finish_reason = tokens.split(text[: min(ends)]), "stop"
    spent = tokens.total(pieces) + request.reasoning_tokens
    return Choice(index, pieces, [], finish_reason, spent, request.reasoning_tokens)


def _pieces(request: ChatRequest, rng: SeededRandom) -> Sequence[Piece]:
    response_format = request.body.get("response_format") or {"type": "text"}
    if response_format["type"] == "json_schema":
        return tokens.split(instance_text(response_format["json_schema"].get("schema", {}), rng))
    if response_format["type"] == "json_object":
        answer = {"answer": prose.sentence(request.question, rng), "number": rng.below(100)}
        return tokens.split(json_text.compact(answer).decode())
    return biased(_prose(request, rng), request.bias, rng)


def _prose(request: ChatRequest, rng: SeededRandom) -> Sequence[Piece]:
    if request.directive.tokens is not None:
        # One token beyond the limit is enough for the text to be truncated.
        return prose.exactly(min(request.directive.tokens, request.limit + 1), request.question, rng)
    return tokens.split(prose.sentence(request.question, rng))
