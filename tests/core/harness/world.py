"""A deterministic world of cores: every operation is explicit, nothing happens by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from raftkv.config import RaftConfig
from raftkv.core.messages import AppendEntries, InstallSnapshot, Message
from raftkv.core.raft import Raft
from raftkv.core.ready import Ready
from raftkv.model import EntryKind, HardState, Index, Membership, NodeId, SnapshotMeta
from tests.core.harness.checks import Checks
from tests.core.harness.storage import Node, Write

Link = tuple[NodeId, NodeId]


class CoreWorld:
    """Nodes, the links between them, and the operations that a script or a simulation may do.

    After each operation on a node its Readys are handled: writes are done at once unless the node is
    `slow`, messages join the queue of their link unless it is cut. They move only by `deliver`.
    Each operation notes the command that repeats it; `to_script` gives all of them, chance included.
    """

    def __init__(self, config: RaftConfig, draw: Callable[[int], int] = lambda n: 0) -> None:
        self.config = config
        self.nodes: dict[NodeId, Node] = {}
        self.links: dict[Link, list[Message]] = {}
        self.cuts: set[Link] = set()
        self.held: set[Link] = set()
        self.checks = Checks()
        self.snapshots: dict[tuple[Index, int], list[str]] = {}
        """Contents of every snapshot ever taken, by (index, chain)."""
        self.tokens: dict[tuple[NodeId, int], str] = {}
        self.clock_ms = 0
        self.counts: dict[str, int] = {}
        """How often each kind of thing has happened: a run whose faults did not fire shows nothing."""
        self.history: list[str] = []
        self.draws: list[int] = []
        self._draw = draw

    def to_script(self) -> str:
        """Everything that was done, as the text of a script that does it again."""
        settings = [
            f"{name}={'yes' if value is True else 'no' if value is False else value}"
            for name in RaftConfig.__struct_fields__
            if (value := getattr(self.config, name)) != getattr(RaftConfig(), name)
        ]
        head = [f"config {' '.join(settings)}"] if settings else []
        if any(self.draws):
            head.append("draws " + " ".join(map(str, self.draws)))
        return "\n".join([*head, *self.history]) + "\n"

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _note(self, *words: object) -> None:
        self.history.append(" ".join(map(str, words)))

    def draw(self, n: int) -> int:
        """The only chance that there is, remembered so that a run can be repeated."""
        drawn = self._draw(n)
        self.draws.append(drawn)
        return drawn

    def found(self, voters: int, learners: int = 0) -> None:
        """The nodes of a new cluster, not started yet: first the voters, then the learners."""
        ids = tuple(range(1, voters + learners + 1))
        for node_id in ids:
            self._add(node_id, Membership.of(ids[:voters], ids[voters:]))
        self._note("founders", voters, *(["learners", learners] if learners else []))

    def join(self, node_id: NodeId) -> None:
        """Start a brand-new node that knows of no membership."""
        self._add(node_id)
        self._note("node", node_id)
        self._boot(self.nodes[node_id])

    def _add(self, node_id: NodeId, founding: Membership = Membership()) -> None:
        assert node_id not in self.nodes, f"there is a node {node_id} already"
        self.nodes[node_id] = Node(node_id, founding)

    def boot(self, node_id: NodeId) -> None:
        """Start a node from what is durable."""
        self._note("restart", node_id)
        self._boot(self.nodes[node_id])

    def _boot(self, node: Node) -> None:
        assert not node.is_up, f"node {node.node_id} is up already"
        raft = Raft(
            node_id=node.node_id,
            config=self.config,
            draw=self.draw,
            hard_state=node.hard_state,
            log=node.view(),
            applied_index=node.durable_applied,
            snapshot=node.snapshot,
        )
        node.booted(raft)
        self.checks.booted(node)
        self._settle(node)

    def crash(self, node_id: NodeId, keep: int = 0, part: int | None = None, applied: Index | None = None) -> None:
        """Kill a node: of its writes under way the first `keep` were done, and of the next one the hard
        state, the truncation and `part` entries; the state falls back to `applied` (see `Node.crash`).
        What was on its way to it is lost, unless the link is held.
        """
        options = [("keep", keep or None), ("part", part), ("applied", applied)]
        self._note("crash", node_id, *(f"{name} {value}" for name, value in options if value is not None))
        self.count("crash")
        self.nodes[node_id].crash(keep, part, applied)
        for link in self.links:
            if link[1] == node_id and link not in self.held:
                self.links[link] = []

    def lose_state(self, node_id: NodeId) -> None:
        """A node that is down loses its applied state and its snapshot, but not its log and vote."""
        self._note("lose-state", node_id)
        self.nodes[node_id].lose_state()

    def set_hard_state(self, node_id: NodeId, hard_state: HardState) -> None:
        """Lay out the term and vote of a node that was not started yet."""
        vote = "nobody" if hard_state.vote is None else hard_state.vote
        self._note("term", node_id, hard_state.term, "vote", vote)
        self.nodes[node_id].hard_state = hard_state

    def _settle(self, node: Node) -> None:
        """Do what the core wants done, in the order of `Ready`."""
        raft = node.core
        self.checks.after_step(node)
        while (ready := self._ready(raft)) is not None:
            node.stage(ready)
            self.checks.committed_by(node, self.nodes)
            self.checks.appended(ready.entries)
            if ready.must_persist or ready.durable_messages:
                node.writes.append(Write.of(ready))
            for message in ready.messages:
                self._attach(node, message)
                self._send(message)
            self._commit(node, ready)
            if ready.snapshot is not None:
                self.count("install")
                node.installing = (ready.snapshot, ready.snapshot_keeps_log)
            if not node.slow:
                self._persist(node, len(node.writes))
            if node.installing is not None and not node.slow_install and not node.writes:
                self._install(node)
            self.checks.after_step(node)

    @staticmethod
    def _ready(raft: Raft) -> Ready | None:
        """What the core wants done, which whoever runs it asks for only when it says that there may be something."""
        has_output = raft.has_output
        ready = raft.ready()
        assert has_output or ready is None, f"{ready} came as a surprise"
        return ready

    def _attach(self, node: Node, message: Message) -> None:
        if isinstance(message, AppendEntries) and message.last_index > message.prev_index:
            message.entries = node.range(message.prev_index + 1, message.last_index)
            assert len(message.entries) == message.last_index - message.prev_index

    def _commit(self, node: Node, ready: Ready) -> None:
        if ready.committed is not None:
            first, last = ready.committed
            entries = node.range(first, last)
            assert [e.index for e in entries] == list(range(first, last + 1))
            self.checks.applied(node, entries)
            node.commands += [e.payload.decode() for e in entries if e.kind == EntryKind.COMMAND]
            node.core.applied(last)
            self.count("apply")
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
                self._send(message)
        if writes:
            node.core.persisted(writes[-1].number)

    def _install(self, node: Node, ok: bool = True) -> None:
        assert node.installing is not None, f"node {node.node_id} installs nothing"
        assert not node.writes, "a snapshot is installed only when the writes before it are done"
        (meta, keeps_log), node.installing = node.installing, None
        if ok:
            node.install(meta, self.snapshots[(meta.index, meta.chain)], keeps_log)
            self.checks.installed(node)
        else:
            node.core.snapshot_failed()

    def tick(self, node_id: NodeId, count: int = 1) -> None:
        """Let time pass for one node."""
        self._note("tick", node_id, count)
        for _ in range(count):
            self._do(node_id, lambda raft: raft.tick(self.clock_ms))

    def set_clock(self, ms: int) -> None:
        """Set everybody's wall clock; it may go back."""
        self._note("clock", ms)
        self.clock_ms = ms

    def campaign(self, node_id: NodeId) -> None:
        self._note("campaign", node_id)
        self._do(node_id, lambda raft: raft.campaign())

    def propose(self, node_id: NodeId, commands: Sequence[str]) -> None:
        self._note("propose", node_id, *commands)
        payloads = [command.encode() for command in commands]
        self._do(node_id, lambda raft: raft.propose(payloads, self.clock_ms))

    def read(self, node_id: NodeId, name: str) -> None:
        """Ask for a linearizable read; `name` finds its answer in the node's `reads` or `dropped`."""
        self._note("read", node_id, name)
        token = len(self.tokens) + 1
        self.tokens[(node_id, token)] = name
        self.checks.read_asked(name)
        self._do(node_id, lambda raft: raft.read(token))

    def change(self, node_id: NodeId, target: Membership) -> None:
        self._note("change", node_id, target.describe())
        self._do(node_id, lambda raft: raft.change_membership(target))

    def transfer(self, node_id: NodeId, to: NodeId) -> None:
        self._note("transfer", node_id, to)
        self._do(node_id, lambda raft: raft.transfer_leadership(to))

    def peer_lost(self, node_id: NodeId, peer: NodeId) -> None:
        self._note("peer-lost", node_id, peer)
        self._do(node_id, lambda raft: raft.peer_lost(peer))

    def step_down(self, node_id: NodeId) -> None:
        self._note("step-down", node_id)
        self._do(node_id, lambda raft: raft.step_down())

    def _do(self, node_id: NodeId, action: Callable[[Raft], object]) -> None:
        node = self.nodes[node_id]
        action(node.core)
        self._settle(node)

    def set_slow(self, node_id: NodeId, slow: bool) -> None:
        """A slow node's writes wait for `persist`; one that is no longer slow does them all."""
        self._note("slow" if slow else "fast", node_id)
        self.nodes[node_id].slow = slow
        if not slow:
            self._finish(node_id, len(self.nodes[node_id].writes))

    def persist(self, node_id: NodeId, count: int | None = None) -> None:
        """The first `count` writes that wait are durable now; all of them by default."""
        writes = len(self.nodes[node_id].writes)
        self._note("persist", node_id, writes if count is None else count)
        self._finish(node_id, writes if count is None else count)

    def _finish(self, node_id: NodeId, count: int) -> None:
        node = self.nodes[node_id]
        self._persist(node, count)
        if node.installing is not None and not node.slow_install and not node.writes:
            self._install(node)
        self._settle(node)

    def snapshot(self, node_id: NodeId) -> SnapshotMeta:
        """Take a snapshot of what a node has applied."""
        self._note("snapshot", node_id)
        node = self.nodes[node_id]
        meta = node.take_snapshot()
        self.snapshots[(meta.index, meta.chain)] = list(node.commands)
        self.count("snapshot")
        self._settle(node)
        return meta

    def compact(self, node_id: NodeId, index: Index) -> None:
        self._note("compact", node_id, index)
        node = self.nodes[node_id]
        node.compact(index)
        self.count("compact")
        self._settle(node)

    def set_slow_install(self, node_id: NodeId) -> None:
        """Snapshots that arrive wait for `install`."""
        self._note("slow-install", node_id)
        self.nodes[node_id].slow_install = True

    def install(self, node_id: NodeId, ok: bool = True) -> None:
        """The install that waits is done, or has failed."""
        self._note("install", node_id, *([] if ok else ["fails"]))
        node = self.nodes[node_id]
        self._install(node, ok)
        self._settle(node)

    def sent(self, node_id: NodeId, to: NodeId, ok: bool) -> None:
        """Tell a leader how a snapshot's transfer has ended."""
        self._note("sent", node_id, to, *([] if ok else ["fails"]))
        self._do(node_id, lambda raft: raft.snapshot_sent(to, ok))

    def _send(self, message: Message) -> None:
        link = (message.sender, message.to)
        is_down = message.to not in self.nodes or not self.nodes[message.to].is_up
        if link in self.cuts or (is_down and link not in self.held):
            self.count("lost")
            return
        self.links.setdefault(link, []).append(message)

    def forge(self, message: Message) -> None:
        """Put a message on a link that no core has sent."""
        self.links.setdefault((message.sender, message.to), []).append(message)

    def queue(self, link: Link) -> list[Message]:
        """What is on its way over a link, oldest first."""
        return self.links.get(link, [])

    def deliver(self, link: Link, at: int = 0, *, keep: bool = False) -> Message:
        """Hand the message at position `at` of a link over; with `keep` it will come again."""
        self._note("duplicate" if keep else "deliver", _arrow(link), f"#{at + 1}")
        queue = self.links[link]
        message = queue[at] if keep else queue.pop(at)
        if keep:
            self.count("duplicate")
        node = self.nodes[link[1]]
        if node.is_up:
            node.core.step(message)
            self._settle(node)
            sender = self.nodes[message.sender]
            if isinstance(message, InstallSnapshot) and sender.is_up:
                sender.core.snapshot_sent(message.to, True)
                self._settle(sender)
        return message

    def drop(self, link: Link, at: int = 0) -> Message:
        """Lose a message."""
        self._note("drop", _arrow(link), f"#{at + 1}")
        self.count("drop")
        return self.links[link].pop(at)

    def deliverable(self) -> list[Link]:
        """Links that have messages and are not held, in order."""
        return sorted(link for link, queue in self.links.items() if queue and link not in self.held)

    def cut(self, links: Iterable[Link]) -> None:
        """What is sent over a cut link is lost, and so is what is on its way."""
        for link in links:
            self._note("cut", _arrow(link))
            self.cuts.add(link)
            self.links.pop(link, None)

    def hold(self, links: Iterable[Link]) -> None:
        """What is sent over a held link waits: only `deliver` with the link's name moves it."""
        for link in links:
            self._note("hold", _arrow(link))
            self.held.add(link)

    def release(self, links: Iterable[Link]) -> None:
        for link in links:
            self._note("release", _arrow(link))
            self.held.discard(link)

    def heal(self) -> None:
        """Undo every cut and hold."""
        self._note("heal")
        self.cuts.clear()
        self.held.clear()


def _arrow(link: Link) -> str:
    return f"{link[0]}->{link[1]}"
