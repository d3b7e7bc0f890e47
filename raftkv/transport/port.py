"""The port between a node and its peers: what a node may ask of a network, and what it hears from it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

import msgspec

from raftkv.model import NodeId
from raftkv.transport.reasons import Unreached
from raftkv.transport.tls import CertificateStatus
from raftkv.wire import Hello, PeerMessage, Removal


class LinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The way to one peer, as an operator sees it."""

    connected: bool
    """Whether what is sent now has a connection to leave on."""
    address: str
    rtt_ms: float | None
    """Of the newest answered ping; None while there is none."""
    queued_bytes: int
    refused: str | None
    """Why the last handshake was refused, by whichever side; None once one was not."""
    dropped: int
    """Messages that found the queue full, since the link was made."""
    unreached: Unreached | None = None
    """Why the peer is not reached; None while it is, and before the first try has ended."""
    refused_here: bool = False
    """Whether it was this node that refused, and not the peer."""


class TransportStats(msgspec.Struct):
    """What a transport has seen since it was made; these only go up."""

    frames_sent: int = 0
    frames_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    garbage_closed: int = 0
    """Connections closed because of what they said: damaged, too long, or no message for this place."""
    handshake_refused: int = 0
    """Handshakes that this node refused, or was refused."""
    slow_closed: int = 0
    """Connections closed because of what they didn't say in time: handshake, ping or pong."""
    strangers_refused: int = 0
    """Connections closed at once because too many were in their handshake."""
    dropped: int = 0
    """Messages that found a queue full."""


class TransportHandler(Protocol):
    """Who hears of what happens between this node and its peers. Everything is called on the loop's thread.

    `on_connected` and `on_lost` are hints, not proofs: a peer that is lost may live, and the other way round.
    """

    def on_message(self, sender: NodeId, message: PeerMessage) -> None:
        """A message has arrived. A `PeerError` closes the connection that it came on."""

    def on_connected(self, peer: NodeId) -> None:
        """Messages to `peer` have a way to leave on; what was sent before may be lost."""

    def on_lost(self, peer: NodeId, reason: str) -> None:
        """A connection to or from `peer` broke: called at once, and once for both when its process died.

        Not called for what this side closes itself (`set_peers`, `close`), nor when the peer merely
        replaces its connection. The other direction may be whole, and is not closed.
        """

    def on_removed(self, peer: NodeId, removal: Removal) -> None:
        """Who was dialled as `peer` says that this node is no member any more; to be believed or not."""

    def hello(self) -> Hello:
        """What this node says of itself, asked for at every handshake."""

    def check_hello(self, hello: Hello) -> asyncio.Future[None] | None:
        """Raises `HandshakeRefused` for who doesn't belong here, with a text that says what to do; `PeerRemoved` for
        who certainly does not any more, so that it is told.

        The version and the id of who was dialled are checked already. A future that is returned is waited for, and
        then this is asked again; until None comes, the handshake does not end, and nothing that the peer says
        arrives. One that is cancelled ends the connection.
        """


class Transport(ABC):
    """Carries messages between nodes, each link in order, none more than once, some never.

    What has been taken by `send` is lost when the connection breaks; it never arrives later over
    another one. All methods are called on the event loop's thread.
    """

    stats: TransportStats

    @abstractmethod
    async def listen(self) -> str:
        """Take the address, so that it is nobody else's; who dials it before `start` is turned away at once.

        Returns it, with the port that was chosen when 0 was asked for. Raises `ConfigError` when it can't be had.
        Nothing happens when it listens already.
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
        """Let what is sent pile up until `uncork`, which follows without anything being awaited."""

    @abstractmethod
    def uncork(self) -> None:
        """Send what has piled up, in one write for each connection. Harmless when there was no `cork`."""

    @abstractmethod
    def queued_bytes(self, to: NodeId) -> int:
        """Bytes that wait to leave for `to`; never above twice `peer_frame_bytes_max`, and a little for pings."""

    @abstractmethod
    def set_peers(self, peers: Mapping[NodeId, str]) -> None:
        """Keep links to exactly these nodes, at these addresses; this node's own id is passed over.

        Links to others are closed at once with what is queued. Who may dial *this* node is up to `check_hello`.
        """

    @abstractmethod
    def hint(self, peer: NodeId, address: str) -> None:
        """`peer` may listen at `address`: dial that, in turn with what `set_peers` says, where that fails."""

    @abstractmethod
    async def ask(self, address: str, frame: bytes) -> bytes | None:
        """The first frame that whoever listens at `address` sends back for `frame`, or None within a second or so."""

    @abstractmethod
    def drop(self, peer: NodeId, reason: str) -> None:
        """End every connection to and from `peer`, with what is queued; nothing that it has sent arrives any more.

        The handler is told that the peer is lost, and a link to it is dialled anew: `check_hello` decides.
        """

    @abstractmethod
    def links(self) -> dict[NodeId, LinkStatus]:
        """The state of the link to every peer, by id in ascending order."""

    def certificates(self) -> list[CertificateStatus]:
        """The certificates that links rely on; empty when they are not encrypted, or somebody else sees to that."""
        return []

    @abstractmethod
    async def close(self) -> None:
        """Stop listening and break every connection; what is queued is lost, and nothing is reported any more."""

    @abstractmethod
    def abort(self) -> None:
        """`close` without waiting for connections to be gone: nothing is said or reported from now on."""
