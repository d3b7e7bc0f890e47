"""Snapshots as decisions (§7): when one is sent, and what one that arrived replaces. Bytes move elsewhere."""

from __future__ import annotations

from raftkv.core import tail, transitions
from raftkv.core.messages import AppendReply, InstallSnapshot
from raftkv.core.progress import Flow, Progress
from raftkv.core.raftstate import RaftState
from raftkv.core.roles import Leader
from raftkv.errors import SafetyViolation
from raftkv.model import Index, NodeId, SnapshotMeta

PAUSE_TIMEOUTS_MAX = 10
"""At most so many election time-outs after a failed transfer the next one starts: a matter of some seconds."""


def send_snapshot(raft: RaftState, role: Leader, to: NodeId, progress: Progress) -> None:
    """The follower needs entries that were compacted: decide to send the newest snapshot instead."""
    if role.tick - progress.contact_tick >= raft.config.election_ticks:
        return  # the follower is not there; its answer to a heartbeat will tell when it is
    if role.tick < progress.snapshot_tick:
        return
    snapshot = raft.snapshot
    if snapshot is None or snapshot.index < raft.log.start.index:
        # The snapshot behind which the log was cut is damaged now: another one must be taken first.
        progress.wanted_index = raft.log.start.index
        return
    progress.become_snapshot(snapshot)
    _send(raft, to, snapshot)


def _send(raft: RaftState, to: NodeId, snapshot: SnapshotMeta) -> None:
    raft.pending.messages.append(InstallSnapshot(sender=raft.node_id, to=to, term=raft.term, snapshot=snapshot))


def on_reply(raft: RaftState, role: Leader, message: AppendReply, progress: Progress) -> None:
    """A follower is past the gap, or asks for a snapshot although its log has none."""
    if message.wants_snapshot:
        progress.wanted_index = message.conflict_index
        offer_wanted(raft, role, message.sender, progress)
        return
    if progress.wanted_index is not None:
        progress.wanted_index = None
        progress.sending = None
    if progress.flow is Flow.SNAPSHOT and progress.match_index >= raft.log.start.index:
        # The follower may be past the gap late, or by other means: that counts, too.
        progress.sending = None
        progress.next_index = progress.match_index + 1
        progress.become_replicate()


def offer_wanted(raft: RaftState, role: Leader, to: NodeId, progress: Progress) -> None:
    """Send the snapshot that a follower asked for, if there is one far enough along."""
    snapshot = raft.snapshot
    if (
        progress.wanted_index is not None
        and progress.sending is None
        and role.tick >= progress.snapshot_tick
        and snapshot is not None
        and snapshot.index >= progress.wanted_index
    ):
        progress.sending = snapshot
        _send(raft, to, snapshot)


def on_sent(raft: RaftState, to: NodeId, ok: bool) -> None:
    """A transfer has ended: `ok` when the follower has all of it, although its own reply may still be on its way."""
    role = raft.role
    if not isinstance(role, Leader) or (progress := role.progress.get(to)) is None:
        return
    snapshot = progress.sending
    progress.sending = None
    # Pause, in order not to hammer a follower that fails. After a success, too: answers that the follower sent before
    # all had arrived still ask for a snapshot.
    progress.snapshot_failures = 0 if ok else progress.snapshot_failures + 1
    doubled = raft.config.heartbeat_ticks << min(max(0, progress.snapshot_failures - 1), 16)
    pause = raft.config.election_ticks if ok else min(doubled, PAUSE_TIMEOUTS_MAX * raft.config.election_ticks)
    progress.snapshot_tick = role.tick + pause
    if progress.flow is Flow.SNAPSHOT:
        progress.become_probe(snapshot.index + 1 if ok and snapshot is not None else progress.match_index + 1)
        progress.probe_sent = True  # the next heartbeat goes on


def on_install_snapshot(raft: RaftState, message: InstallSnapshot) -> None:
    """A snapshot of the leader has arrived, whole and verified: install it if it is of use (Figure 13)."""
    transitions.follow(raft, message.sender)
    snapshot = message.snapshot
    log = raft.log
    if raft.installing is not None:
        return
    if raft.wants_snapshot:
        if snapshot.index >= log.start.index:
            _install(raft, snapshot)
        return
    if snapshot.index <= raft.commit_index:
        _reply_match(raft, message, raft.commit_index)  # it is older than what is here (F62)
    elif agrees(raft, snapshot):
        tail.commit_to(raft, snapshot.index)  # nothing is missing: the entries are all in the log
        _reply_match(raft, message, snapshot.index)
    else:
        _install(raft, snapshot)


def agrees(raft: RaftState, snapshot: SnapshotMeta) -> bool:
    """Whether the log holds the snapshot's last entry, so that the entries behind it may stay (§7)."""
    if not raft.log.matches(snapshot.index, snapshot.term):
        return False
    if raft.log.chain(snapshot.index) != snapshot.chain:
        raise SafetyViolation(
            f"node {raft.node_id}: the snapshot at {snapshot.id} has chain value {snapshot.chain:016x}, "
            f"the log {raft.log.chain(snapshot.index):016x}: keep the files and report it"
        )
    return True


def _install(raft: RaftState, snapshot: SnapshotMeta) -> None:
    raft.installing = snapshot
    raft.pending.snapshot = snapshot
    raft.pending.snapshot_keeps_log = agrees(raft, snapshot)


def installed(raft: RaftState) -> None:
    """The snapshot is durable and is the state now: the log begins behind it."""
    snapshot = raft.installing
    assert snapshot is not None, "no snapshot was being installed"
    raft.installing = None
    if agrees(raft, snapshot):
        raft.log.compact(snapshot.index, snapshot.membership)
        raft.durability.index = max(raft.durability.index, snapshot.index)
    else:
        raft.log.reset(snapshot.log_start, snapshot.membership)
        raft.durability.reset(snapshot.index)
        raft.pending.log_was_reset(snapshot.index)
    raft.snapshot = snapshot
    raft.commit_index = max(raft.commit_index, snapshot.index)
    raft.applied_index = raft.handed_index = snapshot.index
    transitions.membership_changed(raft)
    if raft.leader is not None and raft.leader != raft.node_id:
        raft.reply(
            AppendReply(
                sender=raft.node_id,
                to=raft.leader,
                term=raft.term,
                round=0,
                match_index=snapshot.index,
                has_room=raft.has_room,
            )
        )


def _reply_match(raft: RaftState, message: InstallSnapshot, index: Index) -> None:
    raft.reply(
        AppendReply(
            sender=raft.node_id,
            to=message.sender,
            term=raft.term,
            round=0,
            match_index=min(index, raft.durability.index),
            has_room=raft.has_room,
        )
    )


def needed_behind(raft: RaftState) -> Index | None:
    """Behind which index a follower of this leader still needs entries from this log; None where nobody does.

    Counted is who was heard within an election time-out: with what it holds, or will hold once the snapshot that is on
    its way to it is installed. Who needs what is gone already is helped by a snapshot alone.
    """
    role = raft.role
    if not isinstance(role, Leader):
        return None
    needed = (
        progress.next_index - 1 if progress.flow is Flow.SNAPSHOT else progress.match_index
        for progress in role.progress.values()
        if role.tick - progress.contact_tick < raft.config.election_ticks
    )
    return min((index for index in needed if index >= raft.log.start.index), default=None)


def compactable(raft: RaftState, index: Index) -> bool:
    """Whether the log may be cut behind `index`: only what is in a durable snapshot may go (§7)."""
    return raft.snapshot is not None and index <= min(raft.snapshot.index, raft.applied_index)
