"""Linearizable reads: ReadIndex, batched; leases as an option (§8, thesis §6.4)."""

from __future__ import annotations

from raftkv.core.messages import ReadIndex, ReadIndexReply
from raftkv.core.quorum import reached_by_quorum
from raftkv.core.raftstate import RaftState
from raftkv.core.roles import Campaigner, Candidate, Leader, PreCandidate, ReadBatch
from raftkv.errors import Busy, NotLeader
from raftkv.model import NodeId


def read(raft: RaftState, token: int) -> None:
    """Ask at which index a read may be answered; a follower asks its leader."""
    role = raft.role
    if isinstance(role, Leader):
        _take(raft, role, None, token)
    elif isinstance(role, Campaigner) or role.leader is None:
        raise NotLeader(None)
    elif len(role.reads) >= raft.config.pending_reads_max:
        raise Busy(f"{len(role.reads)} reads wait for the leader already")
    else:
        role.reads[token] = 0
        raft.pending.messages.append(ReadIndex(sender=raft.node_id, to=role.leader, term=raft.term, token=token))


def _take(raft: RaftState, role: Leader, origin: NodeId | None, token: int) -> None:
    if role.reads_count >= raft.config.pending_reads_max:
        raise Busy(f"{role.reads_count} reads wait for a round already")
    if _holds_lease(raft, role):
        _answer(raft, origin, token, raft.commit_index)
        return
    role.reads_waiting.append((origin, token))
    role.reads_count += 1


def start(raft: RaftState, role: Leader) -> bool:
    """Begin a round for the reads that wait; returns whether one was begun.

    Not before this term's no-op is committed: until then the leader may not know of everything that
    is committed (thesis §6.4, step 1).
    """
    if not role.reads_waiting or raft.commit_index < role.term_start:
        return False
    role.round += 1
    role.reads_started.append(ReadBatch(role.round, raft.commit_index, role.reads_waiting))
    role.reads_waiting = []
    return True


def confirm(raft: RaftState, role: Leader) -> None:
    """Answer the reads whose round a quorum has confirmed: it followed this leader after the read arrived."""
    progress = role.progress

    def acked(node: NodeId) -> int:
        return role.round if node == raft.node_id else progress[node].acked_round

    confirmed = reached_by_quorum(raft.log.membership, acked)
    while role.reads_started and role.reads_started[0].round <= confirmed:
        batch = role.reads_started.popleft()
        role.reads_count -= len(batch.reads)
        for origin, token in batch.reads:
            _answer(raft, origin, token, batch.index)
    while len(role.round_ticks) > 1 and role.round_ticks[1][0] <= confirmed:
        role.round_ticks.popleft()
    role.lease_round = confirmed


def _answer(raft: RaftState, origin: NodeId | None, token: int, index: int) -> None:
    if origin is None:
        raft.pending.reads.append((token, index))
        return
    raft.pending.messages.append(
        ReadIndexReply(sender=raft.node_id, to=origin, term=raft.term, token=token, index=index)
    )


def _holds_lease(raft: RaftState, role: Leader) -> bool:
    """Whether no other leader can exist yet: a quorum promised not to vote for an election time-out. It is counted from
    when the round that the quorum confirmed was *sent*, and allows for clocks of different speed (thesis §6.4.1)."""
    if not raft.config.lease_reads or role.timeout_now_sent or raft.commit_index < role.term_start:
        return False
    if not role.round_ticks or role.round_ticks[0][0] > role.lease_round:
        return raft.log.membership.all_voters() == (raft.node_id,)
    lease_ticks = int(raft.config.election_ticks * (1 - raft.config.clock_drift_max)) - 1
    return role.tick - role.round_ticks[0][1] < lease_ticks


def on_read_index(raft: RaftState, message: ReadIndex) -> None:
    """A follower asks; only the leader can tell."""
    role = raft.role
    if isinstance(role, Leader) and role.reads_count < raft.config.pending_reads_max:
        _take(raft, role, message.sender, message.token)
    else:
        raft.pending.messages.append(
            ReadIndexReply(sender=raft.node_id, to=message.sender, term=raft.term, token=message.token, index=None)
        )


def on_read_index_reply(raft: RaftState, message: ReadIndexReply) -> None:
    """The leader has answered; if this node still follows it, the read may be answered once the index is applied."""
    role = raft.role
    if isinstance(role, Leader | PreCandidate | Candidate) or role.reads.pop(message.token, None) is None:
        return
    if message.index is None:
        raft.pending.reads_dropped.append(message.token)
    else:
        raft.pending.reads.append((message.token, message.index))


def drop_all(raft: RaftState) -> None:
    """Leadership, or the leader, is lost: nobody will confirm the reads that wait."""
    role = raft.role
    if isinstance(role, Leader):
        batches = [batch.reads for batch in role.reads_started]
        for origin, token in [read for batch in [*batches, role.reads_waiting] for read in batch]:
            if origin is None:
                raft.pending.reads_dropped.append(token)
            else:
                raft.pending.messages.append(
                    ReadIndexReply(sender=raft.node_id, to=origin, term=raft.term, token=token, index=None)
                )
    elif not isinstance(role, Campaigner):
        raft.pending.reads_dropped += role.reads
        role.reads = {}


def expire(raft: RaftState, waiting: dict[int, int]) -> None:
    """Count a tick for each forwarded read; give up those whose question or answer seems lost."""
    for token in list(waiting):
        waiting[token] += 1
        if waiting[token] > raft.config.election_ticks:
            del waiting[token]
            raft.pending.reads_dropped.append(token)
