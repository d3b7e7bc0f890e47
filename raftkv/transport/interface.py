"""The interface between a node and the network: what a node may ask of it, and what the node hears from it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

import msgspec

from raftkv.durations import Durations
from raftkv.errors import HandshakeRefused, WrongSecret
from raftkv.model import NodeId
from raftkv.transport.reasons import Unreached
from raftkv.transport.tls import CertificateStatus
from raftkv.wire import Hello, PeerMessage, Removal


class PeerTraffic(msgspec.Struct):
    """What went to and fro between this node and a peer since the link was made, over all connections."""

    sent_bytes: int = 0
    received_bytes: int = 0
    """On the connection that the peer has dialled; the other one carries pongs only."""
    round_trips: Durations = msgspec.field(default_factory=Durations)
    """Of pings; they wait behind what is queued."""


class LinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the way to one peer, for operators."""

    connected: bool
    """Whether there is a connection on which messages can leave now."""
    address: str
    rtt_ms: float | None
    """Round-trip time of the newest answered ping; None while there is none."""
    queued_bytes: int
    refused: str | None
    """Why the last handshake was refused, by either side; None once one has succeeded."""
    dropped: int
    """Messages that found the queue full, since the link was made."""
    unreached: Unreached | None = None
    """Why the peer is not reached; None while it is, and before the first try has ended."""
    refused_here: bool = False
    """Whether it was this node that refused, and not the peer."""
    traffic: PeerTraffic | None = None
    """Counted on; None where nobody counts."""


class TransportStats(msgspec.Struct):
    """Counts since the transport was made; they only go up."""

    frames_sent: int = 0
    frames_received: int = 0
    garbage_closed: int = 0
    """Connections closed because of what the other side sent: damaged, too long, or no message for this place."""
    handshake_refused: int = 0
    """Handshakes that this node or the other side refused."""
    secrets_refused: int = 0
    """Those that this node refused as the other side did not prove to know the cluster secret."""
    secret_refused_at: float | None = None
    """When the last one was, by the loop's clock; None for never."""
    slow_closed: int = 0
    """Connections closed because a handshake, ping or pong did not come in time."""
    strangers_refused: int = 0
    """Connections closed because too many were in their handshake: the oldest of them, or else the newest."""
    dropped: int = 0
    """Messages that found a queue full."""

    def refused_handshake(self, why: HandshakeRefused, now: float) -> None:
        """Count a handshake that ended for this reason, at this time of the loop."""
        self.handshake_refused += 1
        if isinstance(why, WrongSecret):
            self.secrets_refused += 1
            self.secret_refused_at = now


class TransportHandler(Protocol):
    """Hears what happens between this node and its peers. Everything is called on the loop's thread.

    `on_connected` and `on_lost` are hints, not proofs: a peer that is lost may live, and a connected one be dead.
    """

    def on_message(self, sender: NodeId, message: PeerMessage) -> None:
        """A message has arrived. A `PeerError` closes the connection that it came on."""

    def on_connected(self, peer: NodeId) -> None:
        """There is a connection for messages to `peer`; messages sent before may be lost."""

    def on_lost(self, peer: NodeId, reason: str) -> None:
        """A connection to or from `peer` broke: called at once, and once for both when its process died.

        Not called for connections that this side closes itself (`set_peers`, `close`), nor when the peer merely
        replaces its connection. The connection in the other direction may be whole, and is not closed.
        """

    def on_removed(self, peer: NodeId, removal: Removal) -> None:
        """The node dialled as `peer` says that this node is no member any more; the handler may not believe it."""

    def hello(self) -> Hello:
        """What this node says of itself, asked for at every handshake."""

    def check_hello(self, hello: Hello) -> asyncio.Future[None] | None:
        """Raises `HandshakeRefused` for a node that doesn't belong here, with a text that says what to do;
        `PeerRemoved` for one that certainly was removed, so that it is told.

        The version and, of a node that was dialled, the id are checked already. When a future is returned, the
        transport waits for it and calls this again; until None comes, the handshake does not end, and no message of
        the peer arrives. A cancelled future ends the connection.
        """


class Transport(ABC):
    """Carries messages between nodes: on each link in order, none more than once, some never.

    Messages that `send` has taken are lost when the connection breaks; they never arrive later over another one. All
    methods are called on the event loop's thread.
    """

    stats: TransportStats

    @abstractmethod
    async def listen(self) -> str:
        """Take the address, so that nothing else gets it; until `start`, connections are turned away at once.

        Returns the address; for port 0, with the port that the system chose. Raises `ConfigError` when it can't be
        had. Nothing happens when it listens already.
        """

    @abstractmethod
    async def start(self, handler: TransportHandler) -> None:
        """`listen`, and report to `handler` from now on. Raises `ConfigError` when the address can't be had."""

    @abstractmethod
    def send(self, to: NodeId, message: PeerMessage) -> bool:
        """Queue a message and return at once; False when it is dropped: no connection, or the queue is full.

        The message is encoded before this returns, so the caller may change it.
        """

    @abstractmethod
    def cork(self) -> None:
        """Let sent messages pile up until `uncork`, which must be called in the same turn of the loop."""

    @abstractmethod
    def uncork(self) -> None:
        """Send what has piled up, with one write for each connection. Harmless without a `cork`."""

    @abstractmethod
    def queued_bytes(self, to: NodeId) -> int:
        """Bytes that wait to leave for `to`; never above twice `peer_frame_bytes_max`, and a little for pings."""

    @abstractmethod
    def set_peers(self, peers: Mapping[NodeId, str]) -> None:
        """Keep links to exactly these nodes, at these addresses; this node's own id is ignored.

        Links to other nodes are closed at once, and what is queued for them is lost. `check_hello` decides which nodes
        may dial *this* one.
        """

    @abstractmethod
    def hint(self, peer: NodeId, address: str) -> None:
        """`peer` may listen at `address`: when dialling fails, try it in turn with the address of `set_peers`."""

    @abstractmethod
    async def ask(self, address: str, frame: bytes) -> bytes | None:
        """The first frame that `address` sends back for `frame`; None when none comes within a second or so."""

    @abstractmethod
    def drop(self, peer: NodeId, reason: str) -> None:
        """End every connection to and from `peer`: what is queued is lost, and nothing that it has sent still arrives.

        The handler is told that the peer is lost, and a link to it is dialled anew: `check_hello` decides.
        """

    @abstractmethod
    def links(self) -> dict[NodeId, LinkStatus]:
        """The state of the link to every peer, by id in ascending order."""

    def certificates(self) -> list[CertificateStatus]:
        """The certificates that links rely on; empty without encryption, or when others look after them."""
        return []

    def secret_marks(self) -> tuple[str, ...]:
        """By what the cluster secrets in use are told apart: of the one that is proven first; empty without one."""
        return ()

    def secret_not_taken(self) -> str:
        """Why the present file of the cluster secret is not in use; empty when it is, and without one."""
        return ""

    @abstractmethod
    async def close(self) -> None:
        """Stop listening and break every connection; what is queued is lost, and the handler hears nothing any more."""

    @abstractmethod
    def abort(self) -> None:
        """Like `close`, without waiting until connections are gone: nothing is sent or reported from now on."""
