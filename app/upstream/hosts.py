"""Tells OpenAI's own base URLs from those of other services."""

from urllib.parse import urlsplit

_OPENAI = "api.openai.com"


def is_openai(base_url: str) -> bool:
    """Whether the URL is OpenAI's own, regional hosts such as eu.api.openai.com included."""
    host = urlsplit(base_url).hostname or ""
    return host == _OPENAI or host.endswith(f".{_OPENAI}")
