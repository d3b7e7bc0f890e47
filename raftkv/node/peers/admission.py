"""Handshakes: what this node says of itself, and which peers it lets in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

from raftkv.access import Access
from raftkv.errors import HandshakeRefused, PeerRemoved
from raftkv.log import VoteFile
from raftkv.machine import Active, StateMachine, encode_schema
from raftkv.model import NodeId
from raftkv.node.body import Body
from raftkv.node.peers.belonging import Belonging
from raftkv.node.peers.gossip import Gossip
from raftkv.node.peers.met import Met
from raftkv.node.peers.places import Places
from raftkv.node.peers.removal import Hearsay, removed, removed_since
from raftkv.node.peers.told import Told, check_versions
from raftkv.wire import PROTOCOL_VERSION, Hello, Removal


class Admission:
    """Refuses a peer that is of another cluster, was removed, runs another state machine, or comes back with other
    files than before. A node with another data directory has forgotten what it acknowledged, and must not count as the
    one that did (openraft#2002)."""

    def __init__(
        self,
        body: Body,
        machine: type[StateMachine],
        vote: VoteFile,
        starts: list[tuple[int, str]],
        *,
        active: Callable[[], Active],
        access: Callable[[], Access],
        belonging: Belonging,
        met: Met,
        gossip: Gossip,
        places: Places,
    ) -> None:
        self._body = body
        self._machine = machine
        self._vote = vote
        self._starts = starts
        self._active = active
        self._access = access
        self._belonging = belonging
        self._met = met
        self._gossip = gossip
        self._places = places
        self._hearsay = Hearsay()
        self.told: dict[NodeId, Told] = {}
        """Which versions of the application those who were let in can run."""
        self._hung_up_on: set[NodeId] = set()
        """Removed nodes that were disconnected; when they dial again, they are told that they were removed."""

    def hello(self) -> Hello:
        """What this node sends first on each connection to a peer."""
        body, identity = self._body, self._vote.identity
        return Hello(
            version=PROTOCOL_VERSION,
            cluster_id=self._belonging.cluster_id,
            node_id=identity.node_id,
            incarnation=identity.incarnation,
            boot=self._vote.boot,
            nonce=body.world.nonce,
            fingerprint=self._machine.fingerprint(),
            lease_reads=body.config.lease_reads,
            durable_index=body.raft.durable_index,
            address=body.options.peer_address,
            known=self._met.known,
            starts=self._starts,
            cluster_name=self._belonging.cluster_name,
            client_address=body.options.client_address,
            oldest=self._machine.oldest_version,
            newest=self._machine.version,
            active=self._active_version(),
            declared=encode_schema(self._machine.schema()),
            knows_users=True,
        )

    def _active_version(self) -> int:
        kept = self._active().kept
        return 0 if kept is None else kept.version

    def check(self, hello: Hello) -> asyncio.Future[None] | None:
        """Let the peer in, or raise `HandshakeRefused` with a text that says what to do.

        The returned future is done when the peer's record is on disk; the peer must not be answered before. Only this
        record can show later that a founder was wiped after it had acknowledged something.
        """
        if self._body.failure is not None:
            raise HandshakeRefused(f"node {self._body.node_id} has stopped: {self._body.failure}")
        self._check_cluster(hello)
        self._check_settings(hello)
        told = check_versions(self._machine, self._active_version(), hello, self._body.node_id)
        self._met.check(hello)
        self._gossip.check_what_it_has(hello)
        self._gossip.check_oneself(hello.known.get(self._body.node_id))
        self._let_in(hello)
        self.told[hello.node_id] = told
        return self._met.until_durable(hello.node_id)

    def _check_cluster(self, hello: Hello) -> None:
        own, membership, belonging = self._body.node_id, self._body.raft.membership, self._belonging
        if hello.node_id == own:
            raise HandshakeRefused(f"there is a node {own} already: give each node an id of its own")
        # First of all: who is removed from one cluster may well be a member of the one that it was recovered from, and
        # must not believe to be removed from that.
        if hello.cluster_id and belonging.cluster_id and hello.cluster_id != belonging.cluster_id:
            raise HandshakeRefused(
                f"node {hello.node_id} belongs to the cluster {hello.cluster_id}, node {own} to "
                f"{belonging.cluster_id}: check the addresses and the data directories"
            )
        if hello.node_id in membership.removed:
            self._refuse_removed(hello.node_id)
        if hello.cluster_name and belonging.cluster_name and hello.cluster_name != belonging.cluster_name:
            raise HandshakeRefused(
                f"node {hello.node_id} belongs to a cluster called {hello.cluster_name!r}, node {own} to one called "
                f"{belonging.cluster_name!r}: start the one that is to join with the right --cluster-name"
            )
        if not hello.cluster_id and belonging.cluster_id and membership.member(hello.node_id) is None:
            raise HandshakeRefused(
                f"node {hello.node_id} is no member of the cluster yet: add it first (raftkv member add)"
            )
        if not hello.cluster_id and not belonging.cluster_id:
            raise HandshakeRefused(f"neither node {hello.node_id} nor node {own} has joined a cluster")

    def _refuse_removed(self, peer: NodeId) -> NoReturn:
        """Raises `PeerRemoved` once the removal is committed; until then it may be undone, so `HandshakeRefused`."""
        raft = self._body.raft
        text = (
            f"node {peer} was removed from the cluster: to bring it back, empty its data directory "
            "and add it under an id that was never used"
        )
        if (since := removed_since(raft, peer)) is None:
            raise HandshakeRefused(text)
        raise PeerRemoved(text, index=since, term=raft.term, leads=raft.is_leader)

    def hang_up_on_removed(self) -> None:
        """Disconnect the nodes whose removal is committed: when they dial again, they are told about it."""
        gone = set(self._body.raft.committed_membership[1].removed)
        for peer in sorted(gone - self._hung_up_on):
            self._body.transport.drop(peer, "it was removed from the cluster")
        self._hung_up_on = gone

    def told_removed(self, peer: NodeId, removal: Removal) -> None:
        """A peer says that this node was removed. The node stops when that is proven (see `removal`)."""
        body = self._body
        cluster_id, incarnation = self._belonging.cluster_id, self._met.incarnation_of(peer)
        proven = self._hearsay.is_proven(body.raft, peer, removal, cluster_id=cluster_id, incarnation=incarnation)
        if proven and body.failure is None:
            body.fail(removed(body.node_id, removal.index))

    def _check_settings(self, hello: Hello) -> None:
        theirs, ours = hello.fingerprint.split("/")[0], self._machine.__name__
        if theirs != ours:
            raise HandshakeRefused(f"node {hello.node_id} runs the state machine {theirs}, this cluster runs {ours}")
        if self._access().generation and not hello.knows_users:
            raise HandshakeRefused(
                f"node {hello.node_id} runs an older raftkv, which knows of no users, and lets everybody in: "
                "start this one there"
            )
        lease_reads = self._body.config.lease_reads
        if hello.lease_reads != lease_reads:
            raise HandshakeRefused(
                f"node {hello.node_id} has lease_reads = {hello.lease_reads}, node {self._body.node_id} has "
                f"{lease_reads}: a lease holds only if all agree"
            )

    def _let_in(self, hello: Hello) -> None:
        """Remember what the hello says, and begin to write to disk what must survive a crash."""
        if not self._belonging.cluster_id:
            # Written before the peer's record, so a handshake that waits for the record waits for this as well.
            self._belonging.join(hello.cluster_id, hello.cluster_name, self._body.check_background)
        self._gossip.met_here(hello)
        self._places.learn(hello)
