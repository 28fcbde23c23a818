"""Binds the sockets that the server listens on, before anything else starts."""

import errno
import socket

from app.core.config import Settings, SettingsError


def bound_sockets(settings: Settings) -> list[socket.socket]:
    """Bind a socket for each address of HOST, all on the same port; none listens yet. The caller closes them.

    Raises:
        SettingsError: HOST is not an address of this machine, or PORT is in use or not permitted.
    """
    sockets: list[socket.socket] = []
    port = settings.port
    try:
        for family, address in _addresses(settings.host, port):
            bound = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address[0], port, *address[2:]))
            port = bound.getsockname()[1]
    except OSError as exc:
        for bound in sockets:
            bound.close()
        raise SettingsError(_reason(exc, settings.host, port)) from None
    return sockets


def _addresses(host: str, port: int) -> list[tuple[int, tuple[object, ...]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as exc:
        raise SettingsError(f"HOST: {host!a} cannot be resolved: {exc.strerror}") from None
    except UnicodeError:
        raise SettingsError(f"HOST: {host!a} is not a host name") from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _reason(exc: OSError, host: str, port: int) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"HOST, PORT: {host} port {port} is already in use"
    if exc.errno in {errno.EACCES, errno.EPERM}:
        return f"PORT: this user may not listen on port {port}"
    if exc.errno == errno.EADDRNOTAVAIL:
        return f"HOST: {host!a} is not an address of this machine"
    return f"HOST, PORT: cannot listen on {host!a} port {port}: {exc.strerror or exc}"
