"""What one simulated node keeps: durable storage, writes under way, and what it has applied."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from raftkv.core.log import LogView
from raftkv.core.messages import Message
from raftkv.core.raft import Raft
from raftkv.core.ready import Ready
from raftkv.entry import Entry
from raftkv.model import EntryKind, HardState, LogStart, Membership, NodeId, SnapshotMeta


@dataclass
class Write:
    """One Ready's write, on its way to the disk, and the messages that wait for it."""

    number: int
    hard_state: HardState | None
    truncate_from: int | None
    entries: list[Entry]
    messages: list[Message]

    @classmethod
    def of(cls, ready: Ready) -> Write:
        return cls(ready.write, ready.hard_state, ready.truncate_from, list(ready.entries), ready.durable_messages)


@dataclass
class Node:
    """A node: its core while it runs, and what survives when it does not."""

    node_id: NodeId
    founding: Membership
    hard_state: HardState = field(default_factory=HardState)
    start: LogStart = field(default_factory=LogStart)
    durable: list[Entry] = field(default_factory=list)
    """The log on disk, from `start` on."""
    snapshot: SnapshotMeta | None = None
    snapshot_commands: list[str] = field(default_factory=list)
    """The state inside the snapshot: every command applied up to it."""
    durable_applied: int = 0
    durable_commands: list[str] = field(default_factory=list)
    raft: Raft | None = None
    entries: list[Entry] = field(default_factory=list)
    """The log as the running core knows it, written or not."""
    entries_start: int = 0
    writes: deque[Write] = field(default_factory=deque)
    commands: list[str] = field(default_factory=list)
    """The applied state: every command applied, in order."""
    reads: dict[str, int] = field(default_factory=dict)
    """Answered reads: token → index."""
    dropped: list[str] = field(default_factory=list)
    installing: tuple[SnapshotMeta, bool] | None = None
    slow: bool = False
    """Writes wait for `persist`."""
    slow_install: bool = False
    """Snapshots wait for `install`."""

    @property
    def is_up(self) -> bool:
        return self.raft is not None

    @property
    def core(self) -> Raft:
        assert self.raft is not None, f"node {self.node_id} is down"
        return self.raft

    def view(self) -> LogView:
        """The log as recovery finds it."""
        membership = self.founding if self.start.index == 0 else Membership()
        if self.snapshot is not None:
            membership = self.snapshot.membership
        view = LogView(self.start, membership)
        if self.durable:
            view.extend(self.durable)
        return view

    def booted(self, raft: Raft) -> None:
        """Begin to run with what is durable."""
        self.raft = raft
        self.entries = list(self.durable)
        self.entries_start = self.start.index
        self.commands = list(self.durable_commands)
        self.writes.clear()
        self.installing = None

    def crash(self, keep: int, part: int | None, applied: int | None = None) -> None:
        """Lose everything that is not durable, but for the first `keep` writes and, with `part`, that many
        entries of the next one; the state falls back to `applied` (by default to its last flush, which is
        the newest snapshot)."""
        done = list(self.writes)[:keep]
        if part is not None and keep < len(self.writes):
            torn = self.writes[keep]
            done.append(Write(torn.number, torn.hard_state, torn.truncate_from, torn.entries[:part], []))
        for write in done:
            self.apply_write(write)
        if applied is not None and applied > self.durable_applied:
            assert applied <= self.core.applied_index, f"node {self.node_id} has not applied {applied} yet"
            self._flush_to(applied)
        self.writes.clear()
        self.raft = None
        self.installing = None

    def _flush_to(self, applied: int) -> None:
        more = [e for e in self.entries if self.durable_applied < e.index <= applied]
        self.durable_commands += [e.payload.decode() for e in more if e.kind == EntryKind.COMMAND]
        self.durable_applied = applied

    def lose_state(self) -> None:
        """The applied state and the snapshot are damaged; log and vote are not. With the snapshot goes the
        knowledge of the membership where the log begins."""
        self.durable_applied, self.durable_commands = 0, []
        self.snapshot, self.snapshot_commands = None, []

    def stage(self, ready: Ready) -> None:
        """Take the entries of a Ready into the running log."""
        if ready.truncate_from is not None:
            del self.entries[ready.truncate_from - self.entries_start - 1 :]
        self.entries += ready.entries
        assert not self.entries or self.entries[-1].index == self.entries_start + len(self.entries)

    def apply_write(self, write: Write) -> None:
        """The disk has done it."""
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        if write.truncate_from is not None:
            del self.durable[write.truncate_from - self.start.index - 1 :]
        self.durable += write.entries
        assert not self.durable or self.durable[-1].index == self.start.index + len(self.durable)

    def holds_durably(self, entry: Entry) -> bool:
        """Whether `entry`, or a snapshot behind it, is on this node's disk."""
        at = entry.index - self.start.index - 1
        return at < 0 or (at < len(self.durable) and self.durable[at].chain == entry.chain)

    def range(self, first: int, last: int) -> list[Entry]:
        return self.entries[first - self.entries_start - 1 : last - self.entries_start]

    def take_snapshot(self) -> SnapshotMeta:
        """Bind the applied state to its index; taking one makes the state durable."""
        raft = self.core
        index = raft.applied_index
        log = raft.log
        meta = SnapshotMeta(index, log.term(index), log.chain(index), log.time_ms(index), log.membership_at(index))
        self.snapshot, self.snapshot_commands = meta, list(self.commands)
        self.durable_applied, self.durable_commands = index, list(self.commands)
        raft.snapshot_taken(meta)
        return meta

    def compact(self, index: int) -> None:
        """Cut the log on disk and in memory behind `index`."""
        raft = self.core
        raft.compact(index)
        self.durable = self.durable[index - self.start.index :]
        self.start = raft.log.start
        self.entries = self.entries[index - self.entries_start :]
        self.entries_start = index

    def install(self, meta: SnapshotMeta, commands: list[str], keeps_log: bool) -> None:
        """Replace state and log start by the snapshot's."""
        self.durable = self.durable[meta.index - self.start.index :] if keeps_log else []
        self.start = meta.log_start
        self.entries, self.entries_start = list(self.durable), meta.index
        self.snapshot, self.snapshot_commands = meta, list(commands)
        self.commands = list(commands)
        self.durable_applied, self.durable_commands = meta.index, list(commands)
        self.core.snapshot_installed()
