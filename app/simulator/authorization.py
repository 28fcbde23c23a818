"""API key checks with OpenAI's error messages."""

import secrets

from app.simulator.errors import ErrorBody, OpenAIError

SCHEME = "Bearer "
SHOWN_AT_START = 8
SHOWN_AT_END = 4

NO_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if you're accessing the "
    "API from your browser and are prompted for a username and password. You can obtain an API key from "
    "https://platform.openai.com/account/api-keys."
)


def authorize(header: str | None, *, api_key: str | None) -> None:
    """Check the key in the ``Authorization`` header.

    Only ``api_key`` is accepted; if it is None, any key that begins with ``sk-`` and does not contain ``wrong``.

    Raises:
        OpenAIError: 401 with OpenAI's message.
    """
    key = (header or "").removeprefix(SCHEME).strip() if (header or "").startswith(SCHEME) else ""
    if not key:
        raise OpenAIError(401, ErrorBody(NO_KEY))
    if not _is_accepted(key, api_key):
        message = (
            f"Incorrect API key provided: {_masked(key)}. "
            "You can find your API key at https://platform.openai.com/account/api-keys."
        )
        raise OpenAIError(401, ErrorBody(message, code="invalid_api_key"))


def _is_accepted(key: str, api_key: str | None) -> bool:
    if api_key is not None:
        return secrets.compare_digest(key.encode(), api_key.encode())
    return key.startswith("sk-") and "wrong" not in key


def _masked(key: str) -> str:
    hidden = len(key) - SHOWN_AT_START - SHOWN_AT_END
    # OpenAI shows a key that is too short to be real.
    if hidden <= 0:
        return key
    return key[:SHOWN_AT_START] + "*" * hidden + key[-SHOWN_AT_END:]
