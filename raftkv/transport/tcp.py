"""The network between nodes as TCP, with TLS where it is asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence

from raftkv.addresses import join, parse
from raftkv.config import Config
from raftkv.errors import ConfigError, InvalidArgument
from raftkv.forks import let_go
from raftkv.model import NodeId
from raftkv.transport.demands import Demands
from raftkv.transport.limits import TransportLimits
from raftkv.transport.listening import BACKLOG, listen, listening_hosts
from raftkv.transport.mesh import Mesh
from raftkv.transport.racing import connect_first
from raftkv.transport.reasons import NameUnknown
from raftkv.transport.resolver import Resolver
from raftkv.transport.streams import PlaceFactory, ProtocolFactory, Refused, Streams
from raftkv.transport.tls import SOCKET, CertificateStatus, credentials_of, explain
from raftkv.transport.tls_server import TlsServer


def split_address(address: str) -> tuple[str, int]:
    """The host and port of "host:port" or "[v6]:port". Raises `NameUnknown`, an `OSError`."""
    try:
        return parse(address)
    except InvalidArgument as exc:
        raise NameUnknown(str(exc)) from None


class TcpStreams(Streams):
    """Sockets of this host."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        ssl_server: ssl.SSLContext | None,
        ssl_client: ssl.SSLContext | None,
        handshake_s: float,
        handshakes_max: int,
        resolver: Resolver | None = None,
    ) -> None:
        self._resolver = resolver if resolver is not None else Resolver()
        self._host = host
        self._port = port
        self._ssl_server = ssl_server
        self._ssl_client = ssl_client
        self._handshake_s = handshake_s
        self._handshakes_max = handshakes_max
        self._server: asyncio.Server | TlsServer | None = None

    def settle(self, host: str, port: int) -> None:
        """Choose where to listen; of no effect once it listens."""
        if self._server is None:
            self._host, self._port = host, port

    async def listen(self, factory: ProtocolFactory, refused: Refused) -> str:
        try:
            host, port = await self._listen(factory, refused)
        except OSError as exc:
            raise ConfigError(f"can't listen for peers on {self._host}:{self._port}: {exc}") from exc
        return join(host, port)

    async def _listen(self, factory: ProtocolFactory, refused: Refused) -> tuple[str, int]:
        hosts = await self._resolver.hosts(self._host)
        if self._ssl_server is not None:
            self._server = TlsServer(
                factory,
                self._ssl_server,
                handshake_s=self._handshake_s,
                handshakes_max=self._handshakes_max,
                refused=refused,
                patience_s=0.0,
            )
            return self._server.listen(hosts, self._port, BACKLOG)
        self._server = await listen(factory, hosts, self._port)
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    @property
    def hosts(self) -> list[str]:
        """Every numeric host at which it listens."""
        return listening_hosts(self._server)

    def look_up(self, address: str) -> Sequence[str] | asyncio.Future[tuple[str, ...]]:
        return self._resolver.look_up(*split_address(address))

    async def dial(self, factory: PlaceFactory, address: str, places: Sequence[str]) -> None:
        place, sock = await connect_first(places)
        name = split_address(address)[0] if self._ssl_client is not None else None
        SOCKET.set(sock.fileno())
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: factory(place), sock=sock, ssl=self._ssl_client, server_hostname=name
            )
        except BaseException:
            sock.close()
            raise
        finally:
            SOCKET.set(None)

    def explain(self, exc: BaseException) -> str:
        credentials = credentials_of(self._ssl_client)
        if isinstance(exc, ssl.SSLError):
            return explain(exc, credentials.loaded.own if credentials is not None else None)
        return super().explain(exc)

    def after_fork(self) -> None:
        for sock in self._server.sockets if self._server is not None else ():
            let_go(sock.fileno())

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


class TcpTransport(Mesh):
    """A `Transport` over TCP, listening on `host`:`port`; a `port` of 0 lets the system choose one.

    With `ssl_server` and `ssl_client` all connections are TLS; contexts that demand certificates of both sides keep
    strangers out before they can send any message.
    """

    def __init__(
        self,
        node_id: NodeId,
        host: str,
        port: int,
        *,
        config: Config,
        ssl_server: ssl.SSLContext | None = None,
        ssl_client: ssl.SSLContext | None = None,
        draw: Callable[[int], int],
        limits: TransportLimits | None = None,
        resolver: Resolver | None = None,
        demands: Demands | None = None,
    ) -> None:
        limits = limits if limits is not None else TransportLimits.of(config)
        streams = TcpStreams(
            host,
            port,
            ssl_server=ssl_server,
            ssl_client=ssl_client,
            handshake_s=limits.handshake_s,
            handshakes_max=limits.strangers_max,
            resolver=resolver,
        )
        super().__init__(node_id, streams, config=config, draw=draw, limits=limits, demands=demands)
        self._sockets = streams
        self._credentials = credentials_of(ssl_server)

    def settle(self, host: str, port: int) -> None:
        """Choose where to listen; of no effect once it listens."""
        self._sockets.settle(host, port)

    @property
    def hosts(self) -> list[str]:
        """Every numeric host at which it listens by now."""
        return self._sockets.hosts

    def certificates(self) -> list[CertificateStatus]:
        return self._credentials.status() if self._credentials is not None else []
