"""The network between nodes as TCP, with TLS where it is asked for."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Callable, Sequence

from raftkv.config import Config
from raftkv.errors import ConfigError
from raftkv.model import NodeId
from raftkv.transport.limits import Limits
from raftkv.transport.mesh import Mesh
from raftkv.transport.racing import connect_first
from raftkv.transport.reasons import NameUnknown
from raftkv.transport.resolver import Resolver
from raftkv.transport.streams import PlaceFactory, ProtocolFactory, Streams


def split_address(address: str) -> tuple[str, int]:
    """The host and port of "host:port" or "[v6]:port". Raises `NameUnknown`, an `OSError`."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) <= 65535:
        raise NameUnknown(f"address {address!r}: must be host:port")
    return host, int(port)


class TcpStreams(Streams):
    """Sockets of this host."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        ssl_server: tls.SSLContext | None,
        ssl_client: tls.SSLContext | None,
        handshake_s: float,
        resolver: Resolver | None = None,
    ) -> None:
        self._resolver = resolver if resolver is not None else Resolver()
        self._host = host
        self._port = port
        self._ssl_server = ssl_server
        self._ssl_client = ssl_client
        self._handshake_s = handshake_s
        self._server: asyncio.Server | None = None

    def settle(self, host: str, port: int) -> None:
        """Listen here, if it does not yet."""
        if self._server is None:
            self._host, self._port = host, port

    async def listen(self, factory: ProtocolFactory) -> str:
        try:
            self._server = await asyncio.get_running_loop().create_server(
                factory,
                await self._resolver.hosts(self._host),
                self._port,
                ssl=self._ssl_server,
                ssl_handshake_timeout=self._handshake_s if self._ssl_server is not None else None,
            )
        except OSError as exc:
            raise ConfigError(f"can't listen for peers on {self._host}:{self._port}: {exc}") from exc
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def look_up(self, address: str) -> Sequence[str] | asyncio.Future[tuple[str, ...]]:
        return self._resolver.look_up(*split_address(address))

    async def dial(self, factory: PlaceFactory, address: str, places: Sequence[str]) -> None:
        place, sock = await connect_first(places)
        name = split_address(address)[0] if self._ssl_client is not None else None
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: factory(place), sock=sock, ssl=self._ssl_client, server_hostname=name
            )
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


class TcpTransport(Mesh):
    """A `Transport` over TCP, listening on `host`:`port`; a `port` of 0 lets the system choose one.

    With `ssl_server` and `ssl_client` all connections are TLS; contexts that demand certificates of
    both sides keep strangers out before they can say anything.
    """

    def __init__(
        self,
        node_id: NodeId,
        host: str,
        port: int,
        *,
        config: Config,
        ssl_server: tls.SSLContext | None = None,
        ssl_client: tls.SSLContext | None = None,
        draw: Callable[[int], int],
        limits: Limits | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        limits = limits if limits is not None else Limits.of(config)
        streams = TcpStreams(
            host,
            port,
            ssl_server=ssl_server,
            ssl_client=ssl_client,
            handshake_s=limits.handshake_s,
            resolver=resolver,
        )
        super().__init__(node_id, streams, config=config, draw=draw, limits=limits)
        self._sockets = streams

    def settle(self, host: str, port: int) -> None:
        """Choose where to listen; only before it does."""
        self._sockets.settle(host, port)
