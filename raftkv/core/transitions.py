"""Every change of role, as a named function that asserts what must hold before it.

What follows from a change (messages to send, entries to append) is for its caller: `election`, `handover`, `tail`.
"""

from __future__ import annotations

from raftkv.core import reads
from raftkv.core.progress import Progress
from raftkv.core.quorum import is_quorum
from raftkv.core.raftstate import RaftState
from raftkv.core.roles import Campaigner, Candidate, Follower, Leader, PreCandidate
from raftkv.errors import SafetyViolation
from raftkv.model import NodeId, Term


def follow(raft: RaftState, leader: NodeId) -> None:
    """A message of this term's leader has come: it is alive, and nobody else is leader in this term."""
    role = raft.role
    if isinstance(role, Follower) and role.leader == leader and not role.leader_lost:
        role.elapsed = 0
        return
    if isinstance(role, Leader) or (not isinstance(role, Campaigner) and role.leader not in (None, leader)):
        raise SafetyViolation(f"node {raft.node_id}: {raft.leader} and {leader} both lead in term {raft.term}")
    if isinstance(role, Campaigner):
        become_follower(raft, raft.term, leader)
        return
    if isinstance(role, Follower) and (role.leader is None or role.leader_lost):
        role.timeout = raft.draw_timeout()  # the old one may have been a short one, drawn when there was no leader
    role.leader = leader
    role.leader_lost = False
    role.elapsed = 0


def become_follower(raft: RaftState, term: Term, leader: NodeId | None) -> None:
    """Follow `leader`, or wait for one, in `term` (§5.1); as a learner or guest where the membership says so."""
    assert term >= raft.term, f"term {term} is behind {raft.term}"
    reads.drop_all(raft)
    if isinstance(raft.role, Leader):
        raft.pending.forget_appends()
    _keep_promise(raft)
    if term > raft.term:
        raft.remember(term, None)  # a vote belongs to its term, and is never cleared within it
    before, raft.role = raft.role, raft.passive_role(leader)
    if leader is None and isinstance(before, Follower) and isinstance(raft.role, Follower):
        # A newer term alone does not restart the clock (§5.2): else candidates that can't win, but keep
        # raising the term, would keep the one that could from ever standing.
        raft.role.elapsed, raft.role.timeout = before.elapsed, before.timeout


def _keep_promise(raft: RaftState) -> None:
    """With leases, an old leader answers reads alone for as long as this node has promised not to vote. It promised
    when it heard the leader, and a newer term does not take the promise back, whoever tells of it (thesis §6.4.1)."""
    role = raft.role
    if not raft.config.lease_reads or isinstance(role, Leader | PreCandidate | Candidate) or role.leader is None:
        return
    raft.promise_ticks = max(raft.promise_ticks, raft.config.election_ticks - role.elapsed)


def become_pre_candidate(raft: RaftState) -> None:
    """Ask, before disturbing anyone, whether an election could be won (thesis §9.6). Term and vote stay."""
    assert not isinstance(raft.role, Leader), "a leader does not campaign"
    assert raft.is_needed_as_voter(), f"n{raft.node_id} has no vote"
    reads.drop_all(raft)
    raft.role = PreCandidate(timeout=raft.draw_pre_vote_timeout(), votes={raft.node_id: True})


def become_candidate(raft: RaftState, *, transfer: bool) -> None:
    """Raise the term and vote for oneself; that vote counts when it is durable (§5.2)."""
    assert not isinstance(raft.role, Leader), "a leader does not campaign"
    assert raft.is_needed_as_voter(), f"n{raft.node_id} has no vote"
    reads.drop_all(raft)
    raft.remember(raft.term + 1, raft.node_id)
    raft.role = Candidate(timeout=raft.draw_timeout(), transfer=transfer)


def become_leader(raft: RaftState) -> Leader:
    """Lead this term: everyone else's log is looked at anew (§5.3). The first entry is the caller's to append."""
    role = raft.role
    assert isinstance(role, Candidate), f"a {type(role).__name__} cannot become leader"
    assert raft.vote == raft.node_id, f"n{raft.node_id} has voted for {raft.vote}"
    assert is_quorum(raft.membership, [voter for voter, yes in role.votes.items() if yes]), f"{role.votes}"
    peers = [node for node in raft.membership.all_nodes() if node != raft.node_id]
    leader = raft.role = Leader(
        term_start=raft.log.last_index + 1,
        progress={peer: _new_progress(raft, 0) for peer in peers},
    )
    for peer, offset_ms in role.clocks.items():
        if peer in leader.progress:
            leader.progress[peer].clock_offset_ms = offset_ms
            leader.progress[peer].clock_told_ms = raft.monotonic_ms
    return leader


def membership_changed(raft: RaftState) -> None:
    """The newest membership in the log has changed; it is in force at once (§6)."""
    role = raft.role
    if isinstance(role, Leader):
        for node in raft.membership.all_nodes():
            if node != raft.node_id and node not in role.progress:
                role.progress[node] = _new_progress(raft, role.tick)
        role.progress = dict(sorted(role.progress.items()))
    elif not isinstance(role, Campaigner):
        fitting = raft.passive_role(role.leader)
        if type(fitting) is not type(role):
            fitting.elapsed, fitting.leader_lost, fitting.reads = role.elapsed, role.leader_lost, role.reads
            raft.role = fitting


def _new_progress(raft: RaftState, tick: int) -> Progress:
    config = raft.config
    return Progress(raft.log.last_index + 1, tick, config.inflight_messages_max, config.inflight_bytes_max)
