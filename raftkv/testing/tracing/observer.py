"""Finds what has changed in a simulated world, for its trace, without any help of the world."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from raftkv.model import Index, Membership, NodeId, Term
from raftkv.testing.tracing.labels import members
from raftkv.testing.tracing.recording import Recording
from raftkv.testing.tracing.records import What
from raftkv.transport import MemoryTransport

if TYPE_CHECKING:
    from collections.abc import Collection

    from raftkv.node import Node
    from raftkv.testing.world.cluster import SimCluster, SimNode
    from raftkv.transport import TransportHandler
    from raftkv.wire import Hello, PeerMessage, Removal


THREAD_NAMES = ("log", "state", "transfers")
"""Of a machine's workers, in their order."""


class _Seen(msgspec.Struct):
    """The values of one machine at the last look."""

    is_up: bool = False
    starts: int = 0
    is_ready: bool = False
    term: Term = 0
    role: str = ""
    commit: Index = 0
    membership: Membership | None = None
    taken: int = 0
    installed: int = 0
    has_failed: bool = False
    is_stopping: bool = False
    stalled: str = ""
    """Which of its threads get nothing done."""
    is_frozen: bool = False
    has_fault: bool = False
    clock_offset_ms: int = 0


class Observer:
    """Looks at a cluster after each turn of its loop, and records what is new."""

    def __init__(self, cluster: SimCluster, recording: Recording) -> None:
        self._cluster = cluster
        self.recording = recording
        self._loop = cluster.loop
        self._seen: dict[NodeId, _Seen] = {}
        self._cuts: frozenset[tuple[NodeId, NodeId]] = frozenset()
        self._delay_s = cluster.network.delay_s
        self._notes = 0

    def time(self) -> float:
        """The world's time, in virtual seconds."""
        return self._loop.time()

    def look(self) -> None:
        """Record what has changed in the world since the last look."""
        self.recording.now = self._loop.time()
        events = self._cluster.events
        while self._notes < len(events):
            event = events[self._notes]
            self._notes += 1
            self.recording.happened(What.WORLD, None, event.partition(" ")[2], event)
        for node_id in self._cluster.nodes:
            self.look_at(node_id)
        self._look_at_network()

    def look_at(self, node_id: NodeId) -> None:
        """Record what has changed at one machine since the last look."""
        self.recording.now = self._loop.time()
        sim = self._cluster.nodes[node_id]
        seen = self._seen.get(node_id)
        if seen is None:
            seen = self._seen[node_id] = _Seen()
            self.recording.nodes[node_id] = ""
        if sim.is_up != seen.is_up or sim.starts != seen.starts:
            seen = self._look_at_process(sim, seen)
        if (node := sim.node) is not None:
            self._look_at_core(node, seen)
            self._look_at_end(sim, node, seen)
        self._look_at_machine(sim, seen)

    def _look_at_process(self, sim: SimNode, seen: _Seen) -> _Seen:
        """Record that a process has begun or ended, or both, since the last look."""
        node_id = sim.node_id
        if seen.is_up:
            self._ended(node_id, gracefully=seen.is_stopping)
        if sim.starts != seen.starts:
            self.recording.nodes[node_id] = "starting"
            self._happened(What.START, node_id, "start", f"start {sim.starts} of node {node_id}")
            if not sim.is_up:
                self._ended(node_id, gracefully=False)
        self._seen[node_id] = _Seen(
            is_up=sim.is_up, starts=sim.starts, has_fault=seen.has_fault, clock_offset_ms=seen.clock_offset_ms
        )
        return self._seen[node_id]

    def _ended(self, node_id: NodeId, *, gracefully: bool) -> None:
        self.recording.broke(node_id)
        self.recording.nodes[node_id] = ""
        if gracefully:
            self._happened(What.STOP, node_id, "stopped", f"the process of node {node_id} has ended")
        else:
            self._happened(What.CRASH, node_id, "crash", f"node {node_id} is gone; what was not synced may be lost")

    def _look_at_end(self, sim: SimNode, node: Node, seen: _Seen) -> None:
        if node.failure is not None and not seen.has_failed:
            seen.has_failed = True
            self._happened(What.FAILED, sim.node_id, type(node.failure).__name__, f"stopped by itself: {node.failure}")
        if sim.is_stopping and not seen.is_stopping:
            seen.is_stopping = True
            self._happened(What.STOP, sim.node_id, "stopping", f"node {sim.node_id} was asked to stop")

    def _look_at_core(self, node: Node, seen: _Seen) -> None:
        raft, node_id = node.raft, node.node_id
        role = type(raft.role).__name__
        if not seen.is_ready:
            seen.is_ready = True
            seen.term, seen.role, seen.commit, seen.membership = raft.term, role, raft.commit_index, raft.membership
            text = f"up, t{raft.term} last {raft.log.last_index}"
            self._happened(What.UP, node_id, text, f"recovered: {raft.describe()}", role=role)
        if role != seen.role or raft.term != seen.term:
            self._look_at_role(node, role, seen)
        if raft.commit_index != seen.commit:
            seen.commit = raft.commit_index
            self._happened(What.COMMIT, node_id, f"commit {raft.commit_index}", raft.describe(), role=role)
        if raft.membership is not seen.membership:
            if raft.membership != seen.membership:
                text, detail = members(raft.membership), f"the membership here is now {raft.membership.describe()}"
                self._happened(What.MEMBERS, node_id, text, detail, role=role)
            seen.membership = raft.membership
        self.recording.nodes[node_id] = role
        self._look_at_snapshots(node, role, seen)

    def _look_at_role(self, node: Node, role: str, seen: _Seen) -> None:
        raft = node.raft
        if role == "Leader":
            what, text = What.ELECTED, f"LEADS term {raft.term}"
        elif role == seen.role != "Candidate":
            what, text = What.TERM, f"term {raft.term}"
        else:
            what, text = What.ROLE, f"{role.lower()} t{raft.term}"
        seen.role, seen.term = role, raft.term
        self._happened(what, node.node_id, text, raft.describe(), role=role)

    def _look_at_snapshots(self, node: Node, role: str, seen: _Seen) -> None:
        snapshots, newest = node.snapshots, node.raft.snapshot
        if snapshots.taken != seen.taken:
            seen.taken = snapshots.taken
            text = f"snapshot {newest.index if newest is not None else ''}"
            self._happened(What.SNAPSHOT, node.node_id, text, f"took a snapshot: {node.raft.describe()}", role=role)
        if snapshots.installed != seen.installed:
            seen.installed = snapshots.installed
            text = f"installed {newest.index if newest is not None else ''}"
            self._happened(What.INSTALL, node.node_id, text, f"installed a snapshot: {node.raft.describe()}", role=role)

    def _look_at_machine(self, sim: SimNode, seen: _Seen) -> None:
        node_id = sim.node_id
        stalled = [name for name, worker in zip(THREAD_NAMES, sim.workers, strict=False) if worker.stalled]
        if (now := " ".join(stalled)) != seen.stalled:
            seen.stalled = now
            if len(stalled) in (0, len(THREAD_NAMES)):
                text = "disk hangs" if stalled else "disk works"
            else:
                text = f"disk hangs for {now}"
            self._happened(What.DISK, node_id, text, "while it hangs, no work gets done on it")
        if sim.is_frozen != seen.is_frozen:
            seen.is_frozen = sim.is_frozen
            text = "paused" if sim.is_frozen else "goes on"
            self._happened(What.PAUSE, node_id, text, "a paused process does nothing, and its inbox is kept")
        has_fault = sim.disk.fault is not None
        if has_fault != seen.has_fault:
            seen.has_fault = has_fault
            text = "disk fault" if has_fault else "disk mended"
            self._happened(What.DISK, node_id, text, "one of its next operations fails, or ends in a crash")
        if sim.clock.set_ms != seen.clock_offset_ms:
            seen.clock_offset_ms = sim.clock.set_ms
            self._happened(What.CLOCK, node_id, f"clock {seen.clock_offset_ms:+} ms", "its clock jumped")

    def _look_at_network(self) -> None:
        network = self._cluster.network
        if network.cuts != self._cuts:
            before, self._cuts = self._cuts, frozenset(network.cuts)
            if added := self._cuts - before:
                self._happened(What.NETWORK, None, f"cut {links(added)}", f"no byte gets through {links(self._cuts)}")
            if healed := before - self._cuts:
                left = links(self._cuts) if self._cuts else "nothing"
                self._happened(What.NETWORK, None, f"healed {links(healed)}", f"still cut: {left}")
        if network.delay_s != self._delay_s:
            self._delay_s = network.delay_s
            self._happened(What.NETWORK, None, f"delay {self._delay_s * 1000:g} ms", "how long bytes travel, each way")

    def _happened(self, what: What, node: NodeId | None, text: str, detail: str, *, role: str = "") -> None:
        self.recording.happened(what, node, text, detail, role=role)


def links(cut: Collection[tuple[NodeId, NodeId]]) -> str:
    """`1↔2 3→1`: which ways are cut; 0 are the clients."""
    both = sorted({(a, b) for a, b in cut if a < b and (b, a) in cut})
    one_way = sorted((a, b) for a, b in cut if (b, a) not in cut)
    return " ".join([*(f"{a}↔{b}" for a, b in both), *(f"{a}→{b}" for a, b in one_way)])


class TracedTransport(MemoryTransport):
    """A `MemoryTransport` whose messages are recorded, each after what its node did before it."""

    def __init__(self, observer: Observer, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._observer = observer

    async def start(self, handler: TransportHandler) -> None:
        await super().start(_TracedHandler(handler, self.node_id, self._observer))

    def send(self, to: NodeId, message: PeerMessage) -> bool:
        queued = super().send(to, message)
        self._observer.look_at(self.node_id)
        self._observer.recording.sent(self.node_id, to, message, queued=queued)
        return queued


class _TracedHandler:
    """Records what the transport reports, then passes it on to the node's handler."""

    def __init__(self, handler: TransportHandler, node_id: NodeId, observer: Observer) -> None:
        self._handler = handler
        self._node_id = node_id
        self._observer = observer

    def on_message(self, sender: NodeId, message: PeerMessage) -> None:
        self._observer.look_at(self._node_id)
        self._observer.recording.received(sender, self._node_id, message)
        self._handler.on_message(sender, message)

    def on_connected(self, peer: NodeId) -> None:
        self._observer.recording.broke(self._node_id, peer)  # what was sent on the connection before this one
        self._handler.on_connected(peer)

    def on_lost(self, peer: NodeId, reason: str) -> None:
        self._handler.on_lost(peer, reason)

    def on_removed(self, peer: NodeId, removal: Removal) -> None:
        self._handler.on_removed(peer, removal)

    def hello(self) -> Hello:
        return self._handler.hello()

    def check_hello(self, hello: Hello) -> asyncio.Future[None] | None:
        return self._handler.check_hello(hello)
