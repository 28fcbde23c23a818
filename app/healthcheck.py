"""`python -m app.healthcheck`: exit status 0 if the server in this container is healthy.

Imports only the standard library, because Docker runs it every few seconds.
"""

import http.client
import os
import ssl
import sys

HOST = "127.0.0.1"
TIMEOUT_S = 2


def main() -> int:
    """Request /health on the port and with the TLS settings of the environment. Returns the exit status."""
    port = int(os.environ.get("PORT") or 8002)
    if not os.environ.get("SSL_CERTFILE"):
        return _status(http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S))
    # The certificate need not be valid for the loopback address.
    context = ssl._create_unverified_context()  # noqa: S323
    connection = http.client.HTTPSConnection(HOST, port, timeout=TIMEOUT_S, context=context)
    if os.environ.get("SSL_CERT_REQS") != "2":
        return _status(connection)
    # The server requires a client certificate, so an accepted connection has to suffice.
    connection.connect()
    return 0


def _status(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/health")
    return int(connection.getresponse().status != http.client.OK)


if __name__ == "__main__":
    sys.exit(main())
