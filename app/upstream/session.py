"""The connections to OpenAI: one session for all calls of a process."""

import aiohttp

MAX_CONNECTIONS = 4096
"""aiohttp's default of 100 would stall the 101st stream."""
KEEPALIVE_S = 60


def new_session() -> aiohttp.ClientSession:
    """Return a session with the connection limits for a whole process. The caller closes it."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_S))
