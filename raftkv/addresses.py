"""Addresses as people write them, "host:port" or "[v6]:port", and which of them can be a member's."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from raftkv.errors import InvalidArgument
from raftkv.model import Member

_SCHEME = "://"
_PORT_MAX = 65_535


def split(address: str) -> tuple[str, str]:
    """Host and port of "host:port" or "[v6]:port", unchecked."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def parse(address: str, *, lowest_port: int = 1) -> tuple[str, int]:
    """Host and port of an address; a `lowest_port` of 0 is for addresses to listen on. Raises `InvalidArgument`."""
    if not isinstance(address, str):
        raise InvalidArgument(f"address {address!r}: must be the text host:port")
    if _SCHEME in address:
        raise InvalidArgument(f"address {_url_problem(address)}")
    host, port = split(address)
    if not host or not (port.isascii() and port.isdigit()) or not lowest_port <= int(port) <= _PORT_MAX:
        raise InvalidArgument(f"address {address!r}: must be host:port")
    return host, int(port)


def join(host: str, port: int) -> str:
    """The address of a host, or of a numeric address of either family, and a port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_wildcard(host: str) -> bool:
    """Whether a host means "any address of this machine", which nobody else can dial."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return host in ("", "*")


def is_loopback(host: str) -> bool:
    """Whether what is sent to a host can't leave this machine. Names other than localhost are not looked up."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url_problem(address: str) -> str:
    return f"{address!r} is a URL: write HOST:PORT, as {address.split(_SCHEME, 1)[1].split('/')[0]}"


def address_problem(address: str) -> str | None:
    """Why nobody could dial `address`, with what to write instead; None when nothing is wrong with it."""
    if _SCHEME in address:
        return _url_problem(address)
    host, port = split(address)
    if is_wildcard(host):
        return (
            f"{address!r} is where a node may listen, but nobody can dial it: "
            f"write the address by which others reach the node, as 10.0.0.1:{port or 'PORT'}"
        )
    if port.isdigit() and int(port) == 0:
        return f"{address!r} has port 0, which nobody can dial: write the port that the node listens on"
    return None


def address_problems(members: Iterable[Member]) -> list[str]:
    """Why these can't be the members of one cluster, in words: each needs addresses of its own that can be dialled."""
    found, taken = [], dict[str, str]()
    for member in members:
        for address, what in ((member.peer_address, "nodes"), (member.client_address, "clients")):
            if (problem := address_problem(address)) is not None:
                found.append(f"node {member.node_id}: {problem}")
            use = f"node {member.node_id} for {what}"
            if (other := taken.setdefault(address, use)) != use:
                found.append(f"{address} is given twice, of {other} and of {use}: each needs an address of its own")
    return found


def is_elsewhere(listens: str, told: str) -> bool:
    """Whether dialling `told` can't lead to where a node `listens`, unless something in between forwards it.

    Names are not looked up: only ports and literal addresses are compared. False when one of the two is empty.
    """
    if not listens or not told:
        return False
    (here, port), (there, other) = split(listens), split(told)
    if port != other:
        return True
    try:
        return not is_wildcard(here) and ip_address(here) != ip_address(there)
    except ValueError:
        return False
