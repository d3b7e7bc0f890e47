"""Reads from a certificate whose it is, who issued it, and when it is valid.

It parses the DER form by hand: `ssl` tells these things only of certificates that it has accepted, and an operator
wants to know them of refused ones. Nothing here decides whether a certificate is good.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

TEXT_MAX = 100
"""Characters of a name that are kept: anything may be written into a certificate."""

NAMES_MAX = 8

_COMMON_NAME = bytes.fromhex("0603550403")
_ALTERNATIVE_NAMES = bytes.fromhex("0603551d11")
_EXTENDED_USAGE = bytes.fromhex("0603551d25")
_FOR_SERVERS = (bytes.fromhex("2b06010505070301"), bytes.fromhex("551d2500"))
"""serverAuth, and any usage (RFC 5280, 4.2.1.12)."""

_UTC_TIME = 0x17


class Certificate(msgspec.Struct, frozen=True):
    """One certificate, as texts for a log."""

    name: str
    """Its common name."""
    names: tuple[str, ...]
    """The hosts that it is for."""
    issuer: str
    not_before: datetime
    not_after: datetime
    is_for_servers: bool = True
    """Whether a server may show it: it says so, or names no use at all."""

    def describe(self) -> str:
        """Name, hosts, issuer and dates, for errors."""
        hosts = f" for {', '.join(self.names)}" if self.names else ""
        dates = f"valid from {self.not_before:%Y-%m-%d %H:%M} until {self.not_after:%Y-%m-%d %H:%M} UTC"
        return f"certificate of {self.name!r}{hosts}, issued by {self.issuer!r}, {dates}"


def read_certificate(der: bytes) -> Certificate | None:
    """The certificate in `der`; None when these bytes are none."""
    try:
        return _read(der)
    except (ValueError, IndexError, StopIteration):
        return None


def _read(der: bytes) -> Certificate:
    whole = next(_items(der))[1]
    fields = list(_items(next(_items(whole))[1]))
    if fields[0][0] == 0xA0:  # the version, which may be left out
        del fields[0]
    _serial, _algorithm, issuer, validity, subject, _key, *more = fields
    begin, end = (_time(tag, value) for tag, value in _items(validity[1]))
    extensions = next((value for tag, value in more if tag == 0xA3), b"")
    names = tuple(_alternatives(extensions))
    return Certificate(_name(subject[1]), names, _name(issuer[1]), begin, end, _is_for_servers(extensions))


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element. Raises `ValueError` when one does not fit."""
    at = 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            if not 0 < count <= 4:
                raise ValueError("a length in a form that no certificate has")
            size, at = int.from_bytes(data[at : at + count]), at + count
        if at + size > len(data):
            raise ValueError("cut short")
        yield tag, data[at : at + size]
        at += size


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")[:TEXT_MAX]


def _name(data: bytes) -> str:
    """The common name, or the first attribute when there is none."""
    first = ""
    for _, group in _items(data):
        for _, pair in _items(group):
            text = _text(list(_items(pair))[1][1])
            if pair.startswith(_COMMON_NAME):
                return text
            first = first or text
    return first


def _extension(data: bytes, kind: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of the extensions of one kind."""
    for _, extensions in _items(data):
        for _, extension in _items(extensions):
            if extension.startswith(kind):
                content = list(_items(extension))[-1][1]
                yield from _items(next(_items(content))[1])


def _alternatives(data: bytes) -> Iterator[str]:
    for tag, value in list(_extension(data, _ALTERNATIVE_NAMES))[:NAMES_MAX]:
        if tag == 0x82:
            yield _text(value)
        elif tag == 0x87:
            yield str(ipaddress.ip_address(value))


def _is_for_servers(data: bytes) -> bool:
    uses = [value for _, value in _extension(data, _EXTENDED_USAGE)]
    return not uses or any(use in _FOR_SERVERS for use in uses)


def _time(tag: int, value: bytes) -> datetime:
    text = value.decode("ascii").removesuffix("Z")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text  # RFC 5280, 4.1.2.5.1
    return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
