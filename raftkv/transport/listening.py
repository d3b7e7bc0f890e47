"""Listening without TLS, so that whoever gives up while it begins keeps no address taken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from raftkv.transport.streams import ProtocolFactory
from raftkv.transport.tls_server import TlsServer

BACKLOG = 100
"""Connections that the system accepts ahead of this node: asyncio's default, while a cluster has a handful."""


async def listen(factory: ProtocolFactory, hosts: Sequence[str], port: int, backlog: int = BACKLOG) -> asyncio.Server:
    """Listen at numeric hosts. Raises `OSError`.

    A loop that is to do all of it at once waits a turn when it listens already: cancelled there, nobody could close it.
    """
    loop = asyncio.get_running_loop()
    server = await loop.create_server(factory, hosts, port, backlog=backlog, start_serving=False)
    try:
        await server.start_serving()
    except BaseException:
        server.close()
        raise
    return server


def listening_hosts(server: asyncio.Server | TlsServer | None) -> list[str]:
    """The numeric hosts at which it listens, as its sockets say; none without a server."""
    if server is None:
        return []
    sockets = server.listening if isinstance(server, TlsServer) else server.sockets
    return [str(each.getsockname()[0]) for each in sockets]
