"""Reads a JSON request body within limits and validates it into a model; long bodies are parsed in a thread."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from app.core.errors.request_errors import ClientDisconnected, RequestError
from app.core.http.asgi_scope import first_header
from app.core.json_encoding import reject_lone_surrogates

Model = TypeVar("Model", bound=BaseModel)

LONG_BODY_BYTES = 65_536
"""Longer bodies are parsed and validated in a thread: that takes more than a millisecond or two."""
MAX_DEPTH = 201
"""Maximum nesting of arrays and objects: the parser's limit."""
MAX_COUNTS: dict[bytes, tuple[int, str]] = {
    b",": (1_048_576, "elements"),
    b":": (262_144, "members of objects"),
    b"[": (65_536, "arrays"),
    b"{": (65_536, "objects"),
}
"""Per character: the limit on its count, and what it counts. Millions would occupy the process for seconds."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


async def read_model(request: Request, model_for: Callable[[object], type[Model]]) -> Model:
    """Read the body and validate it into the model that `model_for` selects: `read_body`, then `model_of`."""
    return await model_of(request, await read_body(request), model_for)


async def read_body(request: Request) -> bytes:
    """The whole body. It can be read once.

    Raises:
        HTTPException: it cannot be decompressed, or is too large.
        ClientDisconnected: the client disconnected before its end.
    """
    chunks, more = [], True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(chunks)


async def model_of(request: Request, body: bytes, model_for: Callable[[object], type[Model]]) -> Model:
    """Validate a body that has been read into the model that `model_for` selects.

    Raises:
        RequestError: the content type is not JSON, as vLLM checks it; the body has too many elements or is nested too
            deep; a string is not valid Unicode.
        RequestValidationError: it is not JSON, or does not fit the model; as FastAPI reports it.
        HTTPException: it cannot be parsed.
    """
    _require_json(request)
    if len(body) <= LONG_BODY_BYTES:
        return _validated(body, model_for)
    return await asyncio.to_thread(_validated, body, model_for)


def _require_json(request: Request) -> None:
    media_type = (first_header(request.scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        # vLLM responds with 400 here, not 415.
        message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise RequestError(message, type="Bad Request")


def _check_counts(body: bytes) -> None:
    if all(body.count(character) <= limit for character, (limit, _name) in MAX_COUNTS.items()):
        return
    # In strings these characters are harmless.
    counts, start = dict.fromkeys(MAX_COUNTS, 0), 0
    for string in _STRING.finditer(body):
        _count(counts, body, start, string.start())
        start = string.end()
    _count(counts, body, start, len(body))


def _count(counts: dict[bytes, int], body: bytes, start: int, end: int) -> None:
    for character, (limit, name) in MAX_COUNTS.items():
        counts[character] += body.count(character, start, end)
        if counts[character] > limit:
            raise RequestError(f"The request has more than {limit} {name}.")


def _validated(body: bytes, model_for: Callable[[object], type[Model]]) -> Model:
    value = _parsed(body) if body else None
    if value is None:
        raise _invalid(type="missing", loc=("body",), msg="Field required", input=None)
    try:
        return model_for(value).model_validate(value, from_attributes=True)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
        raise RequestValidationError([{**error, "loc": ("body", *error["loc"])} for error in errors]) from None


def _parsed(body: bytes) -> Any:
    if len(body) > LONG_BODY_BYTES:
        return _parse_checked(body)
    try:
        return from_json(body)
    except ValueError:
        return _parse_checked(body)


def _parse_checked(body: bytes) -> Any:
    """Parse a body in any encoding within all limits, or raise the error that explains what is wrong with it."""
    body = _to_utf8(body)
    _check_counts(body)
    try:
        return from_json(body)
    except ValueError as exc:
        if "recursion limit" in str(exc):
            raise RequestError(f"The request is nested too deep: more than {MAX_DEPTH} arrays and objects.") from None
        _raise_parse_error(body)


def _to_utf8(body: bytes) -> bytes:
    """Convert a body to UTF-8 without a byte order mark, from any encoding that Python's parser, and so vLLM, accepts.

    Raises:
        HTTPException: it is not valid in the detected encoding.
    """
    encoding = json.detect_encoding(body)
    if encoding == "utf-8":
        return body
    try:
        return body.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise _unparsable() from None


def _raise_parse_error(body: bytes) -> NoReturn:
    """Report why a UTF-8 body cannot be parsed, as vLLM does: the error of Python's parser in FastAPI's form."""
    try:
        # As bytes, it would accept a second byte order mark.
        value = json.JSONDecoder().decode(body.decode("utf-8", "surrogatepass"))
    except json.JSONDecodeError as exc:
        location, context = ("body", exc.pos), {"error": exc.msg}
        raise _invalid(type="json_invalid", loc=location, msg="JSON decode error", input={}, ctx=context) from None
    except (ValueError, RecursionError):
        raise _unparsable() from None
    # Only Python's parser accepts a lone surrogate, which no response, log or call can encode.
    reject_lone_surrogates(value)
    raise _unparsable()


def _unparsable() -> HTTPException:
    return HTTPException(400, "There was an error parsing the body")


def _invalid(**error: object) -> RequestValidationError:
    return RequestValidationError([error])
