"""JSON text in and out, as strict as OpenAI's own parser."""

from typing import Any, TypeAlias

import pydantic_core

JSONObject: TypeAlias = dict[str, Any]


def parse(raw: bytes) -> Any:
    """Return what ``raw`` says; NaN, Infinity and lone surrogates are not JSON.

    Raises:
        ValueError: ``raw`` is not JSON.
    """
    return pydantic_core.from_json(raw, allow_inf_nan=False)


def compact(value: Any) -> bytes:
    """Return ``value`` as UTF-8 JSON on one line, as the events of a stream carry it."""
    return pydantic_core.to_json(value)


def indented(value: Any) -> bytes:
    """Return ``value`` as UTF-8 JSON with two spaces of indent, as OpenAI's ordinary answers are written."""
    return pydantic_core.to_json(value, indent=2)
