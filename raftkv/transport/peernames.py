"""Whose certificates are nodes': the same authority may have issued clients', which must not pose as nodes."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import msgspec

from raftkv.addresses import split
from raftkv.errors import WrongCertificate
from raftkv.transport.certificate import read_certificate
from raftkv.transport.shown import alternative_names, common_names
from raftkv.wire import Hello


class PeerNames(msgspec.Struct, frozen=True):
    """What must be in the certificate of a node that dials.

    Without `names`, the host at which the membership has the node that it says to be: this is in the certificate
    anyway, as whoever dials that node demands it. A node of which nothing is known yet must have a certificate for the
    host at which it says that it listens, and one that is good for servers.
    """

    names: tuple[str, ...] = ()
    """Any of these, as host or as common name."""

    def check(self, connection: ssl.SSLObject | None, hello: Hello, told: str | None) -> None:
        """`told` is where the membership has the node. Raises `WrongCertificate`."""
        shown: Any = connection.getpeercert() if connection is not None else None
        if connection is None or not shown:
            raise WrongCertificate(f"node {hello.node_id} shows no certificate")
        if self.names:
            wanted, found = self.names, [*_hosts(shown), *common_names(shown)]
        else:
            wanted = (split(told or hello.address)[0],)
            found = list(_hosts(shown)) or list(common_names(shown))
        if not any(_is_for(each, name) for each in found for name in wanted):
            raise WrongCertificate(
                f"node {hello.node_id} shows a certificate for {', '.join(found)[:200] or 'nobody'}, and not for "
                f"{' or '.join(wanted)}: give it a certificate for its host in the membership, correct the membership "
                "(raftkv member update), or say which names nodes have (--tls-peer-names)"
            )
        if told is None and not self.names:
            self._check_usage(connection, hello)

    def _check_usage(self, connection: ssl.SSLObject, hello: Hello) -> None:
        """Of a node that is not known, nothing but its own word says where it is."""
        certificate = read_certificate(connection.getpeercert(binary_form=True) or b"")
        if certificate is None or not certificate.is_for_servers:
            raise WrongCertificate(
                f"node {hello.node_id}, which is no member as far as is known here, shows a certificate that is for "
                "clients only (extendedKeyUsage): give it one with serverAuth"
            )


def _hosts(shown: dict[str, Any]) -> Iterator[str]:
    return alternative_names(shown, "DNS", "IP Address")


def _is_for(shown: str, host: str) -> bool:
    """Whether a name in a certificate stands for `host`; a star in it stands for one label, the first."""
    if (address := _numeric(host)) is not None:
        return _numeric(shown) == address
    shown, host = shown.lower().rstrip("."), host.lower().rstrip(".")
    if shown.startswith("*."):
        first, _, rest = host.partition(".")
        return bool(first) and rest == shown.removeprefix("*.")
    return bool(shown) and shown == host


def _numeric(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
