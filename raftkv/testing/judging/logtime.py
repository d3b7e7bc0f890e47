"""Checks that one wrong clock does not make log time wrong (F82)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftkv.core.roles import Leader
from raftkv.model import EntryKind, Index, NodeId, Term
from raftkv.testing.judging.check import Check

if TYPE_CHECKING:
    from raftkv.core.raft import Raft
    from raftkv.node import Node
    from raftkv.testing.world.cluster import SimCluster

HEARD_S = 12.0
"""For how long a leader may go by what it last heard of a clock: five seconds of its own, which may be slow ones."""

SLACK_MS = 4_000
"""How far a leader's own clocks, at twice the speed, carry what it last heard; and what messages and looks take."""


SETTLED_MS = 200
"""A leader has found a majority for so long, or it may have made what is looked at while it had none."""


class LogTimeIsBounded(Check):
    """A leader's entries never go back in time, but at a reset, and are not ahead of the median of the voters' clocks.

    They may be ahead by the bound, and by the time that it takes to hear of the clocks. An entry may always have the
    time of the one before it. If no majority of clocks agrees, a leader promises only the progress of its own monotonic
    clock, which unit tests check.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[NodeId, Term], Index] = {}

    def look(self, cluster: SimCluster) -> None:
        for sim in cluster.nodes.values():
            node = sim.node
            if node is not None and node.failure is None:
                self._look_at_leader(cluster, node)

    def _look_at_leader(self, cluster: SimCluster, node: Node) -> None:
        raft, role = node.raft, node.raft.role
        if not isinstance(role, Leader):
            return
        log, place = raft.log, (node.node_id, raft.term)
        first = max(self._seen.get(place, role.term_start - 1), log.start.index) + 1
        self._seen[place] = log.last_index
        entries = node.opened.log.cached(first, log.last_index) if first <= log.last_index else None
        before_ms = log.time_ms(first - 1) if entries else 0
        latest_ms = None
        for entry in entries or ():
            if entry.kind != EntryKind.CLOCK:
                assert entry.time_ms >= before_ms, f"entry {entry.id} goes back by {before_ms - entry.time_ms} ms"
            if entry.time_ms != before_ms and _has_majority(raft, role):
                if latest_ms is None:
                    latest_ms = self._latest_ms(cluster, raft.membership.all_voters())
                ahead = entry.time_ms - latest_ms
                assert ahead <= raft.config.clock_ahead_ms_max + SLACK_MS, (
                    f"node {node.node_id} stamped {entry.id} {ahead:.0f} ms ahead of the median of the voters' clocks"
                )
            before_ms = entry.time_ms

    def _latest_ms(self, cluster: SimCluster, voters: tuple[NodeId, ...]) -> float:
        """The latest median of the voters' clocks that a leader may have heard lately."""
        clocks = sorted(cluster.nodes[voter].clock.latest_ms(HEARD_S) for voter in voters if voter in cluster.nodes)
        return clocks[len(clocks) // 2]


def _has_majority(raft: Raft, role: Leader) -> bool:
    clock = role.clock
    return clock is not None and clock.has_majority and raft.monotonic_ms - clock.since_ms >= SETTLED_MS
