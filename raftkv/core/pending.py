"""What has piled up for the next `Ready`."""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.core.durability import Durability
from raftkv.core.messages import AppendEntries, Message
from raftkv.core.ready import Ready
from raftkv.entry import Entry
from raftkv.model import HardState, Index, SnapshotMeta


class Pending:
    """Collects outputs in the order of the inputs that caused them; `take` turns them into a `Ready`."""

    __slots__ = (
        "_handed_last",
        "durable_messages",
        "entries",
        "hard_state",
        "messages",
        "reads",
        "reads_dropped",
        "snapshot",
        "snapshot_keeps_log",
        "truncate_from",
    )

    def __init__(self, last_index: Index) -> None:
        self._handed_last = last_index  # the last entry that was handed out to be written
        self._clear()

    def _clear(self) -> None:
        self.hard_state: HardState | None = None
        self.truncate_from: Index | None = None
        self.entries: list[Entry] = []
        self.messages: list[Message] = []
        self.durable_messages: list[Message] = []
        self.reads: list[tuple[int, Index]] = []
        self.reads_dropped: list[int] = []
        self.snapshot: SnapshotMeta | None = None
        self.snapshot_keeps_log = False

    def append(self, entries: Sequence[Entry]) -> None:
        self.entries += entries

    def truncate(self, index: Index) -> None:
        """Entries at and above `index` are gone; those never handed out need not be written at all."""
        if self.entries:
            del self.entries[max(0, index - self.entries[0].index) :]
        if index <= self._handed_last:
            self.truncate_from = index if self.truncate_from is None else min(index, self.truncate_from)
            self._handed_last = index - 1

    def log_was_reset(self, index: Index) -> None:
        """The log now ends at `index`, and whoever runs the core knows."""
        self._handed_last = index
        self.entries = []
        self.truncate_from = None

    def forget_appends(self) -> None:
        """Leadership ended: appends not yet handed out name ranges of a log that may change now."""
        self.messages = [
            message
            for message in self.messages
            if not (isinstance(message, AppendEntries) and message.last_index > message.prev_index)
        ]

    def is_empty(self) -> bool:
        return not (
            self.messages
            or self.entries
            or self.durable_messages
            or self.reads
            or self.reads_dropped
            or self.hard_state is not None
            or self.truncate_from is not None
            or self.snapshot is not None
        )

    def take(
        self, durability: Durability, term: int, last_index: Index, committed: tuple[Index, Index] | None
    ) -> Ready:
        """Everything so far as one `Ready`; its write, if it has one, gets the next number."""
        ready = Ready(
            write=durability.number,
            hard_state=self.hard_state,
            truncate_from=self.truncate_from,
            entries=self.entries,
            messages=self.messages,
            durable_messages=self.durable_messages,
            committed=committed,
            reads=self.reads,
            reads_dropped=self.reads_dropped,
            snapshot=self.snapshot,
            snapshot_keeps_log=self.snapshot_keeps_log,
        )
        if ready.must_persist:
            ready.write = durability.begin(last_index, term)
        if self.entries:
            self._handed_last = self.entries[-1].index
        self._clear()
        return ready
