"""The log's end: appending to it, cutting it off, and committing it up to an index."""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.core import clocks, transitions
from raftkv.core.raftstate import RaftState
from raftkv.core.roles import Leader
from raftkv.entry import Entry, make_entries
from raftkv.errors import SafetyViolation
from raftkv.model import EntryKind, Index


def append_payloads(raft: RaftState, kind: EntryKind, payloads: Sequence[bytes]) -> tuple[Index, Index]:
    """Append the leader's own entries; their time never goes back along the log, whatever the clocks say."""
    return append_at(raft, kind, payloads, entry_time_ms(raft))


def entry_time_ms(raft: RaftState) -> int:
    """The time of an entry that this leader would append now. Raises `NotLeader`."""
    role = raft.require_leader()
    return max(clocks.stamp(raft, role), raft.log.last_time_ms, role.told_ms)


def append_at(raft: RaftState, kind: EntryKind, payloads: Sequence[bytes], time_ms: int) -> tuple[Index, Index]:
    """The same with a time that may lie before that of the entry before: only a reset of the clock may say so."""
    log = raft.log
    first = log.last_index + 1
    append_entries(raft, make_entries(first, raft.term, time_ms, kind, payloads, log.last_chain))
    raft.require_leader().appended = True
    return first, log.last_index


def append_entries(raft: RaftState, entries: Sequence[Entry]) -> None:
    """Append entries to the log and to the next write."""
    membership_changed = raft.log.extend(entries)
    raft.pending.append(entries)
    if membership_changed:
        transitions.membership_changed(raft)


def truncate_from(raft: RaftState, index: Index) -> None:
    """Remove entries that conflict with the leader's (§5.3); what is committed never does."""
    if index <= raft.commit_index:
        raise SafetyViolation(
            f"node {raft.node_id}: the leader of term {raft.term} conflicts with entry "
            f"{index}@{raft.log.term(index)}, which is committed (up to {raft.commit_index})"
        )
    rolled_back = raft.log.truncate_from(index)
    raft.durability.truncated_from(index)
    raft.pending.truncate(index)
    if rolled_back:
        transitions.membership_changed(raft)


def commit_to(raft: RaftState, index: Index) -> None:
    """Everything up to `index` is committed; nothing happens when that is known. A leader goes on in
    `changes.on_commit`."""
    if index <= raft.commit_index:
        return
    assert index <= raft.log.last_index, f"commit {index} is past the log's end {raft.log.last_index}"
    before, raft.commit_index = raft.commit_index, index
    if not isinstance(raft.role, Leader) and raft.log.has_membership_between(before, index):
        transitions.membership_changed(raft)  # a node that it leaves out need not campaign any more
