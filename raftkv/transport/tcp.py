"""The network between nodes as TCP, with TLS where it is asked for."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Callable

from raftkv.config import Config
from raftkv.errors import ConfigError
from raftkv.model import NodeId
from raftkv.transport.limits import Limits
from raftkv.transport.mesh import Mesh
from raftkv.transport.streams import ProtocolFactory, Streams


def split_address(address: str) -> tuple[str, int]:
    """The host and port of "host:port" or "[v6]:port". Raises `OSError`, as for one where nobody listens."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) <= 65535:
        raise OSError(f"address {address!r}: must be host:port")
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
    ) -> None:
        self._host = host
        self._port = port
        self._ssl_server = ssl_server
        self._ssl_client = ssl_client
        self._handshake_s = handshake_s
        self._server: asyncio.Server | None = None

    async def listen(self, factory: ProtocolFactory) -> str:
        try:
            self._server = await asyncio.get_running_loop().create_server(
                factory,
                self._host,
                self._port,
                ssl=self._ssl_server,
                ssl_handshake_timeout=self._handshake_s if self._ssl_server is not None else None,
            )
        except OSError as exc:
            raise ConfigError(f"can't listen for peers on {self._host}:{self._port}: {exc}") from exc
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def dial(self, factory: ProtocolFactory, address: str) -> None:
        host, port = split_address(address)
        try:
            await asyncio.get_running_loop().create_connection(factory, host, port, ssl=self._ssl_client)
        except UnicodeError as exc:
            raise OSError(f"address {address!r}: no name of a host") from exc

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
    ) -> None:
        limits = limits if limits is not None else Limits.of(config)
        streams = TcpStreams(host, port, ssl_server=ssl_server, ssl_client=ssl_client, handshake_s=limits.handshake_s)
        super().__init__(node_id, streams, config=config, draw=draw, limits=limits)
