"""Requests, and what a real vLLM answered to them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JSONObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client receives; `content_type` is None where the answer has none."""

    status: int
    content_type: str | None
    body: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and what vLLM answered. The body is JSON, or text to be sent as it stands."""

    id: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: JSONObject | str | None
    vllm: Answer


def recorded_exchanges() -> list[Exchange]:
    """Every exchange of `exchanges.json`, in its order."""
    recorded = json.loads(Path(__file__).with_name("exchanges.json").read_text("utf-8"))
    return [Exchange(**exchange | {"vllm": Answer(**exchange["vllm"])}) for exchange in recorded["exchanges"]]
