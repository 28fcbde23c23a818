"""The connections to OpenAI: one session for all calls of a process."""

import aiohttp

MAX_CONNECTIONS = 4096
"""aiohttp's own default is 100, which stalls the hundred-and-first stream."""
KEEPALIVE_S = 60


def new_session() -> aiohttp.ClientSession:
    """The session whose connections carry all calls of a process. The caller closes it."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_S))
