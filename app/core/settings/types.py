"""Types of setting values. Each accepts the text of an environment variable; no error quotes the value."""

import re
import unicodedata
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import from_json
from pydantic_settings import NoDecode

DAY_S = 86_400
MANY = 10**12
"""Upper bound of counts without a natural one: a larger number is a typing error."""

_AUTHORITY = re.compile(
    r"(?P<user>[^@]*@)?(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+))(?::(?P<port>\d+))?"
)
_HOST = re.compile(r"(?=.{1,253}\.?$)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_INVALID_URL_CHARACTER = re.compile(r"[^!-~]|[\"<>\\^`{|}]|%(?![0-9A-Fa-f]{2})")


def check_text(value: object) -> object:
    """Return the value; a string only if every setting may contain it.

    Raises:
        ValueError: it is not UTF-8, or has a control character other than a tab or a line break.
    """
    if not isinstance(value, str):
        return value
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("must be UTF-8")
    if any(unicodedata.category(character) == "Cc" and character not in "\t\n\r" for character in value):
        raise ValueError("must have no control characters")
    return value


def parse_json(value: object) -> object:
    """Parse a string as JSON; return any other value as it is.

    Raises:
        ValueError: it is not JSON, is nested too deep, or has a lone surrogate or a NaN.
    """
    if not isinstance(value, str):
        return value
    try:
        return from_json(value, allow_inf_nan=False)
    except ValueError as exc:
        raise ValueError(f"must be JSON: {exc}") from None


def check_http_url(url: str, *, user_allowed: bool = False) -> str:
    """Return `url` if every HTTP library parses it in the same way: an absolute URL, strictly by RFC 3986, section 3.

    Raises:
        ValueError: it is not such a URL.
    """
    if not url.isascii():
        raise ValueError("must be ASCII: write an international host name as xn--… and the rest percent-encoded")
    scheme, separator, rest = url.partition("://")
    if scheme.lower() not in {"http", "https"} or not separator or not rest:
        raise ValueError("must be an http:// or https:// URL")
    if _INVALID_URL_CHARACTER.search(url):
        raise ValueError("has a character that is not allowed in URLs")
    authority = _AUTHORITY.fullmatch(re.split(r"[/?#]", rest, maxsplit=1)[0])
    if not authority or not _is_host(authority):
        raise ValueError("must have a valid host, and a port, if any, from 1 to 65535")
    if "?" in url or "#" in url:
        raise ValueError("must have no query or fragment")
    if authority["user"] and not user_allowed:
        raise ValueError("must have no user or password")
    return url


def _is_host(authority: re.Match[str]) -> bool:
    port, host = authority["port"], authority["host"]
    if port is not None and not (len(port) <= 5 and 1 <= int(port) <= 65_535):
        return False
    try:
        if host is None:
            IPv6Address(authority["ipv6"])
        elif host.rpartition(".")[2].isdigit():
            IPv4Address(host)
    except AddressValueError:
        return False
    return host is None or bool(_HOST.fullmatch(host))


def _check_base_url(value: str) -> str:
    url = check_http_url(value).rstrip("/")
    if {".", ".."} & set(urlsplit(url).path.split("/")):
        raise ValueError("must have no . or .. in its path")
    return url


def _check_header_text(value: str) -> str:
    if not all("!" <= character <= "~" for character in value):
        raise ValueError("must be printable ASCII without spaces")
    return value


def _check_header_secret(value: SecretStr) -> SecretStr:
    _check_header_text(value.get_secret_value())
    return value


def _check_client_key(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().isprintable():
        raise ValueError("must have no control characters")
    return value


def _split_at_commas(value: object) -> object:
    return [item for part in value.split(",") if (item := part.strip())] if isinstance(value, str) else value


def _split_client_keys(value: object) -> object:
    keys = _split_at_commas(value)
    if isinstance(value, str) and not keys:
        raise ValueError("must contain at least one key")
    return [key for key in keys if key] if isinstance(keys, list) else keys


def _check_template_kwargs(kwargs: dict[str, object]) -> dict[str, object]:
    for name in ("enable_thinking", "thinking"):
        if not isinstance(kwargs.get(name, True), bool):
            raise ValueError(f"{name} must be true or false")
    if kwargs.get("reasoning_effort", "none") not in get_args(ReasoningEffort):
        raise ValueError(f"reasoning_effort must be one of {', '.join(get_args(ReasoningEffort))}")
    return kwargs


def _parse_served_models(value: object) -> object:
    if value == "*":
        return value
    try:
        return parse_json(value)
    except ValueError as exc:
        raise ValueError(f'must be * or a JSON object of names, such as {{"my-model": "gpt-4o-mini"}}: {exc}') from None


Seconds = Annotated[float, Field(gt=0, le=DAY_S)]
SecondsOrZero = Annotated[float, Field(ge=0, le=DAY_S)]
Count = Annotated[int, Field(ge=0, le=MANY)]

BaseURL = Annotated[str, AfterValidator(_check_base_url)]
"""An http(s) URL without a trailing slash."""
HeaderText = Annotated[str, AfterValidator(_check_header_text)]
HeaderSecret = Annotated[SecretStr, AfterValidator(_check_header_secret)]
ClientKey = Annotated[SecretStr, AfterValidator(_check_client_key)]
"""Any printable text: vLLM compares keys byte by byte."""
HeaderSecrets = Annotated[tuple[HeaderSecret, ...], NoDecode, BeforeValidator(_split_at_commas)]
ClientKeys = Annotated[tuple[ClientKey, ...], NoDecode, BeforeValidator(_split_client_keys)]
HeaderTexts = Annotated[tuple[HeaderText, ...], NoDecode, BeforeValidator(parse_json)]
JSONObject = Annotated[dict[str, dict[str, object]], NoDecode, BeforeValidator(parse_json)]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EffortMap = Annotated[dict[ReasoningEffort, ReasoningEffort], NoDecode, BeforeValidator(parse_json)]
TemplateKwargs = Annotated[
    dict[str, object], NoDecode, BeforeValidator(parse_json), AfterValidator(_check_template_kwargs)
]
"""vLLM's `chat_template_kwargs`. Those for reasoning are type-checked; others have no effect."""
ServedModels = Annotated[dict[str, str] | Literal["*"] | None, NoDecode, BeforeValidator(_parse_served_models)]
