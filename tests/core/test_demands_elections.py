"""§5.1 and §5.2 of the Raft paper, sentence by sentence: terms, roles, votes, time-outs."""

from __future__ import annotations

import pytest

from raftkv.core.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.core.roles import Candidate, Follower, Leader
from raftkv.errors import PeerError, SafetyViolation
from raftkv.model import HardState
from tests.core.one import (
    Server,
    append,
    elect,
    heartbeat,
    holds,
    leader,
    of_type,
    one,
    snapshot_of,
    time_out,
    vote,
    vote_request,
)

T = 10  # the election time-out in ticks, see paper.PAPER


def candidate(**settings) -> Server:
    server = Server(1, **settings)
    time_out(server)
    return server


# ------------------------------------------------------------------------------ §5.1: terms


def test_a_server_starts_as_a_follower():
    """§5.2: when servers start up, they begin as followers, without a leader."""
    server = Server(1)
    assert isinstance(server.raft.role, Follower)
    assert server.raft.leader is None


MESSAGES_OF_TERM = {
    "append": lambda term: append([1], prev=1, term=term),
    "append reply": lambda term: holds(2, 1, term=term),
    "vote request": lambda term: vote_request(term, last=(9, 9)),
    "vote": lambda term: vote(2, term),
    "refusal": lambda term: vote(2, term, granted=False),
    "refused pre-vote": lambda term: vote(2, term, granted=False, pre_vote=True),
    "snapshot": lambda term: InstallSnapshot(sender=2, to=1, term=term, snapshot=snapshot_of([1], 1)),
    "timeout now": lambda term: TimeoutNow(sender=2, to=1, term=term),
    "read index": lambda term: ReadIndex(sender=2, to=1, term=term, token=7),
    "read index reply": lambda term: ReadIndexReply(sender=2, to=1, term=term, token=7, index=1),
}


@pytest.mark.parametrize("name", MESSAGES_OF_TERM)
@pytest.mark.parametrize("role", ["follower", "candidate", "leader"])
def test_a_newer_term_is_taken_over_and_makes_a_follower(name, role):
    """§5.1: whoever sees a larger term takes it over; a candidate or leader reverts to follower at once."""
    server = Server(1, terms=[1], term=1)
    if role != "follower":
        time_out(server)
    if role == "leader":
        elect(server)
    server.step(MESSAGES_OF_TERM[name](9))
    if name == "timeout now":  # it adopts 9, and stands in 10 because it is told to
        assert server.raft.term == 10
        return
    assert server.raft.term == 9
    assert isinstance(server.raft.role, Follower)
    assert server.hard_state.term == 9, "the term is part of what must be on stable storage (Figure 2)"


@pytest.mark.parametrize("name", MESSAGES_OF_TERM)
@pytest.mark.parametrize("role", ["follower", "candidate", "leader"])
def test_a_stale_term_changes_nothing(name, role):
    """§5.1: a request with a stale term number is rejected; a stale reply is ignored."""
    server = Server(1, terms=[1], term=5)
    if role != "follower":
        time_out(server)
    if role == "leader":
        elect(server)
    before, term = server.raft.role, server.raft.term
    log, commit = server.terms, server.commit
    server.step(MESSAGES_OF_TERM[name](1))
    assert server.raft.role is before
    assert (server.raft.term, server.terms, server.commit) == (term, log, commit)
    if role == "follower":
        assert server.raft.vote is None and server.raft.leader is None


@pytest.mark.parametrize("name", ["append", "snapshot"])
def test_a_stale_leader_is_told_of_the_newer_term(name):
    """§5.1, Figure 2: AppendEntries and InstallSnapshot of a stale term are answered with the current one."""
    server = Server(1, terms=[1], term=5)
    reply = one(server.step(MESSAGES_OF_TERM[name](1)), AppendReply)
    assert (reply.term, reply.rejected, reply.match_index) == (5, True, 0)


@pytest.mark.parametrize("pre_vote", [False, True])
def test_a_stale_candidate_is_told_of_the_newer_term(pre_vote):
    """§5.1, Figure 2: a RequestVote of a stale term is refused, with the current term."""
    server = Server(1, term=5)
    reply = one(server.step(vote_request(4, pre_vote=pre_vote)), RequestVoteReply)
    assert (reply.term, reply.granted, reply.pre_vote) == (5, False, pre_vote)


def test_a_stale_append_does_not_restart_the_clock():
    """§5.2: only AppendEntries of the *current* leader keep a follower from standing."""
    server = Server(1, terms=[1], term=5)
    server.tick(T - 1)
    server.step(append([1], prev=1, term=4))
    server.tick()
    assert isinstance(server.raft.role, Candidate)


def test_a_message_for_somebody_else_is_refused():
    """§5.1: servers speak by RPC, each to one receiver; a message that went astray must change nothing."""
    server = Server(1)
    with pytest.raises(PeerError):
        server.step(vote_request(5, to=3))
    assert server.raft.term == 0


# ------------------------------------------------------------------------------ §5.2: standing


def test_heartbeats_keep_a_follower_a_follower():
    """§5.2: a server remains a follower as long as it receives valid RPCs from a leader."""
    server = Server(1, terms=[1])
    for _ in range(20):
        server.tick(T - 1)
        server.step(heartbeat([1], term=1))
    assert isinstance(server.raft.role, Follower)
    assert server.raft.term == 1


def test_a_refused_append_of_the_leader_keeps_a_follower_too():
    """§5.2: it is hearing the leader that counts, whether or not its entries fit."""
    server = Server(1)
    server.tick(T - 1)
    server.step(append([1, 1], prev=1))
    server.tick(T - 1)
    assert isinstance(server.raft.role, Follower)


def test_a_follower_stands_after_the_election_timeout_and_not_before():
    """§5.2: with no communication over the election time-out it assumes that there is no leader."""
    server = Server(1)
    server.tick(T - 1)
    assert isinstance(server.raft.role, Follower)
    server.tick()
    assert isinstance(server.raft.role, Candidate)


def test_standing_raises_the_term_and_votes_for_oneself():
    """§5.2: to begin an election, a follower increments its term, votes for itself, and becomes candidate."""
    server = candidate(term=3)
    assert isinstance(server.raft.role, Candidate)
    assert (server.raft.term, server.raft.vote) == (4, 1)
    assert server.hard_state == HardState(4, 1)


def test_a_candidate_asks_every_other_server():
    """§5.2: it issues RequestVote RPCs in parallel to each of the other servers."""
    server = Server(1, voters=(1, 2, 3, 4, 5), terms=[1, 2])
    asked = of_type(time_out(server), RequestVote)
    assert [m.to for m in asked] == [2, 3, 4, 5]
    assert {(m.term, m.last_index, m.last_term, m.pre_vote, m.transfer) for m in asked} == {(3, 2, 2, False, False)}


def test_a_candidate_asks_only_when_its_own_vote_is_durable():
    """Figure 2 (persistent state): term and vote are on stable storage before anyone is asked. F1"""
    server = Server(1)
    server.slow = True
    assert not of_type(time_out(server), RequestVote)
    assert of_type(server.sync(), RequestVote)


@pytest.mark.parametrize("draw", range(T))
def test_election_timeouts_are_drawn_from_a_fixed_interval(draw):
    """§5.2: each time-out is chosen at random from [T, 2T)."""
    server = Server(1, draw=lambda n: min(draw, n - 1))
    server.tick(T + draw - 1)
    assert isinstance(server.raft.role, Follower)
    server.tick()
    assert isinstance(server.raft.role, Candidate)


def test_each_election_draws_a_new_timeout():
    """§5.2: each candidate restarts its randomized time-out at the start of an election."""
    draws = iter([0, 7, 3])
    server = Server(1, draw=lambda n: next(draws))
    server.tick(T)
    assert server.raft.term == 1
    server.tick(T + 6)
    assert server.raft.term == 1
    server.tick()
    assert server.raft.term == 2
    server.tick(T + 3)
    assert server.raft.term == 3


def test_hearing_the_leader_restarts_the_whole_timeout():
    """§5.2: the clock starts anew with every AppendEntries of the leader."""
    server = Server(1, terms=[1])
    server.tick(T - 1)
    server.step(heartbeat([1], term=1))
    server.tick(T - 1)
    assert isinstance(server.raft.role, Follower)
    server.tick()
    assert isinstance(server.raft.role, Candidate)


def test_granting_a_vote_restarts_the_clock():
    """Figure 2 (followers): granting a vote gives the candidate a whole time-out to win."""
    server = Server(1)
    server.tick(T - 1)
    server.step(vote_request(1))
    server.tick(T - 1)
    assert isinstance(server.raft.role, Follower)


@pytest.mark.parametrize(("term", "last"), [(9, (0, 0)), (2, (9, 9))])
def test_refusing_a_vote_does_not_restart_the_clock(term, last):
    """Figure 2 (followers): only a *granted* vote does; a newer term alone, or a refusal, does not."""
    server = Server(1, terms=[2], vote=3)
    server.tick(T - 1)
    assert not one(server.step(vote_request(term, last=last)), RequestVoteReply).granted
    server.tick()
    assert isinstance(server.raft.role, Candidate)


# ------------------------------------------------------------------------------ §5.2: voting


def test_one_vote_a_term_first_come_first_served():
    """§5.2: each server votes for at most one candidate in a term, the first that asks."""
    server = Server(1)
    assert one(server.step(vote_request(1, sender=2)), RequestVoteReply).granted
    assert not one(server.step(vote_request(1, sender=3)), RequestVoteReply).granted
    assert server.raft.vote == 2


def test_a_candidate_votes_for_nobody_else():
    """§5.2: it has voted for itself."""
    server = candidate()
    assert not one(server.step(vote_request(1, sender=2, last=(9, 1))), RequestVoteReply).granted


def test_a_repeated_request_of_the_same_candidate_is_granted_again():
    """Figure 2 (RequestVote 2): votedFor is null *or candidateId*; the first reply may have been lost (§5.5)."""
    server = Server(1)
    server.step(vote_request(1, sender=2))
    assert one(server.step(vote_request(1, sender=2)), RequestVoteReply).granted


def test_a_new_term_brings_a_new_vote():
    """§5.2: the one vote is per term."""
    server = Server(1)
    server.step(vote_request(1, sender=2))
    assert one(server.step(vote_request(2, sender=3)), RequestVoteReply).granted
    assert server.hard_state == HardState(2, 3)


def test_a_vote_goes_out_only_when_it_is_durable():
    """Figure 2 (persistent state): the vote is on stable storage before the reply. F1"""
    server = Server(1)
    server.slow = True
    assert not server.step(vote_request(1))
    assert one(server.sync(), RequestVoteReply).granted
    assert server.hard_state == HardState(1, 2)


def test_a_refusal_in_a_new_term_goes_out_only_when_the_term_is_durable():
    """Figure 2 (persistent state): a term that was spoken of must not be forgotten. F2"""
    server = Server(1, terms=[3])
    server.slow = True
    assert not server.step(vote_request(9, last=(0, 0)))
    assert one(server.sync(), RequestVoteReply).term == 9
    assert server.hard_state == HardState(9, None)


def test_a_vote_is_remembered_through_a_restart():
    """§5.2 with Figure 2: after a restart the vote of this term is still given away. F1"""
    server = Server(1)
    server.step(vote_request(4, sender=2))
    server.start()
    assert not one(server.step(vote_request(4, sender=3, last=(9, 3))), RequestVoteReply).granted
    assert one(server.step(vote_request(4, sender=2)), RequestVoteReply).granted


@pytest.mark.parametrize("role", ["voter", "candidate"])
def test_stepping_down_within_a_term_keeps_the_vote(role):
    """§5.2: one vote a term, also for a voter or candidate that then hears of the term's leader. F3"""
    server = Server(1)
    server.step(vote_request(1, sender=2)) if role == "voter" else time_out(server)
    voted = server.raft.vote
    server.step(heartbeat([1], term=1, sender=3))
    assert server.raft.vote == voted
    server.start()
    assert server.raft.vote == voted


def test_nobody_else_gets_a_vote_in_a_term_that_has_a_leader():
    """§5.2, Election Safety: whoever follows this term's leader, without having voted, gives its vote to nobody."""
    server = Server(1, terms=[1])
    server.step(heartbeat([1], term=1, sender=2))
    server.tick(T - 1)
    server.step(vote_request(1, sender=3, last=(9, 1), transfer=True))
    assert server.raft.vote is None


# ------------------------------------------------------------------------------ §5.2: the outcome


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7])
def test_a_majority_wins_and_less_does_not(size):
    """§5.2: a candidate wins with votes from a majority of the servers in the full cluster. F58"""
    server = Server(1, voters=tuple(range(1, size + 1)))
    time_out(server)
    needed = size // 2 + 1
    for voter in range(2, needed):
        server.step(vote(voter, 1))
        assert isinstance(server.raft.role, Candidate), f"{voter} of {size} votes are no majority"
    if needed > 1:
        server.step(vote(needed, 1))
    assert isinstance(server.raft.role, Leader)


def test_a_server_counts_once():
    """§5.2: a majority of *servers*; a vote that the network repeats is one vote."""
    server = candidate(voters=(1, 2, 3, 4, 5))
    server.step(vote(2, 1), vote(2, 1), vote(2, 1))
    assert isinstance(server.raft.role, Candidate)


def test_votes_must_be_for_the_same_term():
    """§5.2: votes from a majority *for the same term*."""
    server = candidate(voters=(1, 2, 3, 4, 5))
    server.tick(T)
    assert server.raft.term == 2
    server.step(vote(2, 1), vote(3, 1), vote(4, 1))
    assert isinstance(server.raft.role, Candidate)


def test_votes_of_strangers_do_not_count():
    """§5.2: servers *in the full cluster*: nobody else's vote counts."""
    server = candidate()
    server.step(vote(7, 1), vote(8, 1))
    assert isinstance(server.raft.role, Candidate)


def test_a_refusal_is_no_vote():
    """§5.2: only granted votes make a majority."""
    server = candidate()
    server.step(vote(2, 1, granted=False), vote(3, 1, granted=False))
    assert isinstance(server.raft.role, Candidate)


def test_a_granted_pre_vote_is_no_vote():
    """Thesis §9.6: a pre-vote is an opinion; it binds nobody, so it elects nobody."""
    server = candidate()
    server.step(vote(2, 1, pre_vote=True), vote(3, 1, pre_vote=True))
    assert isinstance(server.raft.role, Candidate)


@pytest.mark.parametrize("size", [1, 2])
def test_the_own_vote_counts_when_it_is_durable(size):
    """Figure 2 (persistent state): a vote for oneself binds only when it can't be forgotten. F1, F5"""
    server = Server(1, voters=tuple(range(1, size + 1)))
    server.slow = True
    server.tick(T)
    if size == 2:
        server.step(vote(2, 1))
    assert isinstance(server.raft.role, Candidate)
    server.sync()
    assert isinstance(server.raft.role, Leader)


def test_a_winner_tells_everybody_at_once():
    """§5.2: once it wins, it sends heartbeats to all other servers to prevent new elections."""
    server = candidate(voters=(1, 2, 3, 4, 5))
    server.step(vote(2, 1))
    sent = of_type(server.step(vote(3, 1)), AppendEntries)
    assert [m.to for m in sent] == [2, 3, 4, 5]
    assert {m.term for m in sent} == {1}


def test_a_leader_sends_heartbeats_for_ever():
    """§5.2: leaders send periodic heartbeats to all followers to maintain their authority."""
    server = leader()
    for _ in range(50):
        sent = of_type(server.tick(2), AppendEntries)
        assert {m.to for m in sent} == {2, 3}
    assert server.leads


@pytest.mark.parametrize("term", [1, 2])
def test_a_candidate_recognizes_a_leader_of_its_term_or_a_newer_one(term):
    """§5.2 (b): an AppendEntries with a term at least as large makes it a follower."""
    server = candidate()
    server.step(heartbeat([term], term=term, sender=3))
    assert isinstance(server.raft.role, Follower)
    assert (server.raft.leader, server.raft.term) == (3, term)


def test_a_candidate_rejects_a_leader_of_an_older_term():
    """§5.2 (b): with a smaller term the candidate rejects the RPC and continues in candidate state."""
    server = candidate(term=4)
    reply = one(server.step(heartbeat([4], term=4, sender=3)), AppendReply)
    assert (reply.term, reply.rejected) == (5, True)
    assert isinstance(server.raft.role, Candidate)


def test_a_split_vote_leads_to_a_new_election():
    """§5.2 (c): a candidate that times out increments its term and starts another round of RequestVote."""
    server = candidate()
    server.step(vote(2, 1, granted=False))
    sent = server.tick(T)
    assert server.raft.term == 2
    assert {m.term for m in of_type(sent, RequestVote)} == {2}
    server.step(vote(2, 1), vote(3, 1))
    assert isinstance(server.raft.role, Candidate), "votes of the election before are void"


def test_a_leader_never_stands():
    """§5.2: a leader leads until it fails or sees a higher term."""
    server = leader()
    server.tick(10 * T)
    server.raft.campaign()
    server.settle()
    assert (server.raft.term, server.leads) == (1, True)


def test_two_leaders_in_one_term_are_a_safety_violation():
    """Figure 3, Election Safety: at most one leader a term; who sees two must stop, not choose."""
    server = Server(1, terms=[1])
    server.step(heartbeat([1], term=1, sender=2))
    with pytest.raises(SafetyViolation):
        server.raft.step(heartbeat([1], term=1, sender=3))


def test_a_leader_that_hears_another_one_in_its_term_stops():
    """Figure 3, Election Safety: seen from the leader's side."""
    server = leader()
    with pytest.raises(SafetyViolation):
        server.raft.step(heartbeat([1], term=1, sender=3))


def test_a_restarted_leader_does_not_lead():
    """§5.2: servers start as followers; a leader's term ends with its process."""
    server = leader()
    server.start()
    assert isinstance(server.raft.role, Follower)
    assert (server.raft.term, server.raft.vote) == (1, 1)
    server.step(vote(2, 1), vote(3, 1))
    assert not server.leads, "votes of the life before are void"
