"""Counts states that some rows of the table of faults are about, and that worlds reach by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raftkv.core import clocks
from raftkv.core.roles import Leader
from raftkv.errors import DiskLow
from raftkv.model import Index, Member, NodeId
from raftkv.testing.judging.check import Check

if TYPE_CHECKING:
    from raftkv.client import Client
    from raftkv.node import Node
    from raftkv.testing.world.cluster import SimCluster

OLD_ENTRIES = "old terms' entries wait for a commit"
BEFORE_FIRST_COMMIT = "leader before its first commit"
EARLY_READ = "read before the first commit"
CUT_OFF = "change that is cut off"
JOINT_WITHOUT = "joint membership with a node down"
OVERTAKEN = "log cut behind a snapshot on its way"
DOUBTED = "leader that doubts its clock"
AHEAD = "log time that is ahead"
SEEDS_GONE = "client without its seeds"
HANDED_OVER = "leadership handed over for want of room"
NO_ROOM = "writes refused for want of room"
VOTERS = tuple(f"{count} voters" if count > 1 else "1 voter" for count in range(1, 8))

SIGHTINGS = (
    OLD_ENTRIES,
    BEFORE_FIRST_COMMIT,
    EARLY_READ,
    CUT_OFF,
    JOINT_WITHOUT,
    OVERTAKEN,
    DOUBTED,
    AHEAD,
    SEEDS_GONE,
    HANDED_OVER,
    NO_ROOM,
    *VOTERS,
)


class Sightings(Check):
    """Counts, and demands nothing. Each is counted once for a term, an entry or a membership, not at each look."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._fired: Counter[str] = cluster.fired
        self._seen: set[tuple[object, ...]] = set()
        self._told: list[tuple[Client[Any], tuple[NodeId, ...]]] = []
        self._memberships: dict[tuple[NodeId, int], tuple[Index, Index]] = {}

    def watch(self, client: Client[Any], seeds: Sequence[NodeId]) -> None:
        """Look at a client as well, which was told of these nodes when it was made."""
        self._told.append((client, tuple(seeds)))

    def must_be_served(self) -> list[Client[Any]]:
        """The clients that know of at least one who is a member now, whomever they were told of first."""
        members = {member.client_address for member in self._members()}
        return [client for client, _ in self._told if members & {*client.addresses}]

    def _members(self) -> tuple[Member, ...]:
        leader = self._cluster.leader
        return leader.raft.membership.members if leader is not None else ()

    def _look_at_clients(self) -> None:
        members = {member.node_id for member in self._members()}
        for number, (client, seeds) in enumerate(self._told):
            here = [seed for seed in seeds if seed in members and self._cluster.nodes[seed].is_up]
            if members and not here and client.connected_to is not None:
                self._saw(SEEDS_GONE, number, client.connected_to)

    def look_at(self, node: Node) -> None:
        role = node.raft.role
        if isinstance(role, Leader):
            self._look_at_clients()
            self._look_at_leader(node, role)
        if node.room.handed_over:
            self._saw(HANDED_OVER, node.node_id, node.opened.vote.boot, node.room.handed_over)
        self._look_at_membership(node)

    def _look_at_leader(self, node: Node, role: Leader) -> None:
        raft = node.raft
        if isinstance(node.engine.refuse_writes, DiskLow):
            self._saw(NO_ROOM, raft.term)
        if raft.commit_index < role.term_start:
            self._saw(BEFORE_FIRST_COMMIT, raft.term)
            if raft.commit_index < role.term_start - 1:
                self._saw(OLD_ENTRIES, raft.term)
            if role.reads_waiting:
                self._saw(EARLY_READ, raft.term)
        self._look_at_clock(node, role)
        for peer, progress in role.progress.items():
            if progress.sending is not None and progress.sending.index < raft.log.start.index:
                self._saw(OVERTAKEN, peer, progress.sending.index)

    def _look_at_clock(self, node: Node, role: Leader) -> None:
        raft = node.raft
        if raft.clock_doubts:
            self._saw(DOUBTED, node.node_id, node.opened.vote.boot, raft.clock_doubts)
        if raft.log.last_time_ms - clocks.present_ms(raft, role) > raft.config.clock_ahead_ms_max:
            self._saw(AHEAD, raft.term)

    def _look_at_membership(self, node: Node) -> None:
        log = node.raft.log
        place, now = (node.node_id, node.opened.vote.boot), (log.start.index, log.membership_index)
        before = self._memberships.get(place)
        if now == before:
            return
        self._memberships[place] = now
        if before is not None and before[0] == now[0] and now[1] < before[1]:
            self._saw(CUT_OFF, node.node_id, before[1], node.raft.term)
        membership = log.membership
        if membership.is_joint:
            voters = {*membership.voters, *membership.outgoing}
            down = [voter for voter in voters if voter in self._cluster.nodes and not self._cluster.nodes[voter].is_up]
            if down:
                self._saw(JOINT_WITHOUT, now[1])
        elif 0 < len(membership.voters) <= len(VOTERS):
            self._saw(VOTERS[len(membership.voters) - 1], now[1])

    def _saw(self, kind: str, *what: object) -> None:
        if (kind, *what) not in self._seen:
            self._seen.add((kind, *what))
            self._fired[kind] += 1
