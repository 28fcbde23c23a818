"""JSON encoding for OpenAI. Values that cannot be encoded are reported to the client."""

import json
from collections.abc import Mapping
from typing import NoReturn

from pydantic_core import to_json

from app.core.errors.request_errors import RequestError


def encode_json(value: object, *, param: str | None = None) -> bytes:
    """Encode a value as compact JSON in UTF-8.

    Raises:
        RequestError: the value has a lone surrogate, NaN or Infinity, or is nested too deep; names `param`.
    """
    try:
        body = to_json(value)
    except ValueError as exc:
        raise RequestError(LONE_SURROGATE if "surrogates" in str(exc) else TOO_DEEP, param=param) from None
    if b"NaN" in body or b"Infinity" in body:
        json.loads(body, parse_constant=lambda constant: _reject_constant(constant, param))
    return body


def encode_body(body: Mapping[str, object]) -> bytes:
    """Encode the fields of a body as compact JSON in UTF-8.

    Raises:
        RequestError: as `encode_json`; names the field.
    """
    try:
        return encode_json(body)
    except RequestError:
        for name, value in body.items():
            encode_json(value, param=name)
        raise


def reject_lone_surrogates(body: object) -> None:
    """Reject a parsed body with a lone surrogate: JSON escapes can express one, UTF-8 cannot.

    Raises:
        RequestError: the body has one, or is nested too deep; names the field.
    """
    for name, value in body.items() if isinstance(body, dict) else ((None, body),):
        try:
            json.dumps([name, value], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            printable_name = name and name.encode("utf-8", "backslashreplace").decode()
            raise RequestError(LONE_SURROGATE, param=printable_name) from None
        except RecursionError:
            raise RequestError(TOO_DEEP, param=name) from None


LONE_SURROGATE = "The request has text that is not valid Unicode: a lone surrogate."
TOO_DEEP = "The request is nested too deep."


def _reject_constant(constant: str, param: str | None) -> NoReturn:
    raise RequestError(f"The request has a number that JSON does not know: {constant}.", param=param)
