"""Checks of what nodes hold: applied states, snapshots and files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftkv.disk.simulated import SimDisk
from raftkv.errors import DiskError, StateCorruption
from raftkv.machine import Kept
from raftkv.model import Index, NodeId, SnapshotMeta
from raftkv.state import MemoryStates
from raftkv.testing.judging.check import Check, working

if TYPE_CHECKING:
    from raftkv.node import Node
    from raftkv.testing.world.cluster import SimCluster


LOOKS_EVERY = 16
"""Entries between two looks at all tables."""


class DigestsAgree(Check):
    """Replicas at the same index have the same state (F76)."""

    def __init__(self) -> None:
        self.digests: dict[Index, int] = {}

    def look_at(self, node: Node) -> None:
        applied = node.applier.runner.applied
        digest = self.digests.setdefault(applied.index, applied.digest)
        assert digest == applied.digest, f"node {node.node_id} differs from another one at {applied.index}"


class VersionsAgree(Check):
    """Replicas at the same index have the same active version, and it never goes back along the log (F85)."""

    def __init__(self) -> None:
        self._kept: dict[Index, Kept | None] = {}
        self._raised: dict[int, Index] = {}
        """By version: the first index at which it was seen to be active."""

    def look_at(self, node: Node) -> None:
        runner = node.applier.runner
        index, kept = runner.applied.index, runner.active.kept
        known = self._kept.setdefault(index, kept)
        assert known == kept, f"node {node.node_id} has version {kept} at {index}, another one {known}"
        version = kept.version if kept is not None else 0
        since = self._raised[version] = min(index, self._raised.get(version, index))
        for other, first in self._raised.items():
            assert (other < version) == (first < since) or other == version, (
                f"node {node.node_id}: version {version} is active at {since}, and {other} at {first}"
            )


class SnapshotsHoldWhatTheySay(Check):
    """The state in a snapshot's files is the one in its manifest, without commands that came later (F69)."""

    def __init__(self) -> None:
        self._seen: set[tuple[NodeId, int, Index, int]] = set()

    def look_at(self, node: Node) -> None:
        for snapshot in node.opened.snapshots.list():
            place = (node.node_id, node.opened.vote.boot, snapshot.index, snapshot.digest)
            if place not in self._seen:
                self._seen.add(place)
                self._compare(node, snapshot)

    @staticmethod
    def _compare(node: Node, snapshot: SnapshotMeta) -> None:
        disk, path = node.body.world.disk, node.opened.snapshots.path(snapshot)
        assert isinstance(disk, SimDisk), "only a simulated disk can be looked at in passing"
        if disk.harmed:
            return  # files are damaged or gone; a snapshot is verified before it is used
        try:
            applied = MemoryStates(disk.excerpt(path)).open(path).applied
        except StateCorruption:
            return  # it has rotted on the disk; a snapshot is verified before it is used
        assert (applied.index, applied.digest) == (snapshot.index, snapshot.digest), (
            f"node {node.node_id}: the snapshot at {snapshot.id} holds the state at {applied.index}"
        )


class TheLogIsCoveredBySnapshots(Check):
    """Entries that were cut off the log are in a snapshot on the same disk, unless that has rotted."""

    def look(self, cluster: SimCluster) -> None:
        for node in working(cluster):
            if cluster.nodes[node.node_id].harm is None:
                self.look_at(node)

    def look_at(self, node: Node) -> None:
        start = node.raft.log.start.index
        newest = max((snapshot.index for snapshot in node.opened.snapshots.list()), default=0)
        assert newest >= start, f"node {node.node_id} forgot {start} entries, its newest snapshot is of {newest}"


class TheCoreKnowsTheDisk(Check):
    """The core's view of the log ends where the log that was handed to the disk ends, once a turn is over."""

    def look_at(self, node: Node) -> None:
        if node.raft.installing is None and not node.engine.has_pending:
            view, log = node.raft.log.last_index, node.opened.log.last_index
            assert view == log, f"node {node.node_id}: the core's log ends at {view}, the disk's at {log}"


class DurableIsDurable(Check):
    """What the core takes for durable here is on the disk."""

    def look_at(self, node: Node) -> None:
        if node.raft.installing is None:
            core, disk = node.raft.durable_index, node.opened.log.durable_index
            assert core <= disk, f"node {node.node_id} counts on {core} durable entries, the disk has {disk}"


class TheStateSaysWhatIsApplied(Check):
    """The index inside the store is the runner's: they change as one."""

    def look_at(self, node: Node) -> None:
        runner = node.applier.runner
        assert runner.applied == runner.store.applied, f"node {node.node_id}: {runner.applied} ≠ {runner.store.applied}"


class SessionsAgree(Check):
    """Replicas at the same index know the same number of sessions, never more than allowed (F74)."""

    def __init__(self) -> None:
        self._sessions: dict[Index, int] = {}

    def look_at(self, node: Node) -> None:
        runner = node.applier.runner
        sessions = runner.sessions
        count = self._sessions.setdefault(runner.applied.index, sessions)
        assert count == sessions, f"node {node.node_id} has {sessions} sessions, another one {count}"
        assert sessions <= node.body.config.sessions_max


class TablesAreInStep(Check):
    """Indexes and counts are what the rows say. It reads all rows, so it looks now and then only."""

    def __init__(self) -> None:
        self._looked_at: dict[int, Index] = {}

    def look_at(self, node: Node) -> None:
        runner = node.applier.runner
        if abs(runner.applied.index - self._looked_at.get(node.node_id, 0)) < LOOKS_EVERY:
            return
        self._looked_at[node.node_id] = runner.applied.index
        try:
            found = next(iter(runner.out_of_step()), None)
        except (StateCorruption, DiskError):
            return  # a store that can't be read is another matter
        assert found is None, f"node {node.node_id} at {runner.applied.index}: {found}"
