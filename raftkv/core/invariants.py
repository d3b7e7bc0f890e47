"""What must hold of one core at any time, and from one step to the next.

Cluster-wide properties (one leader a term, equal logs, …) need to see every node; they belong to
whoever simulates a cluster. These here need one node only.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from raftkv.core.progress import Flow
from raftkv.core.raftstate import RaftState
from raftkv.core.roles import Candidate, Follower, Joined, Leader, Learner, PreCandidate
from raftkv.model import Index, Membership, NodeId, Term


class Sample(msgspec.Struct, frozen=True):
    """Those values of a core that may only go up."""

    term: Term
    vote: NodeId | None
    commit_index: Index
    applied_index: Index
    start_index: Index
    snapshot_index: Index
    write_done: int
    leader_of: Term | None
    """The term that it leads, if it leads one."""
    leader_last: Index
    matches: dict[NodeId, Index]

    @classmethod
    def of(cls, raft: RaftState) -> Sample:
        role = raft.role
        leads = isinstance(role, Leader)
        return cls(
            term=raft.term,
            vote=raft.vote,
            commit_index=raft.commit_index,
            applied_index=raft.applied_index,
            start_index=raft.log.start.index,
            snapshot_index=raft.snapshot.index if raft.snapshot is not None else 0,
            write_done=raft.durability.done,
            leader_of=raft.term if leads else None,
            leader_last=raft.log.last_index,
            matches={peer: p.match_index for peer, p in role.progress.items()} if isinstance(role, Leader) else {},
        )


def check(raft: RaftState) -> None:
    """Assert everything that holds of a core between any two inputs."""
    _check_pointers(raft)
    _check_log(raft)
    _check_role(raft)
    if isinstance(raft.role, Leader):
        _check_leader(raft, raft.role)


def _check_pointers(raft: RaftState) -> None:
    log = raft.log
    assert log.start.index <= raft.commit_index, f"start {log.start.index} > commit {raft.commit_index}"
    assert raft.commit_index <= log.last_index, f"commit {raft.commit_index} > last {log.last_index}"
    assert raft.applied_index <= raft.handed_index, f"applied {raft.applied_index} > handed {raft.handed_index}"
    assert raft.handed_index <= raft.commit_index, f"handed {raft.handed_index} > commit {raft.commit_index}"
    assert raft.durability.index <= log.last_index, f"durable {raft.durability.index} > last {log.last_index}"
    assert raft.durability.term <= raft.term, f"durable term {raft.durability.term} > term {raft.term}"
    assert raft.durability.done <= raft.durability.number, "a write is done that was never handed out"
    if not raft.wants_snapshot:
        assert log.start.index <= raft.applied_index, f"start {log.start.index} > applied {raft.applied_index}"
        if log.start.index:
            assert raft.snapshot is not None and log.start.index <= raft.snapshot.index, (
                f"start {log.start.index} is not covered by the snapshot {raft.snapshot}"
            )
    if raft.snapshot is not None and not raft.wants_snapshot:
        assert raft.snapshot.index <= raft.applied_index, (
            f"snapshot {raft.snapshot.index} > applied {raft.applied_index}"
        )


def _check_log(raft: RaftState) -> None:
    log = raft.log
    assert log.start.index <= log.membership_index <= log.last_index, (
        f"membership {log.membership_index} is not in [{log.start.index}, {log.last_index}]"
    )
    assert log.last_term == log.term(log.last_index), "the last term is not that of the last entry"
    assert log.last_chain == log.chain(log.last_index), "the last chain value is not that of the last entry"
    assert log.last_term <= raft.term, f"the log has term {log.last_term}, the node only {raft.term}"
    assert log.membership is log.membership_at(log.last_index), "the membership is not the newest in the log"
    assert not _problems(log.membership) or not log.membership.voters, f"{_problems(log.membership)}"


@lru_cache(maxsize=64)
def _problems(membership: Membership) -> list[str]:
    """Cached, else most of a check's time would be spent on a membership that never changes."""
    return membership.problems()


def _check_role(raft: RaftState) -> None:
    role, membership = raft.role, raft.membership
    if isinstance(role, Follower):
        assert raft.is_needed_as_voter(), "a follower has no vote"
        assert role.leader is None or role.leader_lost or role.timeout >= raft.config.election_ticks, (
            f"a follower of n{role.leader} campaigns after {role.timeout} ticks"
        )
    elif isinstance(role, Learner):
        assert raft.node_id in membership.learners, "a learner is none in its membership"
        assert not raft.is_needed_as_voter(), "a learner has a vote"
    elif isinstance(role, Joined):
        assert raft.node_id not in membership.all_nodes(), "a member is treated as a guest"
        assert not raft.is_needed_as_voter(), "a guest has a vote"
    elif isinstance(role, Candidate):
        assert raft.vote == raft.node_id, f"a candidate has voted for {raft.vote}"
    if isinstance(role, Candidate | PreCandidate):
        assert raft.installing is None, "a candidate installs a snapshot"
        assert not raft.wants_snapshot, "a candidate has no state"
        assert raft.leader is None, "a candidate has a leader"


def _check_leader(raft: RaftState, role: Leader) -> None:
    assert raft.vote == raft.node_id, f"a leader has voted for {raft.vote}"
    assert raft.durability.term == raft.term, "a leader's own vote is not durable"
    assert raft.log.last_index >= role.term_start, "a leader's no-op is gone"
    assert raft.log.term(raft.log.last_index) == raft.term, "a leader's last entry is of another term"
    assert list(role.progress) == sorted(role.progress), "progress is not ordered"
    assert raft.node_id not in role.progress, "a leader replicates to itself"
    missing = set(raft.membership.all_nodes()) - set(role.progress) - {raft.node_id}
    assert not missing, f"nobody replicates to {missing}"
    for peer, p in role.progress.items():
        assert p.match_index <= raft.log.last_index, f"n{peer} holds {p.match_index}, the leader {raft.log.last_index}"
        assert p.match_index < p.next_index, f"n{peer}: match {p.match_index} is not below next {p.next_index}"
        assert p.next_index <= raft.log.last_index + 1 or p.flow is Flow.SNAPSHOT, f"n{peer}: next {p.next_index}"
        assert p.inflight_count <= raft.config.inflight_messages_max, f"n{peer}: {p.inflight_count} appends in flight"
        assert p.acked_round <= role.round, f"n{peer} confirmed round {p.acked_round} of {role.round}"
        assert p.flow is not Flow.SNAPSHOT or p.sending is not None, f"n{peer} waits for no snapshot"
    waiting = len(role.reads_waiting) + sum(len(batch.reads) for batch in role.reads_started)
    assert role.reads_count == waiting, f"{role.reads_count} reads counted, {waiting} there"


def check_step(before: Sample, raft: RaftState) -> Sample:
    """Assert what holds between two samples of one core that did not restart in between; returns the new sample."""
    after = Sample.of(raft)
    assert before.term <= after.term, f"term went back from {before.term} to {after.term}"
    if before.term == after.term and before.vote is not None:
        assert before.vote == after.vote, f"the vote of term {after.term} changed from {before.vote} to {after.vote}"
    for field in ("commit_index", "applied_index", "start_index", "snapshot_index", "write_done"):
        was, now = getattr(before, field), getattr(after, field)
        assert was <= now, f"{field} went back from {was} to {now}"
    if before.leader_of is not None and before.leader_of == after.leader_of:
        assert before.leader_last <= after.leader_last, "a leader removed entries of its own log (§5.3)"
        for peer, match in before.matches.items():
            now = after.matches.get(peer, match)
            assert match <= now, f"the match index of n{peer} went back from {match} to {now}"
    return after
