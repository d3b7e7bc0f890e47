"""AppendEntries as the leader sends them: entries within a follower's window, and heartbeats, to one or to all."""

from __future__ import annotations

from raftkv.core import handover, reads, snapshots
from raftkv.core.messages import AppendEntries
from raftkv.core.progress import Flow, Progress
from raftkv.core.raftstate import RaftState
from raftkv.core.roles import Leader
from raftkv.model import GENESIS_CHAIN, Index, NodeId


def flush(raft: RaftState, role: Leader) -> None:
    """Turn what was appended and asked into messages: once for all proposals since the last Ready."""
    round_begun = reads.start(raft, role)
    if role.appended:
        role.appended = False
        for peer, progress in role.progress.items():
            send_entries(raft, role, peer, progress)
    if round_begun:
        for peer, progress in role.progress.items():
            if progress.sent_round < role.round:
                send_heartbeat(raft, role, peer, progress)
        reads.confirm(raft, role)


def broadcast(raft: RaftState, role: Leader) -> None:
    """Begin a round: to each follower what it lacks, a snapshot if it wants one, or else a heartbeat."""
    role.round += 1
    if raft.config.lease_reads:
        role.round_ticks.append((role.round, role.tick))
    for peer, progress in role.progress.items():
        progress.probe_sent = False
        snapshots.offer_wanted(raft, role, peer, progress)
        send_entries(raft, role, peer, progress)
        if progress.sent_round < role.round:
            send_heartbeat(raft, role, peer, progress)
    if raft.config.lease_reads:
        reads.confirm(raft, role)  # when this node is the only voter, no answer will
    if role.transfer is not None:
        handover.continue_transfer(raft)


def send_entries(raft: RaftState, role: Leader, to: NodeId, progress: Progress) -> None:
    """Send `to` what it lacks, as far as its window allows."""
    log = raft.log
    while progress.next_index <= log.last_index:
        prev = progress.next_index - 1
        if prev < log.start.index and (progress.may_send_entries or progress.flow is Flow.REPLICATE):
            # No waiting for a full window: if what is in it was lost, no heartbeat could name an entry that is
            # gone, so no refusal would ever empty it.
            snapshots.send_snapshot(raft, role, to, progress)
            return
        if not progress.may_send_entries:
            return
        last = log.batch_end(prev, raft.config.batch_bytes_max)
        _send_append(raft, role, to, progress, prev, last)
        progress.sent(last, log.bytes_between(prev, last))


def send_heartbeat(raft: RaftState, role: Leader, to: NodeId, progress: Progress) -> None:
    """Send an append without entries. Its `prev_index` is the last entry sent, so that a lost one is noticed."""
    prev = progress.next_index - 1
    if progress.flow is Flow.SNAPSHOT or prev < raft.log.start.index:
        prev = 0
    _send_append(raft, role, to, progress, prev, prev)


def _send_append(raft: RaftState, role: Leader, to: NodeId, progress: Progress, prev: Index, last: Index) -> None:
    log = raft.log
    anchored = prev >= log.start.index
    raft.pending.messages.append(
        AppendEntries(
            raft.node_id,
            to,
            raft.term,
            prev,
            log.term(prev) if anchored else 0,
            log.chain(prev) if anchored else GENESIS_CHAIN,
            last,
            raft.commit_index,
            role.round,
            [],
        )
    )
    progress.sent_round = role.round
    progress.sent_commit = min(raft.commit_index, last)
