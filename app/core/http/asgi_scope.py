"""What can be read from an ASGI scope: route path, headers, kind of request."""

from collections.abc import Mapping
from typing import Any

PROBE_PATHS = frozenset({"/health", "/ping", "/metrics", "/load", "/version"})
"""Polled paths: their responses have no per-request headers, as in vLLM, and the access log omits them."""


def route_path(scope: Mapping[str, Any]) -> str:
    """The path that routes are matched against: without the root path (uvicorn's `--root-path`).

    Unlike Starlette's URLs it does not depend on `Host`.
    """
    path: str = scope["path"]
    return path.removeprefix(scope["root_path"]) if scope["root_path"] else path


def is_inference_request(scope: Mapping[str, Any]) -> bool:
    """True for requests that generate output; false for health, model lists, tokenization and the like."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    return route_path(scope).startswith(("/v1/", "/invocations"))


def first_header(scope: Mapping[str, Any], name: bytes) -> bytes | None:
    """The value of the first header called `name` (lower case), or None."""
    for header, value in scope["headers"]:
        if header == name:
            first: bytes = value
            return first
    return None
