"""By which names a browser may ask a node that listens on loopback without TLS.

A page may read what comes from the host that it came from itself. Who has the name of that host may let it mean
127.0.0.1 a moment later, and reads then what a node shows on the machine where the page is looked at, though nobody
elsewhere reaches that (DNS rebinding). The name that the browser asks for stays the same, and stands in `Host`.
"""

from __future__ import annotations

from ipaddress import ip_address

NAME_SHOWN = 100
"""Characters of a name that somebody has made up."""


def is_foreign(header: str, own: str) -> bool:
    """Whether a request with this `Host` asks for a name that somebody else may have: it is no address, none of
    localhost, and not `own`, at which the node was told to listen. A request without any is of no browser."""
    host = _host(header)
    if host in ("", "localhost", own.lower().rstrip(".")) or host.endswith(".localhost"):
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


def refusal(header: str) -> str:
    """What is answered to such a request."""
    return (
        f"this node listens on loopback, and {_host(header)[:NAME_SHOWN]!r} is none of its names: ask for localhost or "
        "127.0.0.1 (a proxy: in Host), listen by that name, or have all sign in (--http-sign-in all)"
    )


def _host(header: str) -> str:
    header = header.strip().lower()
    host = header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]
    return host.rstrip(".")
