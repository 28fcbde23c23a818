"""The error response to a request that fails validation, in vLLM's words."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.core.errors.request_errors import ErrorResponse

VLLM_ERROR = "vllm"
"""The pydantic error type for vLLM's own checks. The error's context names the parameter as `param`."""

_SHOWN_ERRORS = 10
_SHOWN_ERROR_CHARACTERS = 1000
_SHOWN_INPUT_CHARACTERS = 200
_BRANCH_NAMES = frozenset(
    {"str", "int", "float", "bool", "none", "dict", "constrained-str", "constrained-int", "nullable", "NamedToolChoice"}
)


def validation_error_response(errors: Sequence[Mapping[str, Any]]) -> ErrorResponse:
    """The response to pydantic's errors about a request, in vLLM's words.

    vLLM checks all types first, then values one at a time.
    """
    plain = [error for error in errors if error["type"] != VLLM_ERROR]
    if not plain:
        return ErrorResponse(400, errors[0]["msg"], errors[0]["ctx"]["param"])
    lines = [_shown_error(error) for error in plain[:_SHOWN_ERRORS]]
    if len(plain) > _SHOWN_ERRORS:
        lines.append(f"  ...and {len(plain) - _SHOWN_ERRORS} more errors")
    heading = f"{len(plain)} validation error{'s' if len(plain) > 1 else ''}:"
    return ErrorResponse(400, "\n".join([heading, *lines]), _shown_location(plain[0]["loc"]), "Bad Request")


def _shown_error(error: Mapping[str, Any]) -> str:
    shown = {
        "type": error["type"],
        "loc": _shown_location(error["loc"]),
        "msg": error["msg"],
        "input": _shown_input(error.get("input")),
    }
    if error.get("ctx"):
        shown["ctx"] = {name: _shown_limit(value) for name, value in error["ctx"].items()}
    return f"  {shown}"[:_SHOWN_ERROR_CHARACTERS]


def _shown_limit(value: object) -> object:
    return value if isinstance(value, int | float) else _shown_input(value)


def _shown_location(location: Sequence[int | str]) -> str:
    # pydantic also lists the union branch that it tried, which is not a field or index of the request.
    return ".".join(str(part) for part in location if not _is_branch(part))


def _is_branch(part: int | str) -> bool:
    return isinstance(part, str) and (part in _BRANCH_NAMES or not part.isidentifier())


def _shown_input(value: object) -> str:
    if isinstance(value, dict | list | tuple | set):
        name = "dict" if isinstance(value, dict) else "list"
        return f"<{name} of {len(value)} items>"
    text = str(value)
    return text if len(text) <= _SHOWN_INPUT_CHARACTERS else f"{text[:_SHOWN_INPUT_CHARACTERS]}...[truncated]"
