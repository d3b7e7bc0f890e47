"""Addresses as people write them: "host:port", "[v6]:port"."""

from __future__ import annotations

from raftkv.errors import InvalidArgument


def parse_address(text: str) -> tuple[str, int]:
    """Split "host:port"; raises `InvalidArgument`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) <= 65535:
        raise InvalidArgument(f"address {text!r}: must be host:port")
    return host, int(port)
