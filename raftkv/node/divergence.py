"""Compares replicas. At equal indexes their digests must be equal; otherwise the one that is wrong stops."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftkv.errors import Diverged
from raftkv.logs import EventLog
from raftkv.model import Index, Membership, NodeId
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.wire import DigestReport, DivergedNotice

logger = EventLog("raftkv")


class _Verdict(msgspec.Struct):
    """How one replica compares with this one."""

    agreed_index: Index = 0
    differs_index: Index | None = None


class DigestComparer:
    """The leader's comparison of its followers' reports with its own digests.

    Digests are chained, so replicas that agree at an index agree at every earlier one. When one
    differs, the majority decides who is wrong: the leader may be the one (cockroach#837).
    """

    def __init__(self, node_id: NodeId, digest_at: Callable[[Index], int | None]) -> None:
        self._node_id = node_id
        self._digest_at = digest_at
        self._verdicts: dict[NodeId, _Verdict] = {}
        self.compared = 0

    def clear(self) -> None:
        """Forget all reports, because the term or leader has changed."""
        self._verdicts.clear()

    def forget(self, node: NodeId) -> None:
        """Forget a node's reports: its process has ended, and may come back with another state."""
        self._verdicts.pop(node, None)

    def report(self, node: NodeId, index: Index, digest: int, membership: Membership) -> tuple[NodeId, Index] | None:
        """Take in a report; returns the node that has diverged and the index at which that was noticed, or None.

        Reports from nodes that are no members are ignored, and so are reports for an index that this node has not
        applied yet, or applied too long ago.
        """
        own = self._digest_at(index)
        if own is None or membership.member(node) is None:
            return None
        self.compared += 1
        verdict = self._verdicts.setdefault(node, _Verdict())
        if own == digest:
            verdict.agreed_index = max(verdict.agreed_index, index)
            verdict.differs_index = None
        elif verdict.differs_index is None:
            verdict.differs_index = index
        return self._judge_all(membership)

    def _judge_all(self, membership: Membership) -> tuple[NodeId, Index] | None:
        """Judge all nodes that differ, not just the one that reported: its report may decide about another node."""
        for node, verdict in self._verdicts.items():
            if verdict.differs_index is not None:
                found = self._judge(node, verdict.differs_index, membership)
                if found is not None:
                    verdict.differs_index = None  # it is told now; if that is lost, its next report differs again
                    return found
        return None

    def _judge(self, node: NodeId, index: Index, membership: Membership) -> tuple[NodeId, Index] | None:
        others = [voter for voter in membership.voters if voter not in (self._node_id, node)]
        agree = sum(self._verdict(voter).agreed_index >= index for voter in others)
        # Only voters count: any number of learners that differ says nothing against the leader.
        differ = sum(self._verdict(voter).differs_index is not None for voter in others) + (node in membership.voters)
        if 2 * differ > len(membership.voters):
            return self._node_id, index
        if 2 * (agree + 1) > len(membership.voters) or len(membership.voters) <= 2:
            return node, index
        return None  # wait for another voter's report

    def _verdict(self, node: NodeId) -> _Verdict:
        return self._verdicts.get(node, _Verdict())


class Divergence:
    """Reports this replica's digest to the leader, judges others' reports while it leads, and stops the node when it
    is the one that differs."""

    def __init__(self, body: Body, applier: Applier) -> None:
        self._body = body
        self._applier = applier
        self.comparer = DigestComparer(body.node_id, lambda index: applier.runner.digest_at(index))
        self._reported: Index = 0
        self._ticks = 0

    def role_changed(self) -> None:
        """Called when the term or leader changes: reports go to another node now."""
        self.comparer.clear()

    def forget(self, peer: NodeId) -> None:
        """The connection to `peer` is lost: its process may have ended, and may come back with another state."""
        self.comparer.forget(peer)

    def tick(self) -> None:
        """Report this replica's digest to the leader, at most once a heartbeat and only if more was applied."""
        raft = self._body.raft
        self._ticks += 1
        if self._ticks < raft.config.heartbeat_ticks:
            return
        applied, leader = self._applier.runner.applied, raft.leader
        if leader is None or applied.index == self._reported:
            return
        self._ticks = 0
        self._reported = applied.index
        self._body.transport.send(leader, DigestReport(applied.index, applied.digest))

    def on_report(self, peer: NodeId, report: DigestReport) -> None:
        """As the leader, compare a follower's digest, and stop the node that is in the minority."""
        raft = self._body.raft
        if not raft.is_leader:
            return
        verdict = self.comparer.report(peer, report.index, report.digest, raft.membership)
        if verdict is None:
            return
        culprit, index = verdict
        if culprit == raft.node_id:
            self.told(index)
        else:
            self._body.transport.send(culprit, DivergedNotice(index))
        logger.error("replica_diverged", node=culprit, index=index)

    def told(self, index: Index) -> None:
        """Stop this node, because its digest at `index` is in the minority."""
        node = self._body.node_id
        self._body.fail(
            Diverged(
                f"the state of node {node} differs from the others' at entry {index}: a command that is not "
                "deterministic, or damaged data. Keep a copy of its files, then start it with --rebuild; "
                "if it happens again, look for time, randomness or unordered iteration in the state machine's commands."
            )
        )
