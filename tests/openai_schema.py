"""Validates chat requests against OpenAI's published schema, if a copy lies beside the checkout."""

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

from app.simulator.server import Exchange

BESIDE_THE_CHECKOUT = Path(__file__).parents[2] / "shared/openai/chat-request.schema.json"
CHAT_PATH = "/chat/completions"


def violations(exchanges: Iterable[Exchange]) -> list[str]:
    """Return the schema violations in chat requests sent upstream; empty without a schema."""
    validator = _validator()
    if validator is None:
        return []
    bodies = [exchange.body for exchange in exchanges if exchange.path.endswith(CHAT_PATH)]
    return [f"{error.json_path}: {error.message}" for body in bodies for error in validator.iter_errors(body)]


@cache
def _validator() -> Draft202012Validator | None:
    path = Path(os.environ.get("OPENAI_CHAT_SCHEMA") or BESIDE_THE_CHECKOUT)
    return Draft202012Validator(json.loads(path.read_text())) if path.exists() else None
