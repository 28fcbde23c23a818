"""Python values to JSON for OpenAI, or a refusal that says why not."""

import json
from collections.abc import Mapping
from typing import NoReturn

from pydantic_core import to_json

from app.core.errors.errors import Refusal


def encoded(value: object, *, param: str | None = None) -> bytes:
    """Compact JSON in UTF-8.

    Raises:
        Refusal: the value has a lone surrogate, a number JSON does not know, or is nested too deep; names `param`.
    """
    try:
        body = to_json(value)
    except ValueError as exc:
        raise Refusal(LONE_SURROGATE if "surrogates" in str(exc) else TOO_DEEP, param=param) from None
    if b"NaN" in body or b"Infinity" in body:
        json.loads(body, parse_constant=lambda constant: _refuse_constant(constant, param))
    return body


def encoded_body(body: Mapping[str, object]) -> bytes:
    """The same for a body of fields.

    Raises:
        Refusal: as above; names the field.
    """
    try:
        return encoded(body)
    except Refusal:
        for name, value in body.items():
            encoded(value, param=name)
        raise


def refuse_lone_surrogates(body: object) -> None:
    """Refuse a parsed body whose text could be written nowhere: half of a pair is valid in JSON's escapes only.

    Raises:
        Refusal: there is one; names the field.
    """
    for name, value in body.items() if isinstance(body, dict) else ((None, body),):
        try:
            json.dumps([name, value], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            shown = name and name.encode("utf-8", "backslashreplace").decode()
            raise Refusal(LONE_SURROGATE, param=shown) from None
        except RecursionError:
            raise Refusal(TOO_DEEP, param=name) from None


LONE_SURROGATE = "The request has text that is not valid Unicode: a lone surrogate."
TOO_DEEP = "The request is nested too deep."


def _refuse_constant(constant: str, param: str | None) -> NoReturn:
    raise Refusal(f"The request has a number that JSON does not know: {constant}.", param=param)
