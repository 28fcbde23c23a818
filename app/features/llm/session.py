"""The connections to OpenAI: one session for all calls of a process."""

from dataclasses import dataclass
from types import SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

MAX_CONNECTIONS = 4096
"""aiohttp's own default is 100, which stalls the hundred-and-first stream."""
KEEPALIVE_S = 60


@dataclass(slots=True)
class Connection:
    """What the session's trace tells about the connection of one attempt."""

    reused: bool = False


async def _mark_reused(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.reused = True


def new_session() -> aiohttp.ClientSession:
    """The session that carries all calls of a process. The caller closes it.

    It keeps no cookies: they would be one client's on another's calls.
    """
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_mark_reused)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[trace],
    )


def environment_proxy(url: str) -> str | None:
    """The proxy that the environment names for `url`.

    aiohttp would look it up too, but only together with ~/.netrc, whose entries collide with the API key.
    """
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
