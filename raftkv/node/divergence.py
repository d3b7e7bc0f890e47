"""Compares replicas: equal index, equal digest, or somebody stops."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftkv.model import Index, Membership, NodeId


class _Verdict(msgspec.Struct):
    """What is known of one replica compared with this one."""

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
        """Another term: others report to another leader."""
        self._verdicts.clear()

    def forget(self, node: NodeId) -> None:
        """Its process has ended, and may come back with another state."""
        self._verdicts.pop(node, None)

    def report(self, node: NodeId, index: Index, digest: int, membership: Membership) -> tuple[NodeId, Index] | None:
        """Take in a report; returns who has diverged and at which index it was noticed, or None.

        A report for an index that this node has not applied yet, or has long left behind, says nothing, and
        neither does one of a node that is no member.
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
        """Whoever differs, not the reporter alone: this may be the opinion that another's case has waited for."""
        for node, verdict in self._verdicts.items():
            if verdict.differs_index is not None:
                found = self._judge(node, verdict.differs_index, membership)
                if found is not None:
                    verdict.differs_index = None  # it is told now; should that be lost, its next report shows it again
                    return found
        return None

    def _judge(self, node: NodeId, index: Index, membership: Membership) -> tuple[NodeId, Index] | None:
        others = [voter for voter in membership.voters if voter not in (self._node_id, node)]
        agree = sum(self._verdict(voter).agreed_index >= index for voter in others)
        # Only voters are opinions: a learner that differs, however many there are, is no case against the leader.
        differ = sum(self._verdict(voter).differs_index is not None for voter in others) + (node in membership.voters)
        if 2 * differ > len(membership.voters):
            return self._node_id, index
        if 2 * (agree + 1) > len(membership.voters) or len(membership.voters) <= 2:
            return node, index
        return None  # wait for a third opinion

    def _verdict(self, node: NodeId) -> _Verdict:
        return self._verdicts.get(node, _Verdict())
