"""Who may talk to this node, and what becomes of what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import msgspec

from raftkv.addresses import address_problem
from raftkv.core.messages import AppendEntries, AppendReply
from raftkv.core.roles import Leader
from raftkv.errors import HandshakeRefused, PeerError, PeerRemoved, WrongDataDir
from raftkv.logs import EventLog
from raftkv.model import Index, Membership, NodeId
from raftkv.node.directory import join_cluster
from raftkv.node.identity import Founding
from raftkv.node.met import LOST, Met, doubt_text
from raftkv.node.removal import Hearsay, removed, removed_since
from raftkv.snapshot import SnapshotChunk, SnapshotOffer, SnapshotReply
from raftkv.transport import Refusals
from raftkv.wire import (
    PROTOCOL_VERSION,
    Acquaintance,
    Acquaintances,
    DigestReport,
    DivergedNotice,
    Hello,
    HelloReply,
    PeerMessage,
    Ping,
    Pong,
    Removal,
)

if TYPE_CHECKING:
    from raftkv.node.node import Node

logger = EventLog("raftkv")


LEARNED_MAX = 64
"""Nodes in no membership known here of which something is kept; more than any cluster has."""


class Links:
    """The node as its transport sees it (`TransportHandler`).

    It remembers, on disk, each peer's incarnation: a node that comes back with another data directory has
    forgotten what it acknowledged, and must not count as the one that did (openraft#2002). Nodes tell each other
    whom they have met, so that a new member is not the one who lets it in, and so that two who go by one id are
    found out although nobody has met both.
    """

    def __init__(self, node: Node, founding: Founding, known: dict[NodeId, Acquaintance]) -> None:
        self._node = node
        self._founding = founding
        self._met = Met(node, known)
        self._said: dict[NodeId, str] = {}
        """Where peers themselves say that they listen; only of those that there are links to."""
        self._said_to_clients: dict[NodeId, str] = {}
        """The same, for clients."""
        self._learned: dict[NodeId, str] = {}
        """Addresses of peers that dialled this node before it knew of a membership with them."""
        self._hearsay = Hearsay()
        self._hung_up_on: set[NodeId] = set()
        """Removed nodes whose connections were ended, so that they ask anew and are told."""
        self._doubts = Refusals("peer_doubted")
        self._untold: set[NodeId] = set()
        """Connected peers who have not heard of all of `_met`."""
        self._reported: Index = 0
        self._ticks = 0

    @property
    def cluster_id(self) -> str:
        """The cluster that this node belongs to; empty before it has joined one."""
        return self._founding.cluster_id

    def client_address(self, peer: NodeId) -> str:
        """Where `peer` itself says that it listens for clients; empty when it has said nothing of use."""
        return self._said_to_clients.get(peer, "")

    def incarnation_of(self, peer: NodeId) -> str | None:
        """The data directory that `peer` came with the last time; None when it was never met."""
        known = self._met.known.get(peer)
        return known.incarnation if known is not None else None

    # ------------------------------------------------------------------------------ handshakes

    def hello(self) -> Hello:
        """What this node says of itself."""
        node = self._node
        identity = node.opened.vote.identity
        return Hello(
            version=PROTOCOL_VERSION,
            cluster_id=self.cluster_id,
            node_id=identity.node_id,
            incarnation=identity.incarnation,
            boot=node.opened.vote.boot,
            nonce=node.world.nonce,
            fingerprint=node.machine.fingerprint(),
            lease_reads=node.config.lease_reads,
            durable_index=node.raft.durable_index,
            address=node.options.peer_address,
            known=self._met.known,
            starts=node.opened.starts,
            cluster_name=self._founding.name,
            client_address=node.options.client_address,
        )

    def check_hello(self, hello: Hello) -> asyncio.Future[None] | None:
        """Raises `HandshakeRefused` for who doesn't belong here, with a text that says what to do.

        Returns what has to be awaited before the peer is answered: that it is on disk who it is. A founder that
        was wiped is told from the one that acknowledged something only by that.
        """
        if self._node.failure is not None:
            raise HandshakeRefused(f"node {self._node.options.node_id} has stopped: {self._node.failure}")
        self._check_cluster(hello)
        self._check_settings(hello)
        self._met.check(hello)
        self._check_what_it_has(hello)
        self._check_oneself(hello.known.get(self._node.options.node_id))
        self._learn(hello)
        return self._met.until_durable(hello.node_id)

    def _check_cluster(self, hello: Hello) -> None:
        own, membership = self._node.options.node_id, self._node.raft.membership
        if hello.node_id == own:
            raise HandshakeRefused(f"there is a node {own} already: give each node an id of its own")
        if hello.node_id in membership.removed:
            self._refuse_removed(hello.node_id)
        if hello.cluster_id and self.cluster_id and hello.cluster_id != self.cluster_id:
            raise HandshakeRefused(
                f"node {hello.node_id} belongs to the cluster {hello.cluster_id}, node {own} to {self.cluster_id}: "
                "check the addresses and the data directories"
            )
        if hello.cluster_name and self._founding.name and hello.cluster_name != self._founding.name:
            raise HandshakeRefused(
                f"node {hello.node_id} belongs to a cluster called {hello.cluster_name!r}, node {own} to one called "
                f"{self._founding.name!r}: start the one that is to join with the right --cluster-name"
            )
        if not hello.cluster_id and self.cluster_id and membership.member(hello.node_id) is None:
            raise HandshakeRefused(
                f"node {hello.node_id} is no member of the cluster yet: add it first (raftkv member add)"
            )
        if not hello.cluster_id and not self.cluster_id:
            raise HandshakeRefused(f"neither node {hello.node_id} nor node {own} has joined a cluster")

    def _refuse_removed(self, peer: NodeId) -> NoReturn:
        """It is told that it is certain once it is: a removal that is not committed may be undone."""
        raft = self._node.raft
        text = (
            f"node {peer} was removed from the cluster: to bring it back, empty its data directory "
            "and add it under an id that was never used"
        )
        if (since := removed_since(raft, peer)) is None:
            raise HandshakeRefused(text)
        raise PeerRemoved(text, index=since, term=raft.term, leads=raft.is_leader)

    def on_removed(self, peer: NodeId, removal: Removal) -> None:
        """A peer says that this node was removed; it ends when that is proven."""
        node, raft = self._node, self._node.raft
        proven = self._hearsay.is_proven(
            raft, peer, removal, cluster_id=self.cluster_id, incarnation=self.incarnation_of(peer)
        )
        if proven and node.failure is None:
            node.fail(removed(raft.node_id, removal.index))

    def _check_settings(self, hello: Hello) -> None:
        node = self._node
        theirs, ours = hello.fingerprint.split("/")[0], node.machine.__name__
        if theirs != ours:
            raise HandshakeRefused(f"node {hello.node_id} runs the state machine {theirs}, this cluster runs {ours}")
        if hello.lease_reads != node.config.lease_reads:
            raise HandshakeRefused(
                f"node {hello.node_id} has lease_reads = {hello.lease_reads}, node {node.options.node_id} has "
                f"{node.config.lease_reads}: a lease holds only if all agree"
            )

    def _check_what_it_has(self, hello: Hello) -> None:
        """A leader knows what others have acknowledged to it: who comes back with less of what is committed counts no
        more. So a copy of a running node's directory is found out that takes the node's place."""
        raft, peer = self._node.raft, hello.node_id
        if not isinstance(raft.role, Leader) or (progress := raft.role.progress.get(peer)) is None:
            return
        if self._met.has_lost(hello, min(progress.match_index, raft.commit_index)):
            doubted = msgspec.structs.replace(self._met.known[peer], doubt=LOST)
            self._tell({peer: doubted})
            self._suspect(peer, doubted)
            raise HandshakeRefused(doubt_text(peer, LOST))

    def _check_oneself(self, met: Acquaintance | None) -> None:
        """Stop a wiped founder that stood alone: nobody could refuse it, so it has founded its cluster again."""
        node = self._node
        own, incarnation = node.options.node_id, node.opened.vote.identity.incarnation
        if met is not None and met.incarnation != incarnation and node.raft.membership.voters == (own,):
            error = WrongDataDir(
                f"the other nodes have met node {own} with another data directory: this one has founded the cluster a "
                "second time. Give it its old directory back, or remove it and add it under a new id, with its new "
                "directory emptied and without members"
            )
            node.fail(error)
            raise HandshakeRefused(str(error))

    def _learn(self, hello: Hello) -> None:
        """Keep what the handshake told, and begin to write what must outlive this process."""
        node = self._node
        if not self.cluster_id:
            name = self._founding.name or hello.cluster_name
            self._founding = msgspec.structs.replace(self._founding, cluster_id=hello.cluster_id, name=name)
            # Before the record of the peer, so that whoever waits for that waits for this, too.
            saved = node.world.log_worker.run(
                join_cluster, node.world.disk, node.paths, node.opened.vote, self._founding
            )
            saved.add_done_callback(node.check_background)
            logger.info("cluster_joined", node=node.options.node_id, cluster=hello.cluster_id)
        self._adopt(hello.known)
        known = Acquaintance(hello.incarnation, hello.boot, hello.nonce)
        if self._met.known.get(hello.node_id) != known:
            self._tell({hello.node_id: known})
        peer = hello.node_id
        is_member = node.raft.membership.member(peer) is not None
        if hello.address and not is_member and len(self._learned) < LEARNED_MAX:
            self._learned[peer] = hello.address
            self.set_members(node.memberships)
        if address_problem(hello.address) is None and (is_member or peer in self._learned):
            self._said[peer] = hello.address
            node.transport.hint(peer, hello.address)
            if address_problem(hello.client_address) is None:
                self._said_to_clients[peer] = hello.client_address

    def _adopt(self, met: Mapping[NodeId, Acquaintance]) -> None:
        """Learn whom others have met; who can't be the one that was met here is not heard any more."""
        node = self._node
        passed_over = {node.options.node_id, *node.raft.membership.removed}
        before = self._met.known
        news = self._met.told({peer: their for peer, their in met.items() if peer not in passed_over})
        if not news:
            return
        suspects = [peer for peer in news if peer in before]
        self._tell(news)
        for peer in suspects:
            self._suspect(peer, news[peer])

    def _suspect(self, peer: NodeId, known: Acquaintance) -> None:
        """End the connections with `peer`: each was made before this was known, and the next has to fit to it."""
        node = self._node
        own, address = node.options.node_id, self._address_of(peer)
        reason = doubt_text(peer, known.doubt) if known.doubt else f"others have met a later start of node {peer}"
        node.transport.drop(peer, reason)
        if known.doubt and node.raft.is_leader and peer in node.raft.membership.voters:
            # What it acknowledged in this term must not count either: the next leader asks everybody anew.
            node.raft.step_down()
            node.engine.wake()
        if known.doubt:
            self._doubts.note("doubt", reason, address, asyncio.get_running_loop().time(), node=own, peer=peer)
        else:
            logger.info("peer_outdated", node=own, peer=peer, start=known.boot, later=known.later)

    def _address_of(self, peer: NodeId) -> str:
        link = self._node.transport.links().get(peer)
        return link.address if link is not None else "unknown"

    def _tell(self, news: Mapping[NodeId, Acquaintance]) -> None:
        """Keep what is new, and pass it on.

        Of nodes that are no members only so many are kept: all that is known has to fit into a hello, and a
        stranger may have as many names as it likes.
        """
        node = self._node
        membership = node.raft.membership
        room = LEARNED_MAX - sum(membership.member(peer) is None for peer in self._met.known)
        strangers = [peer for peer in news if peer not in self._met.known and membership.member(peer) is None]
        if dropped := set(strangers[max(0, room) :]):
            news = {peer: their for peer, their in news.items() if peer not in dropped}
        if not news:
            return
        self._met.keep(news)
        for peer, link in node.transport.links().items():
            if link.connected and not node.transport.send(peer, Acquaintances(dict(news))):
                self._untold.add(peer)

    def tell_again(self) -> None:
        """Tell those whose queues were full, or who have just connected, whom this node has met."""
        self._doubts.tick(asyncio.get_running_loop().time())
        if not self._untold:
            return
        transport = self._node.transport
        known = Acquaintances(dict(self._met.known))
        connected = {peer for peer, link in transport.links().items() if link.connected}
        self._untold = {peer for peer in sorted(self._untold & connected) if not transport.send(peer, known)}

    # ------------------------------------------------------------------------------ what arrives

    def on_message(self, sender: NodeId, message: PeerMessage) -> None:
        """A peer's message. Raises `PeerError` for one that no correct peer sends."""
        node = self._node
        if node.failure is not None:
            return
        match message:
            case AppendEntries() | AppendReply() if message.sender == sender and message.to == node.options.node_id:
                node.engine.step(message)  # the first arm, as most messages are these
            case DigestReport():
                node.report(sender, message)
            case Acquaintances():
                self._adopt(message.known)
            case DivergedNotice():
                if sender == node.raft.leader:
                    node.told_diverged(message.index)
            case Hello() | HelloReply() | Ping() | Pong():
                raise PeerError(f"node {sender} sent a {type(message).__name__} in the middle of a connection")
            case _:
                if message.sender != sender or message.to != node.options.node_id:
                    raise PeerError(
                        f"node {sender} sent a {type(message).__name__} from {message.sender} to {message.to}"
                    )
                if isinstance(message, SnapshotOffer | SnapshotChunk | SnapshotReply):
                    node.snapshots.on_message(message)
                else:
                    node.engine.step(message)

    def on_connected(self, peer: NodeId) -> None:
        """There is a way to `peer`. It is told again whom this node has met: it may have met some since its hello."""
        self._untold.add(peer)
        self.tell_again()
        self._node.members_moved()  # it may be met where it says that it is, and clients go by that
        logger.info("peer_connected", node=self._node.options.node_id, peer=peer, address=self._address_of(peer))

    def on_lost(self, peer: NodeId, reason: str) -> None:
        """A connection broke: a hint for the core that the peer's process may have died."""
        node = self._node
        node.digests.forget(peer)
        if node.failure is None:
            # A leader that has much to apply would keep everybody waiting; but this node's vote must not do that.
            lag = node.raft.log.last_index - node.applier.applied_index
            node.raft.peer_lost(peer, campaigns=lag <= node.config.early_campaign_lag_max)
            node.engine.wake()
        if node.raft.membership.member(peer) is not None:  # others come and go as they like, as often as they like
            own, address = node.options.node_id, self._address_of(peer)
            logger.warning("peer_lost", node=own, peer=peer, address=address, reason=reason)

    # ------------------------------------------------------------------------------ what is sent

    def hang_up_on_removed(self) -> None:
        """End the connections of who is no member any more, certainly: when it dials again, it is told."""
        raft = self._node.raft
        gone = set(raft.log.membership_at(max(raft.commit_index, raft.log.start.index)).removed)
        for peer in sorted(gone - self._hung_up_on):
            self._node.transport.drop(peer, "it was removed from the cluster")
        self._hung_up_on = gone

    def set_members(self, memberships: Sequence[Membership]) -> None:
        """Keep links to everybody in `memberships`, newest last, and to those who dialled this node and are in none."""
        own = self._node.options.node_id
        # Oldest last: a member is looked for first where it was before a change that may not be committed.
        members = [member for membership in reversed(memberships) for member in membership.members]
        peers = {member.node_id: member.peer_address for member in members if member.peer_address}
        # A leader that was added while this node was down is not in the memberships that it knows.
        self._learned = {peer: address for peer, address in self._learned.items() if peer not in peers}
        peers |= self._learned
        self._node.transport.set_peers({peer: address for peer, address in peers.items() if peer != own})
        # But after a restart nobody knows what is committed, and when all have moved nobody is where they were.
        for membership in memberships:
            for member in membership.members:
                if member.node_id != own and member.peer_address not in ("", peers.get(member.node_id)):
                    self._node.transport.hint(member.node_id, member.peer_address)
        self._said = {peer: address for peer, address in self._said.items() if peer in peers}
        self._said_to_clients = {peer: where for peer, where in self._said_to_clients.items() if peer in peers}
        for peer, address in self._said.items():
            if address != peers[peer]:
                self._node.transport.hint(peer, address)

    def report_digest(self) -> None:
        """Tell the leader this replica's digest, about once a heartbeat and when it has changed."""
        node = self._node
        self._ticks += 1
        if self._ticks < node.raft.config.heartbeat_ticks:
            return
        applied, leader = node.applier.runner.applied, node.raft.leader
        if leader is None or applied.index == self._reported:
            return
        self._ticks = 0
        self._reported = applied.index
        node.transport.send(leader, DigestReport(applied.index, applied.digest))

    def tell_diverged(self, peer: NodeId, index: Index) -> None:
        """Tell a replica that its state differs from the majority's at `index`."""
        self._node.transport.send(peer, DivergedNotice(index))
