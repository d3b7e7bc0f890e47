"""Nodes tell each other which peers they have met, to find those that can't be who they say they are.

Without that, a new member might accept a peer that all others would refuse. And if two nodes use one id, nobody might
ever meet both and compare them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from raftkv.core.roles import Leader
from raftkv.errors import HandshakeRefused, WrongDataDir
from raftkv.logs import EventLog
from raftkv.model import NodeId
from raftkv.node.body import Body
from raftkv.node.peers.met import LOST, Met, doubt_text
from raftkv.node.peers.places import STRANGERS_MAX
from raftkv.transport import Refusals
from raftkv.wire import Acquaintance, Acquaintances, Hello

logger = EventLog(__name__)


class Gossip:
    """Tells others what is new in `Met`, takes in what they tell, and disconnects peers that this puts in doubt."""

    def __init__(self, body: Body, met: Met, incarnation: str) -> None:
        """`incarnation` is the number of this node's own data directory."""
        self._body = body
        self._met = met
        self._incarnation = incarnation
        self._doubts = Refusals("peer_doubted")
        self._untold: set[NodeId] = set()
        """Connected peers that have not been told all of `Met`."""

    def met_here(self, hello: Hello) -> None:
        """A peer was let in. Its hello says which peers it has met itself."""
        self.hear(hello.known)
        known = Acquaintance(hello.incarnation, hello.boot, hello.nonce)
        if self._met.known.get(hello.node_id) != known:
            self._tell({hello.node_id: known})

    def hear(self, met: Mapping[NodeId, Acquaintance]) -> None:
        """Take in what another node has met, and disconnect each peer that can't be the one that was met here."""
        passed_over = {self._body.node_id, *self._body.raft.membership.removed}
        before = self._met.known
        news = self._met.told({peer: their for peer, their in met.items() if peer not in passed_over})
        if not news:
            return
        suspects = [peer for peer in news if peer in before]
        self._tell(news)
        for peer in suspects:
            self._suspect(peer, news[peer])

    def check_what_it_has(self, hello: Hello) -> None:
        """Refuse a peer that has lost committed entries which it had acknowledged to this leader.

        This finds an old copy of a running node's directory that was started in the node's place.
        Raises `HandshakeRefused`.
        """
        raft, peer = self._body.raft, hello.node_id
        if not isinstance(raft.role, Leader) or (progress := raft.role.progress.get(peer)) is None:
            return
        if self._met.has_lost(hello, min(progress.match_index, raft.commit_index)):
            doubted = msgspec.structs.replace(self._met.known[peer], doubt=LOST)
            self._tell({peer: doubted})
            self._suspect(peer, doubted)
            raise HandshakeRefused(doubt_text(peer, LOST))

    def check_oneself(self, met: Acquaintance | None) -> None:
        """Stop this node if it was wiped and has founded its cluster again, which a sole voter can do unrefused.

        Others that have met the first directory bring this to light. Raises `HandshakeRefused`.
        """
        own = self._body.node_id
        if met is not None and met.incarnation != self._incarnation and self._body.raft.membership.voters == (own,):
            error = WrongDataDir(
                f"the other nodes have met node {own} with another data directory: this one has founded the cluster a "
                "second time. Give it its old directory back, or remove it and add it under a new id, with its new "
                "directory emptied and without members"
            )
            self._body.fail(error)
            raise HandshakeRefused(str(error))

    def _suspect(self, peer: NodeId, known: Acquaintance) -> None:
        """Disconnect `peer`: it was let in before this was known, and its next handshake is checked against it."""
        body, raft = self._body, self._body.raft
        address = body.address_of(peer)
        reason = doubt_text(peer, known.doubt) if known.doubt else f"others have met a later start of node {peer}"
        body.transport.drop(peer, reason)
        if known.doubt and raft.is_leader and peer in raft.membership.voters:
            # What the peer acknowledged in this term must not count either: the next leader asks all nodes again.
            raft.step_down()
            body.wake()
        if known.doubt:
            now = asyncio.get_running_loop().time()
            self._doubts.note("doubt", reason, address, now, node=body.node_id, peer=peer)
        else:
            logger.info("peer_outdated", node=body.node_id, peer=peer, start=known.boot, later=known.later)

    def _tell(self, news: Mapping[NodeId, Acquaintance]) -> None:
        """Keep what is new, and tell it to all connected peers.

        At most `STRANGERS_MAX` nodes that are no members are kept: all records have to fit into one hello, and a
        stranger can come under any number of ids.
        """
        transport, membership = self._body.transport, self._body.raft.membership
        room = STRANGERS_MAX - sum(membership.member(peer) is None for peer in self._met.known)
        strangers = [peer for peer in news if peer not in self._met.known and membership.member(peer) is None]
        if dropped := set(strangers[max(0, room) :]):
            news = {peer: their for peer, their in news.items() if peer not in dropped}
        if not news:
            return
        self._met.keep(news)
        for peer, link in transport.links().items():
            if link.connected and not transport.send(peer, Acquaintances(dict(news))):
                self._untold.add(peer)

    def connected(self, peer: NodeId) -> None:
        """Tell `peer`, which has just connected, what this node has met since it wrote its hello."""
        self._untold.add(peer)
        self.tell_again()

    def tell_again(self) -> None:
        """Tell the peers that have just connected, and those whose queues were full the last time."""
        self._doubts.tick(asyncio.get_running_loop().time())
        if not self._untold:
            return
        transport = self._body.transport
        known = Acquaintances(dict(self._met.known))
        connected = {peer for peer, link in transport.links().items() if link.connected}
        self._untold = {peer for peer in sorted(self._untold & connected) if not transport.send(peer, known)}
