"""What worlds come to by themselves: states that some rows of the table of faults are about, each counted when seen."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from raftkv.core import clocks
from raftkv.core.roles import Leader
from raftkv.model import Index, NodeId
from raftkv.testing.checks import Check

if TYPE_CHECKING:
    from raftkv.node import Node
    from raftkv.testing.cluster import SimCluster

OLD_ENTRIES = "old terms' entries wait for a commit"
BEFORE_FIRST_COMMIT = "leader before its first commit"
EARLY_READ = "read before the first commit"
CUT_OFF = "change that is cut off"
JOINT_WITHOUT = "joint membership with a node down"
OVERTAKEN = "log cut behind a snapshot on its way"
DOUBTED = "leader that doubts its clock"
AHEAD = "log time that is ahead"
VOTERS = tuple(f"{count} voters" if count > 1 else "1 voter" for count in range(1, 8))

SIGHTINGS = (OLD_ENTRIES, BEFORE_FIRST_COMMIT, EARLY_READ, CUT_OFF, JOINT_WITHOUT, OVERTAKEN, DOUBTED, AHEAD, *VOTERS)


class Sightings(Check):
    """Counts, and demands nothing. Each is counted once for a term, an entry or a membership, not at each look."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._fired: Counter[str] = cluster.fired
        self._seen: set[tuple[object, ...]] = set()
        self._memberships: dict[tuple[NodeId, int], tuple[Index, Index]] = {}

    def look_at(self, node: Node) -> None:
        role = node.raft.role
        if isinstance(role, Leader):
            self._look_at_leader(node, role)
        self._look_at_membership(node)

    def _look_at_leader(self, node: Node, role: Leader) -> None:
        raft = node.raft
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
