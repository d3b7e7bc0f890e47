"""From an address as people write it to a link that has shaken hands: names looked up, all their addresses tried."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from raftkv.addresses import parse
from raftkv.client.link import Link
from raftkv.client.names import Names, Resolve
from raftkv.client.options import ClientOptions
from raftkv.errors import RaftKVError, WrongCluster

Dial: TypeAlias = Callable[[Callable[[], asyncio.Protocol], str, int], Awaitable[Any]]
"""Connects to (host, port) and gives the connection to the protocol that the first argument makes."""


class Dialler:
    """Makes links. Whoever brings a `dial` of its own looks names up there too, unless it brings `resolve` as well."""

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
        self._resolve: Resolve | None = resolve if resolve is not None or dial is not None else Names().look_up

    async def connect(self, address: str, make: Callable[[], Link], accept: Callable[[Link], None]) -> Link:
        """A link that is ready, made by `make`, and that `accept` has nothing against.

        A name's addresses are tried one beside the other, each with a head start before the next.
        Raises `OSError` (`TimeoutError` when nobody gave a sign of life), or what `accept` or the handshake raises.
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
        link = make()
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                await self._open(lambda: link, host, port, name)
                await link.ready
            accept(link)
        except BaseException:
            link.close()
            if link.ready.done() and not link.ready.cancelled():
                link.ready.exception()  # it is told above, or nobody waits for it any more
            raise
        return link

    async def _open(self, factory: Callable[[], asyncio.Protocol], host: str, port: int, name: str) -> None:
        if self._dial is not None:
            await self._dial(factory, host, port)
        else:
            # The certificate is the name's, whichever of its addresses this is.
            server_name = name if self._ssl is not None else None
            loop = asyncio.get_running_loop()
            await loop.create_connection(factory, host, port, ssl=self._ssl, server_hostname=server_name)

    async def _race(self, attempts: list[Any]) -> Link:
        """The first that succeeds; the others are given up."""
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
    """Of several, the one that a person should read: who is there and wrong before who is not there."""
    for kind in (WrongCluster, RaftKVError):
        if found := [error for error in errors if isinstance(error, kind)]:
            return found[0]
    refused = [error for error in errors if not isinstance(error, TimeoutError)]
    return (refused or errors)[0]
