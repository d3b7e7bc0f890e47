"""What the core wants done, in the order in which it must be done."""

from __future__ import annotations

import msgspec

from raftkv.core.messages import Message
from raftkv.entry import Entry
from raftkv.model import HardState, Index, SnapshotMeta, Term


class Ready(msgspec.Struct, kw_only=True):
    """The contract between the core and whoever runs it.

    The fields stand in the order in which they must be handled:

    1. `hard_state` to the vote file, 2. `truncate_from`: remove the log's entries at and above it,
    3. `entries` behind the log's end; these three are one write, and writes are done in the order of
    their Readys. 4. `messages` may go at once, before the write has even begun (thesis §10.2.1).
    5. `durable_messages` may go only when this write *and all before it* are durable; then call
    `Raft.persisted(last_index, term)`. 6. `committed`: apply these (once they are durable here).
    7. `reads` may be answered when the state has reached their index; `reads_dropped` may be asked again.
    8. `snapshot`: install this one, which has arrived, then call `Raft.snapshot_installed`
    (or `snapshot_failed`).

    `term` and `last_index` say what `persisted` is to be called with. A Ready with no write
    (`must_persist` is false) but with `durable_messages` still waits for the writes before it.
    """

    term: Term
    last_index: Index
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

    @property
    def must_persist(self) -> bool:
        """Whether there is anything to write and sync."""
        return self.hard_state is not None or self.truncate_from is not None or bool(self.entries)
