"""What the core wants done, in the order in which it must be done."""

from __future__ import annotations

import msgspec

from raftkv.core.messages import Message
from raftkv.entry import Entry
from raftkv.model import HardState, Index, SnapshotMeta


class Ready(msgspec.Struct, kw_only=True):
    """The contract between the core and whoever runs it.

    The fields stand in the order in which they must be handled:

    1. `hard_state` to the vote file, 2. `truncate_from`: remove the log's entries at and above it,
    3. `entries` behind the log's end; these three are one write, and writes are done in the order of
    their Readys. 4. `messages` may go at once, before the write has even begun (thesis §10.2.1).
    5. `durable_messages` may go only when the write numbered `write` and all before it are durable.
    6. `committed`: apply these; they are durable here. 7. `reads` may be answered when the state has
    reached their index; `reads_dropped` may be asked again. 8. `snapshot`: install this one, whose
    files have all arrived, then call `Raft.snapshot_installed` (or `snapshot_failed`).

    Writes are numbered because an index and a term do not name one: a log's end may be cut off and
    the very same entries written again while the first write is still under way. A Ready without a
    write of its own (`must_persist` is false) repeats the last one's number.

    An `AppendEntries` comes with an empty `entries` and names a range of the log; whoever runs the
    core attaches the entries `prev_index + 1` to `last_index` before it handles the next Ready.
    """

    write: int
    """What `Raft.persisted` is to be called with when everything up to here is durable."""
    hard_state: HardState | None = None
    truncate_from: Index | None = None
    entries: list[Entry] = []
    messages: list[Message] = []
    durable_messages: list[Message] = []
    committed: tuple[Index, Index] | None = None
    """First and last index, both included."""
    reads: list[tuple[int, Index]] = []
    """(token, index) of each read that is confirmed."""
    reads_dropped: list[int] = []
    """Tokens of reads that won't be confirmed (leadership lost, no leader)."""
    snapshot: SnapshotMeta | None = None
    snapshot_keeps_log: bool = False
    """Whether the log agrees with `snapshot`, so that the entries behind its index stay (§7)."""

    @property
    def must_persist(self) -> bool:
        """Whether there is anything to write and sync."""
        return self.hard_state is not None or self.truncate_from is not None or bool(self.entries)
