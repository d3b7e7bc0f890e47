"""Names looked up beside the event loop: each time anew, and so that a slow one holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable
from itertools import zip_longest
from typing import TypeAlias

LOOKUP_S = 10.0
"""A look-up is given up after so long, about as long as resolvers try."""

ADDRESSES_OF_NAME_MAX = 8
"""Of the addresses that a name has; a client that finds none of these alive finds none."""

Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host, in the order in which to try them. Raises `OSError`."""


class Names:
    """Looks names up in threads of its own, one for each name at a time.

    A look-up that takes a minute is waited for by nobody: neither the loop's executor, which others
    need, nor the end of the process. What was found is not kept: names move.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[str, int], asyncio.Future[list[str]]] = {}

    async def look_up(self, host: str, port: int) -> list[str]:
        """Addresses of both families in turn (RFC 8305, 4). Raises `OSError`, `TimeoutError` after `LOOKUP_S` too."""
        if is_literal(host):
            return [host]
        running = self._running.get((host, port))
        if running is None:
            running = self._running[host, port] = self._begin(host, port)
        try:
            async with asyncio.timeout(LOOKUP_S):
                return await asyncio.shield(running)
        except TimeoutError:
            raise TimeoutError(f"the name {host} could not be looked up within {LOOKUP_S:g} s") from None

    def _begin(self, host: str, port: int) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str]] = loop.create_future()

        def finish(found: list[str] | OSError) -> None:
            del self._running[host, port]
            if isinstance(found, OSError):
                future.set_exception(found)
                future.exception()  # whoever waited may have given up
            else:
                future.set_result(found)

        def work() -> None:
            found = _look_up(host, port)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(finish, found)

        threading.Thread(target=work, name=f"raftkv-lookup-{host}", daemon=True).start()
        return future


def _look_up(host: str, port: int) -> list[str] | OSError:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        return OSError(f"the name {host} could not be looked up: {exc}")
    families: dict[int, list[str]] = {}
    for family, _, _, _, address in found:
        families.setdefault(family, []).append(str(address[0]))
    in_turn = [address for row in zip_longest(*families.values()) for address in row if address is not None]
    return list(dict.fromkeys(in_turn))[:ADDRESSES_OF_NAME_MAX]


def is_literal(host: str) -> bool:
    """Whether it is an address already."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
