"""Standard environment variables that are not settings: proxies and trusted certificate authorities."""

import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from app.core.settings.types import check_http_url, check_text

VARIABLES = {
    "HTTPS_PROXY": "Proxy for https:// upstreams: a URL, or `host:port` for an HTTP proxy. SOCKS is not supported.",
    "HTTP_PROXY": "Proxy for http:// upstreams.",
    "ALL_PROXY": "Proxy for upstreams whose scheme has no proxy of its own.",
    "NO_PROXY": "Hosts that are reached without a proxy, separated by commas.",
    "SSL_CERT_FILE": "PEM file with the certificate authorities to trust upstream, instead of the system's.",
    "SSL_CERT_DIR": "Folder with such authorities, in OpenSSL's layout.",
}
"""Each with its description for the documents. Proxy variables may also be in lower case."""


def environment_proxy(url: str) -> str | None:
    """The proxy for `url` as an http:// or https:// URL; None: no proxy. As in curl, `host:port` means an HTTP proxy.

    Raises:
        ValueError: the proxy is invalid or not supported. The text names the variable and never quotes its value.
    """
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    kind = next((kind for kind in (parts.scheme, "all") if proxies.get(kind)), None)
    if kind is None:
        return None
    proxy = proxies[kind].strip()
    try:
        check_text(proxy)
        scheme, separator, _ = proxy.partition("://")
        if separator and scheme.lower().startswith("socks"):
            raise ValueError("SOCKS proxies are not supported, only http:// and https:// ones")
        return check_http_url(proxy if separator else f"http://{proxy}", user_allowed=True)
    except ValueError as exc:
        raise ValueError(f"{_proxy_variable(kind)}: {exc}") from None


def check_environment(base_url: str) -> None:
    """Check the variables that calls to `base_url` depend on.

    Raises:
        ValueError: one is invalid. The text names the variable.
    """
    environment_proxy(base_url)
    if not base_url.lower().startswith("https:"):
        return
    # OpenSSL silently ignores unreadable files, and then trusts no certificate.
    if file := os.environ.get("SSL_CERT_FILE"):
        _check_authorities(file)
    folders = os.environ.get("SSL_CERT_DIR", "").split(os.pathsep)
    if any(folders) and not any(Path(folder).is_dir() for folder in folders if folder):
        raise ValueError("SSL_CERT_DIR: is not a folder")


def _check_authorities(file: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError as exc:
        raise ValueError(f"SSL_CERT_FILE: {exc.strerror or exc}") from None


def _proxy_variable(kind: str) -> str:
    # As in urllib, lower case wins.
    name = f"{kind}_proxy"
    return name if os.environ.get(name) else next((known for known in os.environ if known.lower() == name), name)
