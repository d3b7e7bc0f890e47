"""TLS contexts from files: both sides show certificates of one authority."""

from __future__ import annotations

import ssl

from raftkv.errors import ConfigError


def server_context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """For those who connect here; None without files. Raises `ConfigError`."""
    return _context(ssl.Purpose.CLIENT_AUTH, ca, cert, key)


def client_context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """For connecting to nodes; None without files. Raises `ConfigError`."""
    return _context(ssl.Purpose.SERVER_AUTH, ca, cert, key)


def http_context(ca: str | None, cert: str | None, key: str | None, mode: str) -> ssl.SSLContext | None:
    """For metrics and health: `off` is None, `server` shows this node's certificate and asks for none, as probes and
    monitors often have none; `mutual` asks for one of the authority. Raises `ConfigError`."""
    if mode == "off":
        return None
    context = server_context(ca, cert, key)
    if context is None:
        raise ConfigError(f"http_tls = {mode!r}: needs tls_ca, tls_cert and tls_key")
    if mode == "server":
        context.verify_mode = ssl.CERT_NONE
    return context


def _context(purpose: ssl.Purpose, ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext | None:
    if ca is None and cert is None and key is None:
        return None
    files = f"tls_ca = {ca!r}, tls_cert = {cert!r}, tls_key = {key!r}"
    if ca is None or cert is None or key is None:
        raise ConfigError(f"{files}: all three are needed, or none")
    try:
        context = ssl.create_default_context(purpose, cafile=ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(cert, key)
    except OSError as exc:  # an SSLError is one too
        raise ConfigError(f"{files}: {exc}") from exc
    return context
