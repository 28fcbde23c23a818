"""The functions and custom tools an answer calls instead of talking."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.simulator import directives, tokens
from app.simulator.answers.instances import instance_text
from app.simulator.answers.patterns import matching_text
from app.simulator.dice import Dice
from app.simulator.json_text import JSONObject
from app.simulator.request import ChatRequest
from app.simulator.tokens import Piece

ID_LETTERS = 24
CALL_REQUESTED = re.compile(r"\bcall\b", re.IGNORECASE)
BOTH_REQUESTED = re.compile(r"\bboth\b", re.IGNORECASE)
# The member that holds what the model wrote, by the type of the tool.
WRITTEN = {"function": "arguments", "custom": "input"}


@dataclass(frozen=True)
class ToolCall:
    """One call; ``pieces`` are its arguments (JSON text) or, for a custom tool, its input."""

    id: str
    type: str
    name: str
    pieces: Sequence[Piece]

    @property
    def tokens(self) -> int:
        """What the call cost: its name and what follows it."""
        return tokens.count(self.name) + tokens.total(self.pieces)

    def within(self, limit: int) -> "ToolCall":
        """Return the call as far as ``limit`` tokens reach; the name is always there."""
        left = max(limit - tokens.count(self.name), 0)
        return replace(self, pieces=tokens.first(self.pieces, left))

    def to_json(self, written: str | None = None) -> JSONObject:
        """Return the call as an answer carries it, with ``written`` in place of all it wrote where given."""
        text = "".join(piece.text for piece in self.pieces) if written is None else written
        return {"id": self.id, "type": self.type, self.type: {"name": self.name, WRITTEN[self.type]: text}}


@dataclass(frozen=True)
class _Demand:
    """What ``tool_choice`` asks: calls among ``tools`` that must happen (``required``) or may."""

    tools: Sequence[JSONObject]
    required: bool = False


def wanted(request: ChatRequest, dice: Dice) -> list[ToolCall]:
    """Return the calls ``request`` is answered with; none means that it is answered with text."""
    demand = _demand(request)
    if not demand.tools:
        return []
    text = directives.without(tokens.text_of(request.last)) if request.last["role"] == "user" else ""
    named = [tool for tool in demand.tools if name_of(tool) in text]
    if not (demand.required or named or CALL_REQUESTED.search(text)):
        return []
    return [_call(tool, dice) for tool in _chosen(demand.tools, named, request, text)]


def finish_reason(request: ChatRequest) -> str:
    """Return why an answer of calls ends: OpenAI says "stop" where ``tool_choice`` names the tool."""
    choice = request.body.get("tool_choice")
    return "stop" if isinstance(choice, dict) and choice["type"] != "allowed_tools" else "tool_calls"


def name_of(tool: JSONObject) -> str:
    """Return the name of a tool, or of a ``tool_choice`` that names one."""
    name: str = tool[tool["type"]]["name"]
    return name


def _demand(request: ChatRequest) -> _Demand:
    tools: list[JSONObject] = request.body.get("tools", [])
    choice: Any = request.body.get("tool_choice", "auto")
    if isinstance(choice, str):
        return _Demand([] if choice == "none" else tools, choice == "required")
    if choice["type"] == "allowed_tools":
        allowed = choice["allowed_tools"]
        names = {name_of(tool) for tool in allowed["tools"]}
        return _Demand([tool for tool in tools if name_of(tool) in names], allowed["mode"] == "required")
    return _Demand([tool for tool in tools if name_of(tool) == name_of(choice)], required=True)


def _chosen(
    tools: Sequence[JSONObject], named: Sequence[JSONObject], request: ChatRequest, text: str
) -> Sequence[JSONObject]:
    if BOTH_REQUESTED.search(text) and request.body.get("parallel_tool_calls", True):
        return (named if len(named) > 1 else tools)[:2]
    return (named or tools)[:1]


def _call(tool: JSONObject, dice: Dice) -> ToolCall:
    written = _input(tool["custom"], dice) if tool["type"] == "custom" else _arguments(tool["function"], dice)
    return ToolCall(f"call_{dice.letters(ID_LETTERS)}", tool["type"], name_of(tool), tokens.split(written))


def _arguments(function: JSONObject, dice: Dice) -> str:
    return instance_text(function.get("parameters") or {"type": "object"}, dice)


def _input(custom: JSONObject, dice: Dice) -> str:
    grammar = custom.get("format", {}).get("grammar", {})
    if grammar.get("syntax") == "regex":
        return matching_text(grammar["definition"], dice)
    return f"{custom['name']} {dice.below(100)}"
