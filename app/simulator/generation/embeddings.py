"""``POST /v1/embeddings``: unit vectors that depend only on the input."""

import base64
import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.simulator import tokens
from app.simulator.errors import bad_request, model_not_found
from app.simulator.json_text import JSONObject
from app.simulator.rules.acceptance import json_body
from app.simulator.rules.rule_types import Rule, also, array, either, integer, missing, one_of, string
from app.simulator.traffic import Exchange

MAX_INPUTS = 2048
MOST_TOKENS = 8192


@dataclass(frozen=True)
class EmbeddingModel:
    """The vector length of a model, and whether ``dimensions`` may shorten it."""

    dimensions: int
    shortens: bool


MODELS = {
    "text-embedding-3-small": EmbeddingModel(1536, shortens=True),
    "text-embedding-3-large": EmbeddingModel(3072, shortens=True),
    "text-embedding-ada-002": EmbeddingModel(1536, shortens=False),
}


def _of_one_kind(items: Any, path: str) -> None:
    if isinstance(items, list) and len({type(item) for item in items}) > 1:
        raise bad_request(f"Invalid '{path}': items of different types.", param=path, code="invalid_type")


TEXT, TOKEN = string(minimum=1), integer(0)
ITEMS = array(either(TEXT, TOKEN, array(TOKEN, minimum=1)), minimum=1, maximum=MAX_INPUTS)
INPUT = also(either(TEXT, ITEMS), _of_one_kind)
FIELDS: dict[str, Rule] = {
    "input": INPUT,
    "model": string(),
    "dimensions": integer(1),
    "encoding_format": one_of("float", "base64"),
    "user": string(),
}


def respond(exchange: Exchange) -> JSONObject:
    """Return the response body for the embeddings request in ``exchange``.

    Raises:
        OpenAIError: 400 or 404 if OpenAI would reject the request.
    """
    body = json_body(exchange)
    dimensions = _accepted_dimensions(body)
    inputs = _inputs(body["input"])
    used = sum(map(_cost, inputs))
    encode = _base64 if body.get("encoding_format") == "base64" else list
    vectors = [
        {"object": "embedding", "index": index, "embedding": encode(_vector(text, dimensions))}
        for index, text in enumerate(inputs)
    ]
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {"object": "list", "data": vectors, "model": body["model"], "usage": usage}


def _accepted_dimensions(body: JSONObject) -> int:
    unknown = sorted(body.keys() - FIELDS.keys())
    if unknown:
        raise bad_request(f"Unrecognized request argument supplied: {', '.join(unknown)}")
    for name in ("model", "input"):
        if name not in body:
            raise missing(name)
    for name, value in body.items():
        FIELDS[name].check(value, name)
    model = MODELS.get(body["model"])
    if model is None:
        raise model_not_found(body["model"])
    return _dimensions(model, body.get("dimensions"))


def _dimensions(model: EmbeddingModel, requested: int | None) -> int:
    if requested is None:
        return model.dimensions
    if not model.shortens:
        raise bad_request("This model does not support specifying dimensions.", param="dimensions")
    integer(1, model.dimensions).check(requested, "dimensions")
    return requested


def _inputs(given: Any) -> Sequence[Any]:
    whole = isinstance(given, str) or isinstance(given[0], int)
    return [given] if whole else given


def _cost(text: Any) -> int:
    used = tokens.count(text) if isinstance(text, str) else len(text)
    if used > MOST_TOKENS:
        raise bad_request(
            f"This model's maximum context length is {MOST_TOKENS} tokens, however you requested {used} tokens "
            f"({used} in your prompt; 0 for the completion). Please reduce your prompt; or completion length."
        )
    return used


def _vector(text: Any, dimensions: int) -> list[float]:
    seed = hashlib.sha256(repr(text).encode()).digest()
    raw = hashlib.shake_256(seed).digest(2 * dimensions)
    numbers = struct.unpack(f"<{dimensions}h", raw)
    length = math.sqrt(sum(number * number for number in numbers)) or 1.0
    return [number / length for number in numbers]


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
