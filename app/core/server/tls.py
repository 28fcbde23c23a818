"""The server's TLS context."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from app.core.config import Settings, SettingsError


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context of the settings (vLLM's --ssl-* flags); None: plain HTTP.

    Raises:
        SettingsError: a file cannot be read or has the wrong content, or the ciphers are invalid.
    """
    if settings.ssl_certfile is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with _named("SSL_CERTFILE, SSL_KEYFILE"):
        # Without a password callback, OpenSSL would prompt on the terminal.
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password=lambda: "")
    if settings.ssl_ca_certs:
        with _named("SSL_CA_CERTS"):
            context.load_verify_locations(settings.ssl_ca_certs)
    if settings.ssl_ciphers:
        with _named("SSL_CIPHERS"):
            context.set_ciphers(settings.ssl_ciphers)
    context.verify_mode = ssl.VerifyMode(int(settings.ssl_cert_reqs))
    return context


@contextmanager
def _named(setting: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise SettingsError(f"{setting}: {exc.strerror or exc}") from None
