"""The addresses of nodes, from three sources: the membership, an operator's file beside the log, and the nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec

from raftkv.addresses import address_problem, is_elsewhere
from raftkv.errors import ChangeRefused
from raftkv.logs import EventLog
from raftkv.model import Member, Membership, NodeId
from raftkv.node.body import Body
from raftkv.node.peers.moved import Moved, placed
from raftkv.wire import Hello, Members

logger = EventLog(__name__)

STRANGERS_MAX = 64
"""How many strangers (nodes in no membership known here) are remembered; more than any cluster has members."""


class _Said(msgspec.Struct, frozen=True):
    """Where a peer listens, by its own word."""

    peer_address: str
    client_address: str
    """Empty when it has named no address that can be dialled."""


class Places:
    """Decides which addresses this node uses for each member, itself included, and keeps links to them."""

    def __init__(self, body: Body, moved: Moved | None) -> None:
        """`moved`: what an operator has written beside the log; it counts until a newer membership is committed."""
        self._body = body
        self._moved = moved
        self._said: dict[NodeId, _Said] = {}
        """Only of peers that this node keeps a link to."""
        self._strangers: dict[NodeId, str] = {}
        """Addresses of peers that dialled this node, and are in no membership that it knows."""
        self._changed: Callable[[], None] = lambda: None
        self.misplaced = ""
        """A text on where this node listens, if the membership sends others elsewhere; empty when the two agree."""

    @property
    def has_moved(self) -> bool:
        """Whether an operator's addresses count that are not in the log yet."""
        return self._moved is not None

    @property
    def leader(self) -> Member | None:
        """The leader as far as this node knows, with its addresses."""
        leader = self._body.raft.leader
        if leader is None:
            return None
        return self.member(leader) or Member(leader)

    def member(self, node_id: NodeId) -> Member | None:
        """The addresses that this node uses for `node_id`; None when that is no member."""
        return self._placed(self._body.raft.membership).member(node_id)

    def _placed(self, membership: Membership) -> Membership:
        return placed(membership, self._moved)

    def for_clients(self) -> Members:
        """Where the members listen for clients, as far as this node knows what is committed."""
        raft = self._body.raft
        index, membership = raft.committed_membership
        members = self._placed(membership).members
        addresses = [member.client_address for member in members if member.client_address]
        # A node that has moved may lead before the membership has its new address; clients must find it all the same.
        addresses += [where for member in members if (where := self._has_moved_to(member))]
        return Members(index, tuple(dict.fromkeys(addresses)))

    def _has_moved_to(self, member: Member) -> str:
        """The client address that a member gives itself, if this node reaches it elsewhere than the membership says.

        A member that is reached where it should be may stand behind a proxy, which clients must not go round.
        """
        link = self._body.transport.links().get(member.node_id)
        if link is None or not link.connected or link.address == member.peer_address:
            return ""
        said = self._said.get(member.node_id)
        return said.client_address if said is not None else ""

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called when the result of `for_clients` may be another. There is one watcher at most."""
        self._changed = changed

    def tell_clients(self) -> None:
        """A member may be reached at another address now: tell the clients of this node."""
        self._changed()

    def learn(self, hello: Hello) -> None:
        """Remember where a peer that was let in says that it listens, and dial it there as well."""
        body, peer = self._body, hello.node_id
        is_member = body.raft.membership.member(peer) is not None
        if hello.address and not is_member and len(self._strangers) < STRANGERS_MAX:
            self._strangers[peer] = hello.address
            self.keep_links()
        if address_problem(hello.address) is None and (is_member or peer in self._strangers):
            body.transport.hint(peer, hello.address)
            before = self._said.get(peer)
            told = address_problem(hello.client_address) is None
            client_address = hello.client_address if told else before.client_address if before is not None else ""
            self._said[peer] = _Said(hello.address, client_address)

    def keep_links(self) -> None:
        """Keep links to all members by the committed membership and by every newer one, and to strangers that dialled
        this node."""
        raft, transport, own = self._body.raft, self._body.transport, self._body.node_id
        memberships = [self._placed(each) for each in raft.log.memberships_since(raft.commit_index)]
        # Oldest last: a member is looked for first where it was before a change that may not be committed.
        members = [member for membership in reversed(memberships) for member in membership.members]
        peers = {member.node_id: member.peer_address for member in members if member.peer_address}
        # A leader that was added while this node was down is not in the memberships that it knows.
        self._strangers = {peer: address for peer, address in self._strangers.items() if peer not in peers}
        peers |= self._strangers
        transport.set_peers({peer: address for peer, address in peers.items() if peer != own})
        # But after a restart this node does not know what is committed, and its peers may all have moved since then.
        for membership in memberships:
            for member in membership.members:
                if member.node_id != own and member.peer_address not in ("", peers.get(member.node_id)):
                    transport.hint(member.node_id, member.peer_address)
        self._said = {peer: said for peer, said in self._said.items() if peer in peers}
        for peer, said in self._said.items():
            if said.peer_address != peers[peer]:
                transport.hint(peer, said.peer_address)

    def membership_changed(self) -> None:
        """Another membership is in force, or is committed."""
        self._maybe_forget_moved()
        self.keep_links()

    def _maybe_forget_moved(self) -> None:
        """Remove the operator's addresses once a newer membership is committed."""
        body, raft, said = self._body, self._body.raft, self._moved
        if said is None or raft.committed_membership[0] <= said.index:
            return
        self._moved = None
        removed = body.world.background_worker.run(body.world.disk.remove, body.paths.addresses)
        removed.add_done_callback(body.check_background)
        logger.info("addresses_in_the_log", node=raft.node_id, index=raft.log.membership_index)

    def maybe_write_moved(self) -> None:
        """As a leader, write the operator's addresses into the log as soon as the last change is committed."""
        raft = self._body.raft
        if self._moved is None or not raft.is_leader or raft.log.membership_index > raft.commit_index:
            return
        target = self._placed(raft.membership)
        if target != raft.membership:
            with contextlib.suppress(ChangeRefused):  # tried again soon
                raft.change_membership(target)
                self._body.wake()

    def compare_own(self) -> None:
        """Warn when the membership sends others to an address where this node does not listen."""
        options, member = self._body.options, self.member(self._body.node_id)
        found = []
        if member is not None:
            for what, listens, told in (
                ("nodes", options.peer_address, member.peer_address),
                ("clients", options.client_address, member.client_address),
            ):
                if is_elsewhere(listens, told):
                    found.append(f"listens for {what} at {listens}, but the membership sends them to {told}")
        misplaced = " and ".join(found)
        if misplaced != self.misplaced:
            self.misplaced = misplaced
            if misplaced:
                logger.warning("misplaced", node=options.node_id, reason=misplaced)
