"""Requests and a real vLLM's responses to them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JSONObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; `content_type` is None if it has none."""

    status: int
    content_type: str | None
    body: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and vLLM's response. The body is JSON, or text to be sent unchanged."""

    id: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: JSONObject | str | None
    vllm: Answer


def recorded_exchanges() -> list[Exchange]:
    """Return every exchange of `exchanges.json`, in order."""
    recorded = json.loads(Path(__file__).with_name("exchanges.json").read_text("utf-8"))
    return [Exchange(**exchange | {"vllm": Answer(**exchange["vllm"])}) for exchange in recorded["exchanges"]]
