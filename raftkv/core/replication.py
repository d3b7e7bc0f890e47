"""Log replication and commitment (§5.3, §5.4.2): both ends of AppendEntries."""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.core import appends, changes, handover, reads, snapshots, tail, transitions
from raftkv.core.messages import AppendEntries, AppendReply
from raftkv.core.progress import Flow, Progress
from raftkv.core.quorum import reached_by_quorum
from raftkv.core.raftstate import RaftState
from raftkv.core.roles import Leader
from raftkv.entry import Entry
from raftkv.errors import PeerError, SafetyViolation
from raftkv.model import Index, NodeId


def on_append_entries(raft: RaftState, message: AppendEntries) -> None:
    """Take what fits behind `prev_index`, or say why nothing does (§5.3)."""
    transitions.follow(raft, message.sender)
    count = len(message.entries)
    if count != message.last_index - message.prev_index or (
        count and (message.entries[0].index != message.prev_index + 1 or message.entries[-1].term > message.term)
    ):
        raise PeerError(
            f"an append of entries {message.prev_index + 1} to {message.last_index} in term {message.term} came with "
            f"{message.entries!r:.200}"
        )
    log = raft.log
    if raft.installing is not None:
        _accept(raft, message, 0, wait=False)  # the snapshot replaces whatever could be appended now
        return
    prev, entries = message.prev_index, message.entries
    if prev < log.start.index:
        if message.last_index <= log.start.index:
            _accept(raft, message, log.start.index, wait=False)  # all of it is compacted, hence committed
            return
        entries = entries[log.start.index - prev :]
        _check_chain(raft, log.start.index, message.entries[log.start.index - prev - 1].chain)
        prev = log.start.index
    elif not log.matches(prev, message.prev_term):
        _reject(raft, message)
        return
    else:
        _check_chain(raft, prev, message.prev_chain)
    appended = _append_new(raft, prev, entries)
    tail.commit_to(raft, min(message.commit_index, message.last_index))
    _accept(raft, message, message.last_index, wait=appended)


def _check_chain(raft: RaftState, index: Index, chain: int) -> None:
    if raft.log.chain(index) != chain:
        raise SafetyViolation(
            f"node {raft.node_id}: entry {index}@{raft.log.term(index)} has chain value {raft.log.chain(index):016x} "
            f"here and {chain:016x} at the leader of term {raft.term}: two logs differ below an equal entry. "
            "Keep the files of both nodes and report it; rebuild this node from its peers."
        )


def _append_new(raft: RaftState, prev: Index, entries: Sequence[Entry]) -> bool:
    """Append those of `entries` that the log lacks; remove what conflicts with them first (§5.3)."""
    log = raft.log
    known = min(log.last_index - prev, len(entries))
    for offset in range(known):
        entry = entries[offset]
        if log.chain(entry.index) != entry.chain:
            if log.term(entry.index) == entry.term:
                _check_chain(raft, entry.index, entry.chain)
            tail.truncate_from(raft, entry.index)
            known = offset
            break
    # An append never removes what matches: a late, shorter one must not undo a longer one (§5.3).
    if known == len(entries):
        return False
    tail.append_entries(raft, entries[known:] if known else entries)
    return True


def _accept(raft: RaftState, message: AppendEntries, matched: Index, *, wait: bool) -> None:
    """Tell the leader what matches. New entries (`wait`) are acknowledged only once they are durable; a heartbeat
    is answered at once, with what is durable by now, so that a slow disk does not look like a dead node."""
    wait = wait or raft.durability.term < raft.term
    wants_snapshot = raft.wants_snapshot and raft.installing is None  # else the snapshot has come already
    reply = AppendReply(
        sender=raft.node_id,
        to=message.sender,
        term=raft.term,
        round=message.round,
        match_index=matched if wait else min(matched, raft.durability.index),
        wants_snapshot=wants_snapshot,
        conflict_index=raft.log.start.index if wants_snapshot else 0,
        has_room=raft.has_room,
        now_ms=0 if wait else raft.now_ms,
    )
    (raft.pending.durable_messages if wait else raft.pending.messages).append(reply)


def _reject(raft: RaftState, message: AppendEntries) -> None:
    log, prev = raft.log, message.prev_index
    if prev <= raft.commit_index:
        raise SafetyViolation(
            f"node {raft.node_id}: the leader {message.sender} of term {raft.term} has {prev}@{message.prev_term} "
            f"where {prev}@{log.term(prev)} is committed"
        )
    if prev > log.last_index:
        conflict_index, conflict_term = log.last_index + 1, None
    else:
        conflict_index, conflict_term = log.first_index_of_run(prev), log.term(prev)
    raft.reply(
        AppendReply(
            sender=raft.node_id,
            to=message.sender,
            term=raft.term,
            round=message.round,
            match_index=0,
            rejected=True,
            prev_index=prev,
            conflict_index=conflict_index,
            conflict_term=conflict_term,
            has_room=raft.has_room,
        )
    )


def on_append_reply(raft: RaftState, message: AppendReply) -> None:
    """Note what a follower holds; commit, send more, or look further back (§5.3)."""
    role = raft.role
    if not isinstance(role, Leader) or (progress := role.progress.get(message.sender)) is None:
        return
    if message.match_index > raft.log.last_index or message.round > role.round:
        raise PeerError(
            f"node {message.sender} says that it holds {message.match_index} and has seen round {message.round}; this "
            f"leader's log ends at {raft.log.last_index}, its last round is {role.round}"
        )
    progress.contact_tick = role.tick
    progress.has_room = message.has_room
    if message.now_ms:
        progress.clock_told_ms = raft.monotonic_ms
        progress.clock_offset_ms = message.now_ms - raft.monotonic_ms
    if message.round > progress.acked_round:
        progress.acked_round = message.round
        if role.reads_started or role.round_ticks:
            reads.confirm(raft, role)
    if message.rejected:
        _on_rejection(raft, message, progress)
    else:
        news = progress.matched(message.match_index)
        snapshots.on_reply(raft, role, message, progress)
        if progress.flow is Flow.PROBE:
            progress.become_replicate()
        if news and message.match_index > raft.commit_index:
            maybe_commit(raft, role)
        if raft.role is not role:
            return  # the commit was that of a membership without this leader
    if progress.next_index <= raft.log.last_index:
        appends.send_entries(raft, role, message.sender, progress)
    if role.transfer is not None and role.transfer.target == message.sender:
        handover.continue_transfer(raft)


def _on_rejection(raft: RaftState, message: AppendReply, progress: Progress) -> None:
    """Go back to where the logs may part: whole terms at a time (§5.3, end)."""
    log = raft.log
    if message.prev_index <= progress.match_index or message.prev_index >= progress.next_index:
        return  # an answer to something sent long ago
    if progress.flow is Flow.SNAPSHOT or (
        progress.flow is Flow.PROBE and message.prev_index != progress.next_index - 1
    ):
        return
    if message.conflict_term is None:
        guess = message.conflict_index
    else:
        # What the follower has above our last entry of at most its conflicting term can't match.
        ours = log.last_index_at_most_term(message.prev_index, message.conflict_term)
        known = ours >= log.start.index and log.term(ours) == message.conflict_term
        guess = ours + 1 if known else min(message.conflict_index, ours + 1)
    progress.become_probe(min(guess, message.prev_index))


def maybe_commit(raft: RaftState, role: Leader) -> None:
    """Commit what a quorum holds durably, this node counted like the others (§5.3, §5.4.2)."""
    durable, progress = raft.durability.index, role.progress

    def held(node: NodeId) -> Index:
        return durable if node == raft.node_id else progress[node].match_index

    index = reached_by_quorum(raft.log.membership, held)
    # Only entries of our own term are committed by counting (§5.4.2, Figure 8); older ones go along with them.
    if index > raft.commit_index and raft.log.term(index) == raft.term:
        tail.commit_to(raft, index)
        changes.on_commit(raft, role)
