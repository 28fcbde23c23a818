"""`python -m app.healthcheck`: status 0 if the server of this container is well. For Docker, so it is quick."""

import http.client
import os
import ssl
import sys

HOST = "127.0.0.1"
TIMEOUT_S = 2


def main() -> int:
    """Ask /health where the environment's settings say that the server listens; returns the exit status."""
    port = int(os.environ.get("PORT") or 8002)
    if not os.environ.get("SSL_CERTFILE"):
        return _status(http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S))
    # Who answers on this machine's own address needs no proof of its name.
    context = ssl._create_unverified_context()  # noqa: S323
    connection = http.client.HTTPSConnection(HOST, port, timeout=TIMEOUT_S, context=context)
    if os.environ.get("SSL_CERT_REQS") != "2":
        return _status(connection)
    # Only clients with a certificate may ask; that it takes the connection has to do.
    connection.connect()
    return 0


def _status(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/health")
    return int(connection.getresponse().status != http.client.OK)


if __name__ == "__main__":
    sys.exit(main())
