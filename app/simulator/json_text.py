"""Parses and writes JSON as strictly as OpenAI."""

from typing import Any, TypeAlias

import pydantic_core

JSONObject: TypeAlias = dict[str, Any]


def parse(raw: bytes) -> Any:
    """Return the value in ``raw``; NaN, Infinity and lone surrogates are rejected.

    Raises:
        ValueError: ``raw`` is not JSON.
    """
    return pydantic_core.from_json(raw, allow_inf_nan=False)


def compact(value: Any) -> bytes:
    """Return ``value`` as UTF-8 JSON on one line, as in OpenAI's events."""
    return pydantic_core.to_json(value)


def indented(value: Any) -> bytes:
    """Return ``value`` as UTF-8 JSON with two spaces of indent, as in OpenAI's whole responses."""
    return pydantic_core.to_json(value, indent=2)
