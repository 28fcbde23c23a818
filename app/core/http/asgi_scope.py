"""What the head of a request says of it."""

from collections.abc import Mapping
from typing import Any

PROBE_PATHS = frozenset({"/health", "/ping", "/metrics", "/load", "/version"})
"""Paths whose answers carry no request headers: they are polled, and vLLM sends none."""


def route_path(scope: Mapping[str, Any]) -> str:
    """The path by which an HTTP request's route is found: without the server's own (uvicorn's `--root-path`).

    `Host` has no part in it, as it has in Starlette's URLs.
    """
    path: str = scope["path"]
    return path.removeprefix(scope["root_path"]) if scope["root_path"] else path


def is_inference_request(scope: Mapping[str, Any]) -> bool:
    """Whether a request is work, not a question about the server."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    return route_path(scope).startswith(("/v1/", "/invocations"))


def first_header(scope: Mapping[str, Any], name: bytes) -> bytes | None:
    """The value of the first header of this name, which is given in lower case."""
    for given, value in scope["headers"]:
        if given == name:
            found: bytes = value
            return found
    return None
