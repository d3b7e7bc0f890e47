"""From an address as people write it to a link after its handshake: looks the name up, and tries all its addresses."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from raftkv.addresses import parse
from raftkv.client.link import Link
from raftkv.client.names import Names, Resolve
from raftkv.client.options import ClientOptions
from raftkv.errors import HandshakeRefused, RaftKVError, WrongCluster

Dial: TypeAlias = Callable[[Callable[[], asyncio.Protocol], str, int], Awaitable[Any]]
"""Connects to (host, port) and gives the connection to the protocol that the first argument makes."""


PATIENCE_MAX = 8
"""A node that is reached, and says nothing, is waited for up to so many times `connect_timeout_s`."""


class Dialler:
    """Makes links. A caller with its own `dial` is handed names as they are, unless it gives `resolve` as well.

    A node that is reached but does not finish the handshake in time is waited for longer each time, until it has done
    so once: if it is only slow, as many clients come at once, then clients that give up and come again keep it so.
    """

    def __init__(
        self,
        options: ClientOptions,
        *,
        ssl: tls.SSLContext | None = None,
        dial: Dial | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._options = options
        self._ssl = ssl
        self._dial = dial
        self._patience: dict[tuple[str, int], int] = {}
        """How many times `connect_timeout_s` a host is waited for; those that have kept nobody waiting aren't in it."""
        self._resolve: Resolve | None = resolve if resolve is not None or dial is not None else Names().look_up

    async def connect(self, address: str, make: Callable[[], Link], accept: Callable[[Link], None]) -> Link:
        """Connect a link that `make` has made, and that `accept` lets pass.

        If the name has several addresses, all are tried, each with a head start before the next. Raises `OSError`
        (`TimeoutError` when there was no sign of life), or what `accept` or the handshake raises.
        """
        host, port = parse(address)
        hosts = await self._resolve(host, port) if self._resolve is not None else [host]
        if not hosts:
            raise OSError(f"the name {host} has no address")
        if len(hosts) == 1:
            return await self._attempt(hosts[0], port, host, make, accept)
        return await self._race([self._attempt(each, port, host, make, accept) for each in hosts])

    async def _attempt(
        self, host: str, port: int, name: str, make: Callable[[], Link], accept: Callable[[Link], None]
    ) -> Link:
        if not self._options.is_safe_at(host, has_tls=self._ssl is not None):
            raise HandshakeRefused("it is not reached by TLS, and one would sign in readable for all on the way")
        link, place = make(), (host, port)
        patience = self._patience.get(place, 1)
        is_reached = self._ssl is not None  # with TLS one can't tell: its handshake is part of connecting
        try:
            async with asyncio.timeout(self._options.connect_timeout_s * patience):
                await self._open(lambda: link, host, port, name)
                is_reached = True
                await link.ready
            self._patience.pop(place, None)
            accept(link)
        except BaseException as exc:
            if isinstance(exc, TimeoutError) and is_reached:
                self._patience[place] = min(2 * patience, PATIENCE_MAX)
            link.close()
            if link.ready.done() and not link.ready.cancelled():
                link.ready.exception()  # the error was raised above, or the caller has gone
            raise
        return link

    async def _open(self, factory: Callable[[], asyncio.Protocol], host: str, port: int, name: str) -> None:
        if self._dial is not None:
            await self._dial(factory, host, port)
        else:
            # The certificate is for the name, whichever of its addresses this is.
            server_name = name if self._ssl is not None else None
            loop = asyncio.get_running_loop()
            await loop.create_connection(factory, host, port, ssl=self._ssl, server_hostname=server_name)

    async def _race(self, attempts: list[Any]) -> Link:
        """Return the first link that is ready, and cancel the other attempts."""
        running: list[asyncio.Task[Link]] = []
        errors: list[OSError | RaftKVError] = []
        try:
            while attempts or running:
                if attempts:
                    running.append(asyncio.ensure_future(attempts.pop(0)))
                head_start = self._options.head_start_s if attempts else None
                await asyncio.wait(running, timeout=head_start, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in running if task.done()]:
                    running.remove(task)
                    try:
                        return task.result()
                    except (OSError, RaftKVError) as exc:
                        errors.append(exc)
            raise most_telling(errors)
        finally:
            for attempt in attempts:
                attempt.close()
            await _give_up(running)


async def _give_up(running: list[asyncio.Task[Link]]) -> None:
    for task in running:
        task.cancel()
    for end in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(end, Link):
            end.close()


def most_telling(errors: list[OSError | RaftKVError]) -> OSError | RaftKVError:
    """The error that a person should read: one from a node that answered comes before one without an answer."""
    for kind in (WrongCluster, RaftKVError):
        if found := [error for error in errors if isinstance(error, kind)]:
            return found[0]
    refused = [error for error in errors if not isinstance(error, TimeoutError)]
    return (refused or errors)[0]
