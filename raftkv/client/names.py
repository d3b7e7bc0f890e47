"""Looks names up in threads, anew each time, so that a slow look-up does not hold up other work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import zip_longest
from typing import TypeAlias

from raftkv.addresses import split
from raftkv.transport import Resolver

LOOKUP_S = 10.0
"""How long a look-up is waited for; about as long as resolvers try. Its answer may still be used if it comes later."""

Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""The numeric addresses of a host, in the order in which to try them. Raises `OSError`, or a `RaftKVError`."""


class Names:
    """Looks names up; callers that want the same name share a look-up. Results are not kept, because they change."""

    def __init__(self, resolver: Resolver | None = None) -> None:
        self._resolver = resolver if resolver is not None else Resolver()
        self._running: dict[tuple[str, int], asyncio.Future[tuple[str, ...]]] = {}

    async def look_up(self, host: str, port: int) -> list[str]:
        """A name's addresses; IPv4 and IPv6 take turns (RFC 8305, 4).

        Raises `NameUnknown`, or `TimeoutError` when there was no answer within `LOOKUP_S`.
        """
        running = self._running.get((host, port))
        if running is None:
            found = self._resolver.look_up(host, port)
            if not isinstance(found, asyncio.Future):
                return in_turn([split(place)[0] for place in found])
            running = self._running[host, port] = found
            running.add_done_callback(lambda _: self._running.pop((host, port)))
        try:
            async with asyncio.timeout(LOOKUP_S):
                return in_turn([split(place)[0] for place in await asyncio.shield(running)])
        except TimeoutError:
            raise TimeoutError(f"the name {host} could not be looked up within {LOOKUP_S:g} s") from None


def in_turn(hosts: list[str]) -> list[str]:
    """Both families alternate, beginning with the one that the system put first."""
    first = [host for host in hosts if (":" in host) == (":" in hosts[0])]
    other = [host for host in hosts if (":" in host) != (":" in hosts[0])]
    return [host for pair in zip_longest(first, other) for host in pair if host is not None]
