"""The node as its transport sees it: hands each peer's message to the part that it is for."""

from __future__ import annotations

import asyncio

from raftkv.core.messages import AppendEntries, AppendReply, ReadIndex
from raftkv.errors import PeerError
from raftkv.logs import EventLog
from raftkv.model import NodeId
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.divergence import Divergence
from raftkv.node.engine import Engine
from raftkv.node.peers.peers import Peers
from raftkv.node.snapshots import Snapshotter
from raftkv.snapshot import SnapshotChunk, SnapshotOffer, SnapshotReply
from raftkv.wire import (
    Acquaintances,
    Challenge,
    DigestReport,
    DigestRequest,
    DivergedNotice,
    Hello,
    HelloReply,
    NoAgreementNotice,
    PeerMessage,
    Ping,
    Pong,
    Proven,
    Removal,
)

logger = EventLog(__name__)


class Links:
    """The `TransportHandler` of a node."""

    def __init__(
        self,
        body: Body,
        engine: Engine,
        applier: Applier,
        peers: Peers,
        divergence: Divergence,
        snapshots: Snapshotter,
    ) -> None:
        self._body = body
        self._engine = engine
        self._applier = applier
        self._peers = peers
        self._divergence = divergence
        self._snapshots = snapshots

    def hello(self) -> Hello:
        """What this node says of itself."""
        return self._peers.admission.hello()

    def check_hello(self, hello: Hello) -> asyncio.Future[None] | None:
        """Raises `HandshakeRefused` for a peer that is not let in; see `Admission.check`."""
        return self._peers.admission.check(hello)

    def on_message(self, sender: NodeId, message: PeerMessage) -> None:
        """A peer's message. Raises `PeerError` for one that no correct peer sends."""
        if self._body.failure is not None:
            return
        match message:
            case AppendEntries() | AppendReply() if message.sender == sender and message.to == self._body.node_id:
                self._engine.step(message)  # the first arm, as most messages are these
            case ReadIndex() if message.sender == sender and self._divergence.refuses(sender, message):
                pass  # it is told so
            case DigestReport():
                self._divergence.on_report(sender, message)
            case Acquaintances():
                self._peers.gossip.hear(message.known)
            case DigestRequest():
                self._divergence.on_request(sender, message)
            case DivergedNotice():
                if sender == self._body.raft.leader:
                    self._divergence.told(message.index)
            case NoAgreementNotice():
                if sender == self._body.raft.leader:
                    self._divergence.told_all(message)
            case Hello() | HelloReply() | Challenge() | Proven() | Ping() | Pong():
                raise PeerError(f"node {sender} sent a {type(message).__name__} in the middle of a connection")
            case _:
                if message.sender != sender or message.to != self._body.node_id:
                    raise PeerError(
                        f"node {sender} sent a {type(message).__name__} from {message.sender} to {message.to}"
                    )
                if isinstance(message, SnapshotOffer | SnapshotChunk | SnapshotReply):
                    self._snapshots.on_message(message)
                else:
                    self._engine.step(message)

    def on_connected(self, peer: NodeId) -> None:
        """A connection to `peer` is up. Tell it again what this node has met: that may be more than the hello said."""
        self._peers.gossip.connected(peer)
        self._peers.places.tell_clients()  # it may have been reached elsewhere than the membership says
        logger.info("peer_connected", node=self._body.node_id, peer=peer, address=self._body.address_of(peer))

    def on_lost(self, peer: NodeId, reason: str) -> None:
        """A connection broke. For the core that is a hint that the peer's process may have died."""
        body, raft = self._body, self._body.raft
        self._divergence.forget(peer)
        if body.failure is None:
            # A new leader that has much to apply would keep clients waiting, so such a node votes but doesn't campaign.
            lag = raft.log.last_index - self._applier.applied_index
            raft.peer_lost(peer, campaigns=lag <= body.config.early_campaign_lag_max)
            body.wake()
        if raft.membership.member(peer) is not None:  # others come and go as they like, as often as they like
            logger.warning("peer_lost", node=body.node_id, peer=peer, address=body.address_of(peer), reason=reason)

    def on_removed(self, peer: NodeId, removal: Removal) -> None:
        """A peer says that this node was removed. The node stops when that is proven."""
        self._peers.admission.told_removed(peer, removal)
