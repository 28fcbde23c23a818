"""The tool calls of a response."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.simulator import directives, tokens
from app.simulator.generation.instances import instance_text
from app.simulator.generation.patterns import matching_text
from app.simulator.json_text import JSONObject
from app.simulator.request import ChatRequest
from app.simulator.seeded_random import SeededRandom
from app.simulator.tokens import Piece

ID_LETTERS = 24
CALL_REQUESTED = re.compile(r"\bcall\b", re.IGNORECASE)
BOTH_REQUESTED = re.compile(r"\bboth\b", re.IGNORECASE)
# The member that holds the generated text, by tool type.
WRITTEN = {"function": "arguments", "custom": "input"}


@dataclass(frozen=True)
class ToolCall:
    """One tool call; ``pieces`` are its arguments (JSON text) or, for a custom tool, its input."""

    id: str
    type: str
    name: str
    pieces: Sequence[Piece]

    @property
    def tokens(self) -> int:
        """The tokens of the call: its name and its ``pieces``."""
        return tokens.count(self.name) + tokens.total(self.pieces)

    def within(self, limit: int) -> "ToolCall":
        """Return the call truncated to ``limit`` tokens; the name is always kept."""
        left = max(limit - tokens.count(self.name), 0)
        return replace(self, pieces=tokens.first(self.pieces, left))

    def to_json(self, written: str | None = None) -> JSONObject:
        """Return the call as it appears in a response; ``written``, if given, replaces its generated text."""
        text = "".join(piece.text for piece in self.pieces) if written is None else written
        return {"id": self.id, "type": self.type, self.type: {"name": self.name, WRITTEN[self.type]: text}}


@dataclass(frozen=True)
class _ToolChoice:
    """``tool_choice`` resolved: the allowed ``tools``, and whether a call is ``required``."""

    tools: Sequence[JSONObject]
    required: bool = False


def tool_calls_for(request: ChatRequest, rng: SeededRandom) -> list[ToolCall]:
    """Return the tool calls of the response to ``request``; if empty, the response is text."""
    choice = _tool_choice(request)
    if not choice.tools:
        return []
    text = directives.remove_from(tokens.text_of(request.last)) if request.last["role"] == "user" else ""
    named = [tool for tool in choice.tools if name_of(tool) in text]
    if not (choice.required or named or CALL_REQUESTED.search(text)):
        return []
    return [_call(tool, rng) for tool in _selected_tools(choice.tools, named, request, text)]


def finish_reason(request: ChatRequest) -> str:
    """Return the ``finish_reason`` of a response with calls: "stop" if ``tool_choice`` names the tool (OpenAI)."""
    choice = request.body.get("tool_choice")
    return "stop" if isinstance(choice, dict) and choice["type"] != "allowed_tools" else "tool_calls"


def name_of(tool: JSONObject) -> str:
    """Return the name in a tool or in a ``tool_choice`` that names one."""
    name: str = tool[tool["type"]]["name"]
    return name


def _tool_choice(request: ChatRequest) -> _ToolChoice:
    tools: list[JSONObject] = request.body.get("tools", [])
    choice: Any = request.body.get("tool_choice", "auto")
    if isinstance(choice, str):
        return _ToolChoice([] if choice == "none" else tools, choice == "required")
    if choice["type"] == "allowed_tools":
        allowed = choice["allowed_tools"]
        names = {name_of(tool) for tool in allowed["tools"]}
        return _ToolChoice([tool for tool in tools if name_of(tool) in names], allowed["mode"] == "required")
    return _ToolChoice([tool for tool in tools if name_of(tool) == name_of(choice)], required=True)


def _selected_tools(
    tools: Sequence[JSONObject], named: Sequence[JSONObject], request: ChatRequest, text: str
) -> Sequence[JSONObject]:
    if BOTH_REQUESTED.search(text) and request.body.get("parallel_tool_calls", True):
        return (named if len(named) > 1 else tools)[:2]
    return (named or tools)[:1]


def _call(tool: JSONObject, rng: SeededRandom) -> ToolCall:
    written = _input(tool["custom"], rng) if tool["type"] == "custom" else _arguments(tool["function"], rng)
    return ToolCall(f"call_{rng.letters(ID_LETTERS)}", tool["type"], name_of(tool), tokens.split(written))


def _arguments(function: JSONObject, rng: SeededRandom) -> str:
    return instance_text(function.get("parameters") or {"type": "object"}, rng)


def _input(custom: JSONObject, rng: SeededRandom) -> str:
    grammar = custom.get("format", {}).get("grammar", {})
    if grammar.get("syntax") == "regex":
        return matching_text(grammar["definition"], rng)
    return f"{custom['name']} {rng.below(100)}"
