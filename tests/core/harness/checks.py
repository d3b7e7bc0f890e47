"""What must hold of a whole cluster: the five properties of Figure 3, and what clients were promised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from raftkv.core import invariants
from raftkv.core.quorum import is_quorum
from raftkv.entry import Entry
from raftkv.model import EntryId, EntryKind, Index, NodeId, Term

if TYPE_CHECKING:
    from tests.core.harness.storage import Node


class Checks:
    """Remembers what it saw of all nodes, and notices at once when something contradicts that."""

    def __init__(self) -> None:
        self.leaders: dict[Term, NodeId] = {}
        self.committed: dict[Index, Entry] = {}
        """Every entry that any node called committed; none of them may ever be missing from a leader."""
        self.samples: dict[NodeId, invariants.Sample] = {}
        self.read_floors: dict[str, Index] = {}
        """Per read: the highest index that was committed when it was asked."""
        self.entries_seen: dict[EntryId, int] = {}
        """Entry → chain value, for Log Matching."""
        self._committed_to: dict[NodeId, Index] = {}
        self._committed_in: dict[Index, Term] = {}

    def booted(self, node: Node) -> None:
        """Begin to watch a node that has started."""
        self.samples[node.node_id] = invariants.Sample.of(node.core)
        self._committed_to[node.node_id] = node.core.commit_index
        invariants.check(node.core)
        self._check_state(node)

    def after_step(self, node: Node) -> None:
        """After anything that happened to `node`."""
        raft = node.core
        invariants.check(raft)
        self.samples[node.node_id] = invariants.check_step(self.samples[node.node_id], raft)
        if raft.is_leader:
            leader = self.leaders.get(raft.term)
            if leader is None:
                self._check_new_leader(node)
            else:
                assert leader == node.node_id, (
                    f"Election Safety: nodes {leader} and {node.node_id} both lead in term {raft.term}"
                )

    def _check_new_leader(self, node: Node) -> None:
        raft = node.core
        self.leaders[raft.term] = node.node_id
        for index, entry in self.committed.items():
            # Late votes may still elect a leader of an old term; it can commit nothing any more.
            if index > raft.log.start.index and self._committed_in[index] < raft.term:
                assert index <= raft.log.last_index and raft.log.chain(index) == entry.chain, (
                    f"Leader Completeness: node {node.node_id} leads in term {raft.term} without {entry!r}, "
                    "which is committed"
                )

    def committed_by(self, node: Node, nodes: Mapping[NodeId, Node]) -> None:
        """A commit index stands for entries that a quorum keeps, and that everybody agrees on.

        To be called when `node.entries` is all that the core has appended.
        """
        raft = node.core
        if raft.commit_index <= self._committed_to[node.node_id]:
            return
        first = max(self._committed_to[node.node_id], node.entries_start) + 1
        self._committed_to[node.node_id] = raft.commit_index
        for entry in node.range(first, raft.commit_index):
            known = self.committed.get(entry.index)
            if known is None:
                self.committed[entry.index] = entry
                self._committed_in[entry.index] = raft.term
                holders = [other.node_id for other in nodes.values() if other.holds_durably(entry)]
                assert not raft.is_leader or is_quorum(raft.membership, holders), (
                    f"node {node.node_id} commits {entry!r}, which is durable on {holders} only"
                )
            else:
                assert known.chain == entry.chain, (
                    f"State Machine Safety: node {node.node_id} commits {entry!r}, another node has {known!r} there"
                )

    def appended(self, entries: list[Entry]) -> None:
        """Equal index and term mean an equal entry and an equal log before it (Log Matching)."""
        for entry in entries:
            chain = self.entries_seen.setdefault(entry.id, entry.chain)
            assert chain == entry.chain, f"Log Matching: two logs with an entry {entry.id} differ at or before it"

    def applied(self, node: Node, entries: list[Entry]) -> None:
        """Nobody ever applies another entry at an index (State Machine Safety), nor one that its own log may forget."""
        for entry in entries:
            assert node.holds_durably(entry), f"node {node.node_id} applies {entry!r}, which its own log may forget"
            known = self.committed.get(entry.index)
            assert known is not None and known.chain == entry.chain, (
                f"State Machine Safety: node {node.node_id} applies {entry!r}, committed is {known!r}"
            )

    def installed(self, node: Node) -> None:
        """A snapshot's contents are exactly what was committed up to its index."""
        self._committed_to[node.node_id] = node.core.commit_index
        self._check_state(node)

    def _check_state(self, node: Node) -> None:
        entries = [self.committed.get(index) for index in range(1, node.core.applied_index + 1)]
        wanted = [e.payload.decode() for e in entries if e is not None and e.kind == EntryKind.COMMAND]
        assert None in entries or node.commands == wanted, (
            f"the state of node {node.node_id} at {node.core.applied_index} is {node.commands}, not {wanted}"
        )

    def read_asked(self, token: str) -> None:
        """Remember what a read must at least see: all that was committed before it was asked."""
        self.read_floors[token] = max(self.committed, default=0)

    def read_answered(self, token: str, index: Index) -> None:
        """A linearizable read sees everything that was committed when it was asked."""
        floor = self.read_floors[token]
        assert index >= floor, f"stale read: {token} is answered at {index}, but {floor} was committed before"
