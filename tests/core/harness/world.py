"""A deterministic world of cores: every operation is explicit, nothing happens by itself."""

from __future__ import annotations

from collections.abc import Callable

from raftkv.config import RaftConfig
from raftkv.core.messages import AppendEntries, InstallSnapshot, Message
from raftkv.core.raft import Raft
from raftkv.core.ready import Ready
from raftkv.model import EntryKind, HardState, Membership, NodeId, SnapshotMeta
from tests.core.harness.checks import Checks
from tests.core.harness.storage import Node, Write

Link = tuple[NodeId, NodeId]


class CoreWorld:
    """Nodes, the links between them, and the operations that a script or a simulation may do.

    After each operation on a node its Readys are handled: writes are done at once unless the node is
    `slow`, messages join the queue of their link unless it is cut. They move only by `deliver`.
    """

    def __init__(self, config: RaftConfig, draw: Callable[[int], int] = lambda n: 0) -> None:
        self.config = config
        self.draw = draw
        self.nodes: dict[NodeId, Node] = {}
        self.links: dict[Link, list[Message]] = {}
        self.cuts: set[Link] = set()
        self.held: set[Link] = set()
        self.checks = Checks()
        self.snapshots: dict[tuple[int, int], list[str]] = {}
        """Contents of every snapshot ever taken, by (index, chain)."""
        self.tokens: dict[tuple[NodeId, int], str] = {}
        self.token_count = 0
        self.clock_ms = 0
        self.counts: dict[str, int] = {}

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # ------------------------------------------------------------------------------ life

    def add(self, node_id: NodeId, founding: Membership = Membership()) -> Node:
        assert node_id not in self.nodes, f"there is a node {node_id} already"
        node = self.nodes[node_id] = Node(node_id, founding)
        return node

    def boot(self, node_id: NodeId) -> None:
        """Start a node from what is durable."""
        node = self.nodes[node_id]
        assert not node.is_up, f"node {node_id} is up already"
        raft = Raft(
            node_id=node_id,
            config=self.config,
            draw=self.draw,
            hard_state=node.hard_state,
            log=node.view(),
            applied_index=node.durable_applied,
            snapshot=node.snapshot if node.durable_applied or not node.start.index else None,
        )
        node.booted(raft)
        self.checks.booted(node)
        self.settle(node)

    def crash(self, node_id: NodeId, keep: int = 0, applied: int | None = None) -> None:
        self.count("crash")
        self.nodes[node_id].crash(keep, applied)
        for message in [m for (_, to), queue in self.links.items() if to == node_id for m in queue]:
            self.links[(message.sender, node_id)].remove(message)  # a dead process receives nothing

    # ------------------------------------------------------------------------------ what Ready asks for

    def settle(self, node: Node) -> None:
        """Do what the core wants done, in the order of `Ready`."""
        raft = node.core
        self.checks.after_step(node)
        while (ready := raft.ready()) is not None:
            node.stage(ready)
            self.checks.appended(ready.entries)
            if ready.must_persist or ready.durable_messages:
                node.writes.append(
                    Write(
                        ready.write,
                        ready.hard_state,
                        ready.truncate_from,
                        list(ready.entries),
                        ready.durable_messages,
                    )
                )
            for message in ready.messages:
                self._attach(node, message)
                self.send(message)
            self._commit(node, ready)
            if ready.snapshot is not None:
                self.count("install")
                node.installing = (ready.snapshot, ready.snapshot_keeps_log)
            if not node.slow:
                self._persist(node, len(node.writes))
            if node.installing is not None and not node.slow_install and not node.writes:
                self._install(node)
            self.checks.after_step(node)

    def _attach(self, node: Node, message: Message) -> None:
        if isinstance(message, AppendEntries) and message.last_index > message.prev_index:
            message.entries = node.range(message.prev_index + 1, message.last_index)
            assert len(message.entries) == message.last_index - message.prev_index

    def _commit(self, node: Node, ready: Ready) -> None:
        if ready.committed is not None:
            first, last = ready.committed
            entries = node.range(first, last)
            assert [e.index for e in entries] == list(range(first, last + 1))
            self.checks.applied(node, entries, self.nodes)
            node.commands += [e.payload.decode() for e in entries if e.kind == EntryKind.COMMAND]
            node.core.applied(last)
            self.count("applied")
        for token, index in ready.reads:
            name = self.tokens[(node.node_id, token)]
            self.checks.read_answered(name, index)
            node.reads[name] = index
            self.count("read")
        node.dropped += [self.tokens[(node.node_id, token)] for token in ready.reads_dropped]

    def _persist(self, node: Node, count: int) -> None:
        writes = [node.writes.popleft() for _ in range(min(count, len(node.writes)))]
        for write in writes:
            node.apply_write(write)
            for message in write.messages:
                self.send(message)
        if writes:
            node.core.persisted(writes[-1].number)

    def _install(self, node: Node, ok: bool = True) -> None:
        assert node.installing is not None, f"node {node.node_id} installs nothing"
        assert not node.writes, "a snapshot is installed only when the writes before it are done"
        (meta, keeps_log), node.installing = node.installing, None
        if ok:
            node.install(meta, self.snapshots[(meta.index, meta.chain)], keeps_log)
        else:
            node.core.snapshot_failed()

    # ------------------------------------------------------------------------------ operations

    def tick(self, node_id: NodeId, count: int = 1) -> None:
        node = self.nodes[node_id]
        for _ in range(count):
            node.core.tick(self.clock_ms)
            self.settle(node)

    def run(self, node_id: NodeId, action: Callable[[Raft], object]) -> None:
        """Give a node's core an input, and do what follows."""
        node = self.nodes[node_id]
        action(node.core)
        self.settle(node)

    def read(self, node_id: NodeId, name: str) -> None:
        self.token_count += 1
        token = self.token_count
        self.tokens[(node_id, token)] = name
        self.checks.read_asked(name)
        self.run(node_id, lambda raft: raft.read(token))

    def persist(self, node_id: NodeId, count: int | None = None) -> None:
        node = self.nodes[node_id]
        self._persist(node, len(node.writes) if count is None else count)
        self.settle(node)

    def install(self, node_id: NodeId, ok: bool) -> None:
        node = self.nodes[node_id]
        self._install(node, ok)
        self.settle(node)

    def snapshot(self, node_id: NodeId) -> SnapshotMeta:
        node = self.nodes[node_id]
        meta = node.take_snapshot()
        self.snapshots[(meta.index, meta.chain)] = list(node.commands)
        self.count("snapshot")
        self.settle(node)
        return meta

    def compact(self, node_id: NodeId, index: int) -> None:
        node = self.nodes[node_id]
        node.compact(index)
        self.count("compact")
        self.settle(node)

    # ------------------------------------------------------------------------------ network

    def send(self, message: Message) -> None:
        link = (message.sender, message.to)
        if link in self.cuts or message.to not in self.nodes or not self.nodes[message.to].is_up:
            self.count("lost")
            return
        self.links.setdefault(link, []).append(message)

    def queue(self, link: Link) -> list[Message]:
        return self.links.get(link, [])

    def deliver(self, link: Link, at: int = 0, *, keep: bool = False) -> Message:
        """Hand the message at position `at` of a link over; with `keep` it will come again."""
        queue = self.links[link]
        message = queue[at] if keep else queue.pop(at)
        if keep:
            self.count("duplicate")
        node = self.nodes[link[1]]
        if node.is_up:
            node.core.step(message)
            self.settle(node)
            if isinstance(message, InstallSnapshot) and self.nodes[message.sender].is_up:
                self.run(message.sender, lambda raft: raft.snapshot_sent(message.to, True))
        return message

    def drop(self, link: Link, at: int = 0) -> Message:
        self.count("drop")
        return self.links[link].pop(at)

    def deliverable(self) -> list[Link]:
        """Links that have messages and are not held, in order."""
        return sorted(link for link, queue in self.links.items() if queue and link not in self.held)

    def cut(self, links: list[Link]) -> None:
        """What is sent over a cut link is lost, and so is what is on its way."""
        for link in links:
            self.cuts.add(link)
            self.links.pop(link, None)

    def set_hard_state(self, node_id: NodeId, hard_state: HardState) -> None:
        self.nodes[node_id].hard_state = hard_state
