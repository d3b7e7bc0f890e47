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
    return Certificate(_name(subject[1]), tuple(_alternatives(extensions)), _name(issuer[1]), begin, end)


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


def _alternatives(data: bytes) -> Iterator[str]:
    for _, extensions in _items(data):
        for _, extension in _items(extensions):
            if extension.startswith(_ALTERNATIVE_NAMES):
                content = list(_items(extension))[-1][1]
                for tag, value in list(_items(next(_items(content))[1]))[:NAMES_MAX]:
                    if tag == 0x82:
                        yield _text(value)
                    elif tag == 0x87:
                        yield str(ipaddress.ip_address(value))


def _time(tag: int, value: bytes) -> datetime:
    text = value.decode("ascii").removesuffix("Z")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text  # RFC 5280, 4.1.2.5.1
    return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
