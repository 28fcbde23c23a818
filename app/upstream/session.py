"""The connections to OpenAI: one session for all calls of a process."""

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

MAX_CONNECTIONS = 4096
"""aiohttp's own default is 100, which stalls the hundred-and-first stream."""
KEEPALIVE_S = 60


def new_session() -> aiohttp.ClientSession:
    """The session whose connections carry all calls of a process. The caller closes it."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_S))


def environment_proxy(url: str) -> str | None:
    """The proxy that the environment names for `url`."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
