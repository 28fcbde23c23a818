"""The answer to a chat request, before it is written as JSON or as events."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.simulator import directives, json_text, tokens
from app.simulator.answers import prose, tool_calls
from app.simulator.answers.bias import biased
from app.simulator.answers.instances import instance_text
from app.simulator.answers.tool_calls import ToolCall
from app.simulator.dice import Dice
from app.simulator.request import ChatRequest
from app.simulator.tokens import Piece

ID_LETTERS = 29


@dataclass(frozen=True)
class Choice:
    """One of the ``n`` answers: either ``pieces`` of text or ``calls``.

    ``tokens`` counts what the answer cost, ``reasoning_tokens`` included.
    """

    index: int
    pieces: Sequence[Piece]
    calls: Sequence[ToolCall]
    finish_reason: str
    tokens: int
    reasoning_tokens: int

    @property
    def text(self) -> str:
        """The whole text of the answer."""
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True)
class Completion:
    """All answers to one request; ``created`` (Unix time) is the only part that depends on the clock."""

    request: ChatRequest
    id: str
    created: int
    choices: Sequence[Choice]

    @property
    def model(self) -> str:
        """The dated name of the model that answered."""
        return self.request.model.answering_name(self.request.body["model"])

    @property
    def fingerprint(self) -> str | None:
        """The system fingerprint, which OpenAI leaves null for models that reason."""
        if self.request.model.family.reasons:
            return None
        return "fp_" + hashlib.sha256(self.model.encode()).hexdigest()[:10]

    @property
    def completion_tokens(self) -> int:
        """What all choices cost together."""
        return sum(choice.tokens for choice in self.choices)

    @property
    def reasoning_tokens(self) -> int:
        """What all choices spent on thinking."""
        return sum(choice.reasoning_tokens for choice in self.choices)

    @property
    def longest(self) -> int:
        """The tokens of the longest choice, which decides how long a paced answer takes."""
        return max(choice.tokens for choice in self.choices)


def complete(request: ChatRequest) -> Completion:
    """Return the answer that ``request`` always gets, whatever its directives do to the way it is sent."""
    seed = (directives.without(json_text.compact(request.messages).decode()), request.body.get("seed"))
    number = Dice(directives.without(request.raw.decode())).letters(ID_LETTERS)
    choices = [_choice(request, index, Dice(*seed, index)) for index in range(request.choices)]
    return Completion(request, f"chatcmpl-{number}", int(time.time()), choices)


def _choice(request: ChatRequest, index: int, dice: Dice) -> Choice:
    left = request.limit - request.reasoning_tokens
    if left <= 0:
        return Choice(index, [], [], "length", request.limit, request.limit)
    wanted = tool_calls.wanted(request, dice)
    return _calling(request, index, wanted, left) if wanted else _talking(request, index, dice, left)


def _calling(request: ChatRequest, index: int, wanted: Sequence[ToolCall], left: int) -> Choice:
    calls = []
    for call in wanted:
        calls.append(call.within(left))
        left -= calls[-1].tokens
    whole = calls == list(wanted)
    finish_reason = tool_calls.finish_reason(request) if whole else "length"
    spent = sum(call.tokens for call in calls) + request.reasoning_tokens
    return Choice(index, [], calls, finish_reason, spent, request.reasoning_tokens)


def _talking(request: ChatRequest, index: int, dice: Dice, left: int) -> Choice:
    whole = _pieces(request, dice)
    pieces = tokens.first(whole, left)
    finish_reason = "stop" if len(pieces) == len(whole) and pieces[-1:] == whole[-1:] else "length"
    text = "".join(piece.text for piece in pieces)
    ends = [text.index(stop) for stop in request.stops if stop and stop in text]
    if ends:
        pieces, finish_reason = tokens.split(text[: min(ends)]), "stop"
    spent = tokens.total(pieces) + request.reasoning_tokens
    return Choice(index, pieces, [], finish_reason, spent, request.reasoning_tokens)


def _pieces(request: ChatRequest, dice: Dice) -> Sequence[Piece]:
    response_format = request.body.get("response_format") or {"type": "text"}
    if response_format["type"] == "json_schema":
        return tokens.split(instance_text(response_format["json_schema"].get("schema", {}), dice))
    if response_format["type"] == "json_object":
        answer = {"answer": prose.sentence(request.question, dice), "number": dice.below(100)}
        return tokens.split(json_text.compact(answer).decode())
    return biased(_prose(request, dice), request.bias, dice)


def _prose(request: ChatRequest, dice: Dice) -> Sequence[Piece]:
    if request.directive.tokens is not None:
        # One more than the limit is enough to end at it.
        return prose.exactly(min(request.directive.tokens, request.limit + 1), request.question, dice)
    return tokens.split(prose.sentence(request.question, dice))
