"""The transport, whatever carries its bytes: a link to each peer, and the connections that peers dialled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from raftkv.config import Config
from raftkv.forks import tell_of_fork
from raftkv.logs import EventLog
from raftkv.model import NodeId
from raftkv.transport.asking import ask
from raftkv.transport.connections import Connections
from raftkv.transport.demands import Demands
from raftkv.transport.incoming import Incoming
from raftkv.transport.interface import LinkStatus, Transport, TransportHandler, TransportStats
from raftkv.transport.limits import TransportLimits
from raftkv.transport.link import PeerLink
from raftkv.transport.proof import NONCE_BYTES
from raftkv.transport.refusals import Refusals
from raftkv.transport.shared import Shared
from raftkv.transport.streams import Shut, Streams
from raftkv.wire import PeerMessage

logger = EventLog(__name__)

GONE_WITHIN_S = 5.0
"""How long the end of connections that were aborted is waited for, which is at once: a node's stop must not hang."""

ASK_S = 1.0
"""How long to wait for an answer in `ask`; a node answers within some ms."""


class Mesh(Transport):
    """A `Transport` over `Streams`.

    Each node dials each of its peers and sends on the connection that it dialled; what it receives
    comes on the connections that the peers dialled. So nobody has to agree on who dials whom, and a
    connection has one owner, who alone decides when to replace it.

    The handshake is Hello, HelloReply, Ping: the acceptor takes a connection for the peer's only when
    the dialler has accepted it too, so a node dialled by mistake does not lose its true connection.
    Where a cluster secret is set, challenges go before that, and hello and reply carry proofs (`proof`).
    """

    def __init__(
        self,
        node_id: NodeId,
        streams: Streams,
        *,
        config: Config,
        draw: Callable[[int], int],
        limits: TransportLimits | None = None,
        demands: Demands | None = None,
    ) -> None:
        """What `draw` gives must be such as nobody can foresee, where peers prove a secret."""
        self.node_id = node_id
        self.streams = streams
        self.draw = draw
        self.demands = demands if demands is not None else Demands()
        self.limits = limits if limits is not None else TransportLimits.of(config)
        self.stats = TransportStats()
        self.address = ""
        """Where this node listens, once it has started; for port 0, with the port that the system chose."""
        self._shared: Shared | None = None
        """None until it has started."""
        self._links: dict[NodeId, PeerLink] = {}
        self._incoming: dict[NodeId, Incoming] = {}
        self._connections = Connections()
        self._strangers: dict[Incoming, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._last_refused: tuple[NodeId, str] | None = None
        self._refusals = Refusals("stranger_refused")
        self._refused_peers = Refusals("peer_refused")
        self._closed = False

    async def listen(self) -> str:
        if not self.address:
            self.address = await self.streams.listen(self._accept, self.refused_unmade)
            tell_of_fork(self)
        return self.address

    @property
    def _started(self) -> Shared:
        assert self._shared is not None, "this transport was not started"
        return self._shared

    def _accept(self) -> asyncio.Protocol:
        return Incoming(self._shared, self) if self._shared is not None else Shut()

    async def start(self, handler: TransportHandler) -> None:
        self._shared = Shared(self.streams, self.limits, self.stats, handler, self.demands, self._nonce)
        await self.listen()
        self._timer = asyncio.get_running_loop().call_later(self.limits.ping_s, self._check_time)

    def _nonce(self) -> bytes:
        return self.draw(1 << 8 * NONCE_BYTES).to_bytes(NONCE_BYTES)

    def told(self, peer: NodeId) -> str | None:
        link = self._links.get(peer)
        return link.told if link is not None else None

    def send(self, to: NodeId, message: PeerMessage) -> bool:
        link = self._links.get(to)
        return link is not None and link.send(message)

    def cork(self) -> None:
        self._connections.cork()

    def uncork(self) -> None:
        self._connections.uncork()

    def queued_bytes(self, to: NodeId) -> int:
        link = self._links.get(to)
        return link.queued_bytes if link is not None else 0

    def set_peers(self, peers: Mapping[NodeId, str]) -> None:
        if self._closed:
            return
        for peer, link in list(self._links.items()):
            if peers.get(peer) == link.address:
                link.told = link.address  # a hint may have led there before the membership said so
            elif peers.get(peer) != link.told:
                del self._links[peer]
                link.close()
        for peer, address in peers.items():
            if peer != self.node_id and peer not in self._links:
                self._links[peer] = PeerLink(self._started, self._connections, self.draw, peer, address)
                if (connection := self._incoming.get(peer)) is not None:
                    self._strangers.pop(connection, None)

    def hint(self, peer: NodeId, address: str) -> None:
        if (link := self._links.get(peer)) is not None:
            link.hint(address)

    async def ask(self, address: str, frame: bytes) -> bytes | None:
        return await ask(self.streams, address, frame, ASK_S)

    def drop(self, peer: NodeId, reason: str) -> None:
        for connection in self._connections:
            if isinstance(connection, Incoming) and connection.peer == peer:
                connection.end(reason)
        if (link := self._links.get(peer)) is not None:
            link.drop(reason)

    def secret_marks(self) -> tuple[str, ...]:
        return self.demands.secret.marks if self.demands.secret is not None else ()

    def secret_not_taken(self) -> str:
        return self.demands.secret.not_taken if self.demands.secret is not None else ""

    def links(self) -> dict[NodeId, LinkStatus]:
        return {peer: self._links[peer].status for peer in sorted(self._links)}

    async def close(self) -> None:
        self.abort()
        try:
            async with asyncio.timeout(GONE_WITHIN_S):
                await self._connections.all_gone()
        except TimeoutError:
            logger.warning("connections_left", connections=len(list(self._connections)), seconds=GONE_WITHIN_S)

    def after_fork(self) -> None:
        """In a child: peers are the parent's."""
        self._closed = True
        self.streams.after_fork()
        for connection in self._connections:
            connection.after_fork()

    def abort(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.streams.close()
        for link in self._links.values():
            link.close()
        self._links.clear()
        for connection in self._connections:
            if isinstance(connection, Incoming):
                connection.abort()

    def _check_time(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.limits.ping_s, self._check_time)
        self._started.beat += 1
        for link in list(self._links.values()):
            link.check_time()
        for connection in self._connections:
            if isinstance(connection, Incoming):
                connection.check_time()
        self._refusals.tick(loop.time())
        self._refused_peers.tick(loop.time())

    def refused_unmade(self, kind: str, reason: str, address: str) -> None:
        """A connection did not get through the handshake below ours (TLS)."""
        self.stats.handshake_refused += 1
        self._refusals.note(kind, reason, address, asyncio.get_running_loop().time())

    def admit(self, connection: Incoming) -> bool:
        if self._closed:
            return False
        if len(self._strangers) >= self.limits.strangers_max:
            # The oldest goes, as a peer says who it is within some ms: who says nothing must not keep peers out.
            oldest = next((each for each in self._strangers if each.may_go), connection)
            self.stats.strangers_refused += 1
            self.refused_stranger(oldest, "handshakes", f"{len(self._strangers)} handshakes are under way")
            if oldest is connection:
                return False
            del self._strangers[oldest]
            oldest.abort()
        self._strangers[connection] = None
        self._connections.opened(connection)
        return True

    def incoming_gone(self, connection: Incoming) -> None:
        self._strangers.pop(connection, None)
        self._connections.gone(connection)

    def incoming_established(self, connection: Incoming, peer: NodeId) -> None:
        """From now on `connection` is the one from `peer`: the newest wins, as the peer has replaced the other one.

        A node that is no peer of this one, though it may become one, still counts as a stranger.
        """
        if peer in self._links:
            self._strangers.pop(connection, None)
        if (old := self._incoming.get(peer)) is not None:
            old.abort()
        self._incoming[peer] = connection
        self._started.presence.heard(peer)
        if (link := self._links.get(peer)) is not None:
            link.hurry()

    def incoming_lost(self, connection: Incoming, reason: str) -> None:
        assert connection.peer is not None
        if self._incoming.get(connection.peer) is connection:
            del self._incoming[connection.peer]
        self._started.presence.broke(connection.peer, reason)
        if connection.peer in self._links:
            logger.debug("peer_hung_up", peer=connection.peer, reason=reason)
        else:
            self._started.presence.heard(connection.peer)  # forget it: strangers may use any number of ids
            self.refused_stranger(connection, "hung up", f"node {connection.peer}, no peer of this one: {reason}")

    def refused_stranger(self, connection: Incoming, kind: str, reason: str) -> None:
        self._refusals.note(kind, reason, connection.address, asyncio.get_running_loop().time())

    def refused_incoming(self, connection: Incoming, peer: NodeId, reason: str) -> None:
        """Logged once, not at every try."""
        if self._last_refused != (peer, reason):
            self._last_refused = (peer, reason)
            now = asyncio.get_running_loop().time()
            self._refused_peers.note("handshake", reason, connection.address, now, peer=peer)
