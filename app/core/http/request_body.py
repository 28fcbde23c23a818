"""A request's body: JSON within limits, read into a model. A long one does not keep the event loop waiting."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from app.core.errors.errors import ClientDisconnected, RequestError
from app.core.http.asgi_scope import first_header
from app.core.json_encoding import reject_lone_surrogates

Model = TypeVar("Model", bound=BaseModel)

LONG_BODY_BYTES = 65_536
"""A longer body is parsed and checked beside the event loop: it may take longer than a millisecond or two."""
MAX_DEPTH = 201
"""Arrays and objects within each other: what the parser allows."""
MAX_COUNTS: dict[bytes, tuple[int, str]] = {
    b",": (1_048_576, "elements"),
    b":": (262_144, "members of objects"),
    b"[": (65_536, "arrays"),
    b"{": (65_536, "objects"),
}
"""What a body may have of each, by the character that tells: millions of them would occupy the process for seconds."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


async def read_model(request: Request, model_for: Callable[[object], type[Model]]) -> Model:
    """The body as the model that `model_for` names for it."""
    return await model_of(request, await read_body(request), model_for)


async def read_body(request: Request) -> bytes:
    """All of the body. It can be read once.

    Raises:
        HTTPException: it cannot be decoded, or is too large.
        ClientDisconnected: the client left before it had sent it.
    """
    pieces, more = [], True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


async def model_of(request: Request, body: bytes, model_for: Callable[[object], type[Model]]) -> Model:
    """The request's body, which has been read, as the model that `model_for` names for it.

    Raises:
        RequestError: the content type is not JSON's, exactly as vLLM checks it; the body has too much in it, or is
            nested too deep; a text in it is not valid Unicode.
        RequestValidationError: it is no JSON, or does not fit the model; as FastAPI would say it.
        HTTPException: it cannot be parsed.
    """
    _require_json(request)
    if len(body) <= LONG_BODY_BYTES:
        return _validated(body, model_for)
    return await asyncio.to_thread(_validated, body, model_for)


def _require_json(request: Request) -> None:
    media_type = (first_header(request.scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        # vLLM answers 400 here, not 415.
        message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise RequestError(message, type="Bad Request")


def _check_counts(body: bytes) -> None:
    if all(body.count(character) <= most for character, (most, _name) in MAX_COUNTS.items()):
        return
    # In texts these characters are harmless.
    counts, start = dict.fromkeys(MAX_COUNTS, 0), 0
    for text in _STRING.finditer(body):
        _count(counts, body, start, text.start())
        start = text.end()
    _count(counts, body, start, len(body))


def _count(counts: dict[bytes, int], body: bytes, start: int, end: int) -> None:
    for character, (most, name) in MAX_COUNTS.items():
        counts[character] += body.count(character, start, end)
        if counts[character] > most:
            raise RequestError(f"The request has more than {most} {name}.")


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
        return _parsed_with_care(body)
    try:
        return from_json(body)
    except ValueError:
        return _parsed_with_care(body)


def _parsed_with_care(body: bytes) -> Any:
    """The value of a body in any encoding, within all limits; else the error that says what is wrong with it."""
    body = _utf8(body)
    _check_counts(body)
    try:
        return from_json(body)
    except ValueError as exc:
        if "recursion limit" in str(exc):
            raise RequestError(f"The request is nested too deep: more than {MAX_DEPTH} arrays and objects.") from None
        _explain(body)


def _utf8(body: bytes) -> bytes:
    """A body in any of the encodings that Python's parser, and so vLLM, reads, as UTF-8 without a byte order mark.

    Raises:
        HTTPException: it is not in the encoding that it seems to be in.
    """
    encoding = json.detect_encoding(body)
    if encoding == "utf-8":
        return body
    try:
        return body.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise _unparsable() from None


def _explain(body: bytes) -> NoReturn:
    """Say in vLLM's words why a body in UTF-8 cannot be parsed: what Python's parser says, as FastAPI reports it."""
    try:
        # Of bytes it would take a second byte order mark.
        value = json.JSONDecoder().decode(body.decode("utf-8", "surrogatepass"))
    except json.JSONDecodeError as exc:
        place, told = ("body", exc.pos), {"error": exc.msg}
        raise _invalid(type="json_invalid", loc=place, msg="JSON decode error", input={}, ctx=told) from None
    except (ValueError, RecursionError):
        raise _unparsable() from None
    # Only Python's parser takes a lone surrogate, which no response, log or call could carry.
    reject_lone_surrogates(value)
    raise _unparsable()


def _unparsable() -> HTTPException:
    return HTTPException(400, "There was an error parsing the body")


def _invalid(**error: object) -> RequestValidationError:
    return RequestValidationError([error])
