"""What must hold of a whole cluster: the five properties of Figure 3, and what clients were promised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftkv.core import invariants
from raftkv.entry import Entry
from raftkv.model import EntryId, NodeId, Term

if TYPE_CHECKING:
    from tests.core.harness.storage import Node


class Checks:
    """Remembers what was seen, so that what contradicts it is noticed at once."""

    def __init__(self) -> None:
        self.leaders: dict[Term, NodeId] = {}
        self.committed: dict[int, Entry] = {}
        """Every entry that any node saw as committed."""
        self.samples: dict[NodeId, invariants.Sample] = {}
        self.read_floors: dict[str, int] = {}
        """Per read: the highest index that was committed when it was asked."""
        self.entries_seen: dict[EntryId, int] = {}
        """Entry → chain value, for Log Matching."""

    def booted(self, node: Node) -> None:
        self.samples[node.node_id] = invariants.Sample.of(node.core)
        invariants.check(node.core)

    def after_step(self, node: Node) -> None:
        """After anything that happened to `node`."""
        raft = node.core
        invariants.check(raft)
        self.samples[node.node_id] = invariants.check_step(self.samples[node.node_id], raft)
        if raft.is_leader and raft.term not in self.leaders:
            self._check_new_leader(node)
        if raft.is_leader:
            assert self.leaders[raft.term] == node.node_id, (
                f"Election Safety: nodes {self.leaders[raft.term]} and {node.node_id} both lead in term {raft.term}"
            )

    def _check_new_leader(self, node: Node) -> None:
        raft = node.core
        self.leaders[raft.term] = node.node_id
        for index, entry in self.committed.items():
            if index > raft.log.start.index:
                assert index <= raft.log.last_index and raft.log.chain(index) == entry.chain, (
                    f"Leader Completeness: node {node.node_id} leads in term {raft.term} without {entry!r}, "
                    "which is committed"
                )

    def appended(self, entries: list[Entry]) -> None:
        """Equal index and term mean an equal entry and an equal log before it (Log Matching)."""
        for entry in entries:
            chain = self.entries_seen.setdefault(entry.id, entry.chain)
            assert chain == entry.chain, f"Log Matching: two logs with an entry {entry.id} differ at or before it"

    def applied(self, node: Node, entries: list[Entry], nodes: dict[NodeId, Node]) -> None:
        """Nobody ever applies another entry at an index (State Machine Safety), and only what is durable enough."""
        for entry in entries:
            assert node.holds_durably(entry), f"node {node.node_id} applies {entry!r}, which its own log may forget"
            known = self.committed.setdefault(entry.index, entry)
            assert known.chain == entry.chain, (
                f"State Machine Safety: node {node.node_id} applies {entry!r}, another node has applied {known!r}"
            )
            if known is entry:
                holders = [other for other in nodes.values() if other.holds_durably(entry)]
                assert holders, f"{entry!r} is committed and durable nowhere"

    def read_asked(self, token: str) -> None:
        self.read_floors[token] = max(self.committed, default=0)

    def read_answered(self, token: str, index: int) -> None:
        floor = self.read_floors[token]
        assert index >= floor, f"stale read: {token} is answered at {index}, but {floor} was committed when it was asked"
