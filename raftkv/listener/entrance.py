"""Where clients connect: an address that is taken before there is a node to serve them."""

from __future__ import annotations

import asyncio
import ssl as tls

from raftkv.errors import Unavailable
from raftkv.forks import leave, let_go, tell_of_fork
from raftkv.listener.limits import ClientLimits
from raftkv.transport import ProtocolFactory, Refused, Resolver, Shut, TlsServer, listen, listening_hosts

BACKLOG = 1024
"""Connections that the system takes before this node does: all clients may come at once when a leader has gone."""


class Entrance:
    """An address that nobody else can have; who connects is turned away at once, until somebody `serve`s there."""

    def __init__(self, limits: ClientLimits, ssl: tls.SSLContext | None) -> None:
        self.address = ("", 0)
        """Host and port, as the system gave them."""
        self._limits = limits
        self._ssl = ssl
        self._server: asyncio.Server | TlsServer | None = None
        self._factory: ProtocolFactory = Shut
        self._refused: Refused | None = None

    @property
    def hosts(self) -> list[str]:
        """Every numeric host at which it listens."""
        return listening_hosts(self._server)

    async def take(self, host: str, port: int) -> None:
        """Listen. Raises `Unavailable`."""
        try:
            hosts = await Resolver().hosts(host)
            if self._ssl is not None:
                self._server = server = TlsServer(
                    lambda: self._factory(),
                    self._ssl,
                    handshake_s=self._limits.hello_timeout_s,
                    handshakes_max=self._limits.connections_max,
                    refused=self._unmade,
                    patience_s=self._limits.silent_s,
                )
                self.address = server.listen(hosts, port, BACKLOG)
            else:
                self._server = await listen(lambda: self._factory(), hosts, port, BACKLOG)
                name = self._server.sockets[0].getsockname()
                self.address = str(name[0]), int(name[1])
        except OSError as exc:
            raise Unavailable(f"can't listen on {host}:{port}: {exc}") from exc
        tell_of_fork(self)

    def serve(self, factory: ProtocolFactory, refused: Refused) -> None:
        """From now on `factory` makes the protocol of a connection; `refused` hears of TLS handshakes that failed."""
        self._factory, self._refused = factory, refused

    def _unmade(self, kind: str, reason: str, address: str) -> None:
        if self._refused is not None:
            self._refused(kind, reason, address)

    def close(self) -> None:
        """Give the address back; connections stay."""
        if self._server is not None:
            self._server.close()

    def after_fork(self) -> None:
        """In a child: the address must be free when the parent is gone."""
        for sock in self._server.sockets if self._server is not None else ():
            let_go(sock.fileno())
        leave(self._server)
        self._server = None


async def bind(host: str, port: int, limits: ClientLimits, *, ssl: tls.SSLContext | None = None) -> Entrance:
    """Take an address for clients (port 0: any that is free). Raises `Unavailable` when it can't be had."""
    entrance = Entrance(limits, ssl)
    await entrance.take(host, port)
    return entrance
