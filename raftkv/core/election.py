"""Elections: pre-vote, votes, and what a new leader begins with (§5.2, §5.4.1, §8, thesis §9.6)."""

from __future__ import annotations

from raftkv.core import clocks, tail, transitions
from raftkv.core.messages import RequestVote, RequestVoteReply, TimeoutNow
from raftkv.core.quorum import is_quorum
from raftkv.core.raftstate import RaftState
from raftkv.core.roles import Campaigner, Candidate, Follower, Leader, PreCandidate
from raftkv.model import EntryKind


def may_campaign(raft: RaftState) -> bool:
    """Whether this node could lead at all: it has a vote, and its state reaches as far as its log begins."""
    return raft.is_needed_as_voter() and raft.installing is None and not raft.wants_snapshot


def campaign(raft: RaftState, *, transfer: bool = False) -> None:
    """Start an election, or a new round of one; nothing happens on a node that may not lead."""
    if isinstance(raft.role, Leader) or not may_campaign(raft):
        return
    if raft.config.pre_vote and not transfer:
        transitions.become_pre_candidate(raft)
        _ask_for_votes(raft, pre_vote=True)
        _count_pre_votes(raft)
    else:
        transitions.become_candidate(raft, transfer=transfer)
        _ask_for_votes(raft, pre_vote=False, transfer=transfer)


def _ask_for_votes(raft: RaftState, *, pre_vote: bool, transfer: bool = False) -> None:
    log = raft.log
    # Real votes may be asked for only once our own term and vote can't be forgotten; a pre-vote changes nothing.
    outbox = raft.pending.messages if pre_vote else raft.pending.durable_messages
    for voter in log.membership.all_voters():
        if voter != raft.node_id:
            outbox.append(
                RequestVote(
                    sender=raft.node_id,
                    to=voter,
                    term=raft.term + 1 if pre_vote else raft.term,
                    last_index=log.last_index,
                    last_term=log.last_term,
                    pre_vote=pre_vote,
                    transfer=transfer,
                )
            )


def hears_leader(raft: RaftState) -> bool:
    """Whether this node knows of a live leader, and so refuses to vote (leader stickiness, thesis §4.2.3)."""
    role = raft.role
    if raft.promise_ticks > 0:
        return True
    if isinstance(role, Leader):
        return raft.config.check_quorum  # else it would have stepped down by itself
    if isinstance(role, Campaigner):
        return False
    return role.leader is not None and not role.leader_lost and role.elapsed < raft.config.election_ticks


def on_request_vote(raft: RaftState, message: RequestVote) -> None:
    """Grant the vote or refuse it (§5.2, §5.4.1); a pre-vote leaves no trace here."""
    knows_nothing = raft.log.last_index == 0 and not raft.log.membership.voters
    if knows_nothing or (hears_leader(raft) and not message.transfer):
        # Not even the term is taken over: a node that was cut off must not depose a leader that works.
        if message.pre_vote:
            _refuse(raft, message)
        return
    if message.pre_vote:
        _on_pre_vote(raft, message)
        return
    if message.term > raft.term:
        transitions.become_follower(raft, message.term, None)
    role = raft.role
    free = raft.vote == message.sender or (raft.vote is None and raft.leader is None)
    if not free or not raft.log.is_at_least(message.last_term, message.last_index):
        _refuse(raft, message)
        return
    if raft.vote is None:
        raft.grant_vote(message.sender)
    if not isinstance(role, Leader | PreCandidate | Candidate):
        role.elapsed = 0  # a node that grants its vote gives the candidate time to win (§5.2)
    raft.pending.durable_messages.append(
        RequestVoteReply(sender=raft.node_id, to=message.sender, term=raft.term, granted=True, now_ms=raft.now_ms)
    )


def _on_pre_vote(raft: RaftState, message: RequestVote) -> None:
    free = message.term > raft.term or raft.vote in (None, message.sender)
    if free and raft.log.is_at_least(message.last_term, message.last_index):
        raft.pending.messages.append(
            RequestVoteReply(sender=raft.node_id, to=message.sender, term=message.term, granted=True, pre_vote=True)
        )
        _yield_to(raft, message)
    else:
        _refuse(raft, message)


def _yield_to(raft: RaftState, message: RequestVote) -> None:
    """Two nodes that ask at the same time would split the vote: the one with the weaker claim lets the other go first.

    A longer log is the better claim, then the lower id. The node that yields asks again soon, should the other fail.
    """
    log = raft.log
    theirs = (message.last_term, message.last_index, -message.sender)
    if isinstance(raft.role, PreCandidate) and theirs > (log.last_term, log.last_index, -raft.node_id):
        transitions.become_follower(raft, raft.term, None)
        if isinstance(raft.role, Follower):
            raft.role.timeout = raft.draw_pre_vote_timeout()


def _refuse(raft: RaftState, message: RequestVote) -> None:
    raft.reply(
        RequestVoteReply(
            sender=raft.node_id,
            to=message.sender,
            term=raft.term,
            granted=False,
            pre_vote=message.pre_vote,
        )
    )


def on_request_vote_reply(raft: RaftState, message: RequestVoteReply) -> None:
    """Count a vote, if it is for what this node asks for now."""
    role = raft.role
    if isinstance(role, PreCandidate) and message.pre_vote:
        if not message.granted or message.term == raft.term + 1:
            role.votes[message.sender] = message.granted
            _count_pre_votes(raft)
    elif isinstance(role, Candidate) and not message.pre_vote and message.term == raft.term:
        role.votes[message.sender] = message.granted
        if message.now_ms:
            role.clocks[message.sender] = message.now_ms - raft.monotonic_ms
        count_votes(raft)


def _count_pre_votes(raft: RaftState) -> None:
    role = raft.role
    assert isinstance(role, PreCandidate)
    if is_quorum(raft.log.membership, [voter for voter, granted in role.votes.items() if granted]):
        transitions.become_candidate(raft, transfer=False)
        _ask_for_votes(raft, pre_vote=False)


def count_votes(raft: RaftState) -> None:
    """Become leader with a majority of votes (§5.2)."""
    role = raft.role
    assert isinstance(role, Candidate)
    if is_quorum(raft.log.membership, [voter for voter, granted in role.votes.items() if granted]):
        leader = transitions.become_leader(raft)
        # Before the first entry: a new leader may be the one whose clock is wrong.
        clocks.judge(raft, leader)
        # A no-op, so that what older terms left can be committed (§8).
        tail.append_payloads(raft, EntryKind.NOOP, [raft.opening])


def on_timeout_now(raft: RaftState, message: TimeoutNow) -> None:
    """The leader wants this node to take over: campaign at once, without asking for pre-votes."""
    if isinstance(raft.role, Follower) and raft.role.leader in (None, message.sender):
        campaign(raft, transfer=True)
