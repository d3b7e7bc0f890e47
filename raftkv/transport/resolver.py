"""Looks up hosts' numeric addresses. A slow lookup holds up neither other lookups nor the end of the process."""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401  # what `getaddrinfo` imports at its first call, which may be one too many open files
import socket
from collections.abc import Callable, Sequence
from typing import Any

from raftkv.addresses import join, split
from raftkv.transport.reasons import NameUnknown
from raftkv.transport.threads import DaemonThreads

LOOKUPS_MAX = 32
"""Threads that look up names at once. Each peer has at most one lookup under way, and a cluster has a handful."""

PLACES_MAX = 8
"""How many addresses of one name are tried."""

Lookup = Callable[..., Sequence[tuple[Any, ...]]]
"""A function like `socket.getaddrinfo`."""


class Resolver:
    """Looks up names as the system does (`getaddrinfo`: hosts file, DNS, or whatever the system is set to ask)."""

    def __init__(self, lookup: Lookup | None = None) -> None:
        self._lookup = lookup
        self._threads: DaemonThreads[tuple[str, ...]] = DaemonThreads("raftkv-lookup", LOOKUPS_MAX)

    def look_up(self, host: str, port: int) -> Sequence[str] | asyncio.Future[tuple[str, ...]]:
        """The places "host:port" with numeric hosts, in the system's order: at once if `host` is numeric itself.

        The future raises `NameUnknown`; it may take as long as the system's resolver does.
        """
        lookup = self._lookup if self._lookup is not None else socket.getaddrinfo
        try:
            return _places(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
        except (OSError, ValueError):  # not numeric: a name, or something that the lookup will refuse
            return self._threads.run(lambda: _look_up(lookup, host, port))

    async def hosts(self, host: str) -> list[str]:
        """The numeric addresses of a host, to listen on. Raises `NameUnknown`."""
        found = self.look_up(host, 0)
        places = await found if isinstance(found, asyncio.Future) else found
        return [split(place)[0] for place in places]


def _look_up(lookup: Lookup, host: str, port: int) -> tuple[str, ...]:
    try:
        found = _places(lookup(host, port, type=socket.SOCK_STREAM))
    except (OSError, ValueError) as exc:  # a UnicodeError is one too
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise NameUnknown(f"the name {host!r} can't be looked up: {reason}") from exc
    if not found:
        raise NameUnknown(f"the name {host!r} has no address")
    return found


def _places(infos: Sequence[tuple[Any, ...]]) -> tuple[str, ...]:
    places = [_place(info[4]) for info in infos if info[0] in (socket.AF_INET, socket.AF_INET6)]
    return tuple(dict.fromkeys(places))[:PLACES_MAX]


def _place(address: tuple[Any, ...]) -> str:
    host, port = str(address[0]), int(address[1])
    scope = f"%{address[3]}" if len(address) == 4 and address[3] and "%" not in host else ""
    return join(host + scope, port)


def sockaddr(place: str) -> tuple[int, tuple[Any, ...]]:
    """The family and address of a place, as a socket wants them; never looks anything up."""
    host, port = split(place)
    info = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
    return info[0], info[4]
