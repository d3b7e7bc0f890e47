"""What the paper demands of elections: §5.1, §5.2, §5.4.1, §6 (stickiness), thesis §§3.10, 4.2, 9.6."""

from __future__ import annotations

import pytest

from raftkv.core.messages import AppendEntries, AppendReply, RequestVote, RequestVoteReply, TimeoutNow
from raftkv.errors import ChangeRefused, InvalidArgument, PeerError, SafetyViolation
from raftkv.model import HardState
from tests.core.one import SETTINGS, One, entries_of, kinds, of

# §5.1: terms


def test_a_newer_term_is_taken_over_at_once():
    """§5.1: a server that sees a larger term updates its own to it."""
    node = One(term=3)
    node.hear(2, term=7)
    assert node.raft.term == 7
    assert node.hard_states[-1] == HardState(7, None)


def test_a_candidate_or_leader_with_an_old_term_becomes_follower():
    """§5.1: a candidate or leader that finds its term out of date reverts to follower at once."""
    leader = One().lead()
    leader.hear(2, term=5, prev=(0, 0))
    assert leader.role == "Follower"
    candidate = One(pre_vote=False)
    candidate.raft.campaign()
    candidate.take()
    assert candidate.role == "Candidate"
    candidate.step(RequestVoteReply(2, 1, 9, False))
    assert (candidate.role, candidate.raft.term) == ("Follower", 9)


@pytest.mark.parametrize("term", [1, 2])
def test_requests_with_an_old_term_are_rejected_with_the_newer_one(term):
    """§5.1: a request with a stale term is rejected, and the answer says which term is current."""
    node = One(term=3)
    [reply] = node.hear(2, term=term, prev=(0, 0), terms=(1,))
    assert reply == AppendReply(sender=1, to=2, term=3, round=0, match_index=0, rejected=True), (
        "and vouches for nothing"
    )
    assert node.log == []
    [vote] = node.asked(2, term=term)
    assert isinstance(vote, RequestVoteReply) and not vote.granted and vote.term == 3


def test_the_term_is_durable_before_anything_is_said_in_it():
    """§5.1, §5.2: a term that could be forgotten must not be spoken of; not even a refusal goes out before."""
    node = One(term=1)
    sent = node.asked(2, term=4, last=(0, 0), persist=False)
    assert sent == []
    assert of(RequestVoteReply, node.persist())[0].term == 4


# §5.2: leader election


def test_servers_begin_as_followers_without_a_leader():
    """§5.2: when servers start up, they begin as followers."""
    node = One(term=4, vote=1)
    assert (node.role, node.raft.leader, node.raft.term, node.raft.vote) == ("Follower", None, 4, 1)


def test_a_follower_stays_one_while_it_hears_a_leader():
    """§5.2: it remains a follower as long as it receives valid messages from a leader."""
    node = One(draw=lambda n: 0)
    for _ in range(10):
        node.hear(2, term=1, prev=(0, 0))
        node.tick(8)
    assert (node.role, node.raft.leader) == ("Follower", 2)


def test_silence_for_an_election_timeout_starts_an_election():
    """§5.2: hearing nothing over an election time-out, it assumes there is no leader and begins an election."""
    node = One(pre_vote=False, draw=lambda n: 3)
    assert node.tick(12) == []
    sent = node.tick(1)
    assert [(m.to, m.term, m.pre_vote) for m in of(RequestVote, sent)] == [(2, 1, False), (3, 1, False)]
    assert (node.role, node.raft.vote) == ("Candidate", 1)


def test_timeouts_are_drawn_from_an_interval():
    """§5.2: election time-outs are chosen randomly from a fixed interval, here [T, 2T)."""
    for drawn in (0, 4, 9):
        node = One(pre_vote=False, draw=lambda n, drawn=drawn: min(drawn, n - 1))
        node.tick(10 + drawn - 1)
        assert node.role == "Follower"
        node.tick(1)
        assert node.role == "Candidate"


def test_pre_votes_are_repeated_after_a_few_heartbeats():
    """They disturb nobody, so who got none asks again soon: after one heartbeat to three, drawn anew each time."""
    for drawn in (0, 1, 3):
        node = One(draw=lambda n, drawn=drawn: min(drawn, n - 1))
        node.raft.campaign()
        node.take()
        assert node.role == "PreCandidate"
        assert of(RequestVote, node.tick(2 + drawn - 1)) == []
        assert {message.pre_vote for message in of(RequestVote, node.tick(1))} == {True}


def test_time_outs_of_equal_dice_differ():
    """The place among the voters is added: two nodes don't stand at the same moment again and again (F44)."""
    timeouts = {me: One(node_id=me).raft.role.timeout for me in (1, 2, 3)}
    assert timeouts == {1: 10, 2: 11, 3: 12}


def test_a_candidate_votes_for_itself_and_asks_everybody_once_that_is_durable():
    """§5.2: it increments its term, votes for itself, and sends RequestVote to each of the others; durably first."""
    node = One(term=2, pre_vote=False)
    node.raft.campaign()
    assert node.take(persist=False) == []
    assert node.hard_states == [HardState(3, 1)]
    assert [m.to for m in of(RequestVote, node.persist())] == [2, 3]


def test_a_majority_of_the_full_cluster_wins():
    """§5.2: it wins with votes of a majority of the servers in the full cluster, for the same term."""
    node = One(voters=(1, 2, 3, 4, 5), pre_vote=False)
    node.raft.campaign()
    node.take()
    node.voted(2)
    assert node.role == "Candidate"
    node.voted(3)
    assert node.role == "Leader"


def test_half_of_an_even_cluster_is_no_majority():
    """§5.2: two of four is not a majority."""
    node = One(voters=(1, 2, 3, 4), pre_vote=False)
    node.raft.campaign()
    node.take()
    node.voted(2)
    assert node.role == "Candidate"
    node.voted(4)
    assert node.role == "Leader"


def test_one_voter_is_counted_once_however_often_it_answers():
    """§5.2: a majority of servers, not of answers."""
    node = One(voters=(1, 2, 3, 4, 5), pre_vote=False)
    node.raft.campaign()
    node.take()
    node.voted(2, 2, 2)
    assert node.role == "Candidate"


def test_votes_of_another_term_do_not_count():
    """§5.2: votes are for the same term."""
    node = One(term=4, pre_vote=False)
    node.raft.campaign()
    node.take()
    node.voted(2, term=4)
    node.voted(3, term=3)
    assert node.role == "Candidate"


def test_refused_votes_do_not_count():
    """§5.2: only granted votes win."""
    node = One(pre_vote=False)
    node.raft.campaign()
    node.take()
    node.voted(2, 3, granted=False)
    assert node.role == "Candidate"


def test_each_server_votes_for_at_most_one_candidate_in_a_term():
    """§5.2: first come, first served; a second candidate of the same term is refused."""
    node = One(term=1)
    assert of(RequestVoteReply, node.asked(2, term=2))[0].granted
    assert not of(RequestVoteReply, node.asked(3, term=2))[0].granted
    assert node.raft.vote == 2


def test_the_same_candidate_is_granted_its_vote_again():
    """§5.2: a repeated request gets the same answer (its first answer may have been lost)."""
    node = One(term=1)
    node.asked(2, term=2)
    assert of(RequestVoteReply, node.asked(2, term=2))[0].granted


def test_a_vote_outlives_a_restart():
    """§5.2, Figure 2: votedFor is on stable storage; after a restart the other candidate is still refused."""
    node = One(term=2, vote=2)
    assert not of(RequestVoteReply, node.asked(3, term=2))[0].granted


def test_a_granted_vote_is_sent_only_when_it_is_durable():
    """Figure 2: state is updated on stable storage before responding (F1)."""
    node = One(term=1)
    assert node.asked(2, term=2, persist=False) == []
    assert of(RequestVoteReply, node.persist())[0].granted


def test_nobody_votes_in_a_term_whose_leader_it_follows():
    """§5.2: the term has its leader; a late candidate of the same term gets nothing."""
    node = One(term=3)
    node.hear(2, term=3, prev=(0, 0))
    assert not any(reply.granted for reply in of(RequestVoteReply, node.asked(3, term=3, transfer=True)))


def test_granting_a_vote_restarts_the_election_clock():
    """§5.2: a follower becomes candidate only if it neither heard a leader nor granted a vote."""
    node = One(pre_vote=False)
    node.tick(9)
    node.asked(2, term=1)
    node.tick(9)
    assert node.role == "Follower"


def test_refusing_a_vote_in_a_newer_term_does_not_restart_the_clock():
    """§5.2: candidates that cannot win must not keep the one that can from standing (F44)."""
    node = One((1, 1), pre_vote=False)
    for term in (2, 3, 4):
        node.tick(3)
        node.asked(2, term=term, last=(0, 0))
    node.tick(1)
    assert node.role == "Candidate"


def test_a_leader_sends_heartbeats_to_all_at_once():
    """§5.2: once it wins, it sends heartbeats to all others to prevent new elections."""
    node = One(pre_vote=False)
    node.raft.campaign()
    node.take()
    sent = node.voted(2)
    assert {m.to for m in sent if type(m).__name__ == "AppendEntries"} == {2, 3}


def test_a_leader_goes_on_sending_heartbeats():
    """§5.2: periodic heartbeats to all followers."""
    node = One().lead()
    sent = node.tick(2)
    assert {m.to for m in sent if type(m).__name__ == "AppendEntries"} == {2, 3}


def test_a_candidate_gives_way_to_the_leader_of_its_term():
    """§5.2: an append from a leader whose term is at least as large makes the candidate a follower."""
    node = One(pre_vote=False)
    node.raft.campaign()
    node.take()
    node.hear(2, term=1, prev=(0, 0))
    assert (node.role, node.raft.leader, node.raft.vote) == ("Follower", 2, 1)


def test_a_candidate_ignores_a_leader_of_an_older_term():
    """§5.2: with a smaller term the candidate rejects it and stays candidate."""
    node = One(term=5, pre_vote=False)
    node.raft.campaign()
    node.take()
    node.hear(2, term=5, prev=(0, 0))
    assert node.role == "Candidate"


def test_a_split_vote_ends_in_another_election():
    """§5.2: if nobody wins, each candidate times out and starts anew, with a higher term."""
    node = One(pre_vote=False)
    node.raft.campaign()
    node.take()
    node.voted(2, granted=False)
    node.tick(10)
    assert (node.role, node.raft.term) == ("Candidate", 2)


@pytest.mark.parametrize("pre_vote", [True, False], ids=["asks first", "stands at once"])
def test_who_stands_for_election_gives_up_the_reads_it_forwarded(pre_vote):
    """Whom it asked leads no more as far as it knows: those who wait are told, and may ask again (F72)."""
    node = One(term=2, pre_vote=pre_vote)
    node.hear(2, term=2, prev=(0, 0))
    node.raft.read(7)
    node.take()
    node.raft.campaign()
    node.take()
    assert (node.role, node.dropped) == ("PreCandidate" if pre_vote else "Candidate", [7])


def test_stepping_down_within_a_term_keeps_the_vote():
    """Figure 2: votedFor belongs to the term and is not cleared within it (F3)."""
    node = One(pre_vote=False)
    node.raft.campaign()
    node.take()
    node.hear(2, term=1, prev=(0, 0))
    assert node.raft.vote == 1
    assert not any(r.granted for r in of(RequestVoteReply, node.asked(3, term=1)))


def test_a_cluster_of_one_elects_itself_when_its_vote_is_durable():
    """§5.2: its own vote is the majority, but only once it can't be forgotten (F5)."""
    node = One(voters=(1,))
    node.raft.campaign()
    node.take(persist=False)
    assert node.role == "Candidate"
    node.persist()
    assert node.role == "Leader"


def test_two_leaders_of_one_term_are_a_violation():
    """§5.2 Election Safety: an append of another leader of the own term cannot be."""
    node = One().lead()
    with pytest.raises(SafetyViolation, match="both lead"):
        node.hear(2, term=node.raft.term, prev=(0, 0))


# §5.4.1: election restriction


@pytest.mark.parametrize(
    ("last", "granted"),
    [((3, 2), True), ((4, 2), True), ((2, 2), False), ((9, 1), False), ((1, 3), True), ((0, 0), False)],
)
def test_a_vote_goes_only_to_a_log_that_is_at_least_as_up_to_date(last, granted):
    """§5.4.1: compare the last terms first, then the lengths."""
    node = One((1, 1, 2), term=4)
    assert of(RequestVoteReply, node.asked(2, term=5, last=last))[0].granted is granted


def test_a_request_for_votes_tells_the_end_of_the_log():
    """§5.4.1: RequestVote includes information about the candidate's log."""
    node = One((1, 1, 3), pre_vote=False)
    node.raft.campaign()
    assert {(m.last_index, m.last_term) for m in of(RequestVote, node.take())} == {(3, 3)}


# Thesis §9.6: pre-vote


def test_a_pre_vote_changes_no_term_and_no_vote():
    """Thesis §9.6: a server asks whether it could win before it raises its term; nobody's state changes (F38)."""
    node = One(term=3)
    node.raft.campaign()
    sent = node.take()
    assert [(m.term, m.pre_vote) for m in of(RequestVote, sent)] == [(4, True), (4, True)]
    assert (node.role, node.raft.term, node.hard_states) == ("PreCandidate", 3, [])
    voter = One(term=3)
    [reply] = voter.asked(2, term=9, pre_vote=True)
    assert reply.granted and reply.pre_vote and reply.term == 9
    assert (voter.raft.term, voter.raft.vote, voter.hard_states) == (3, None, [])


def test_only_a_majority_of_pre_votes_leads_to_a_real_election():
    """Thesis §9.6: it increments its term only if a majority would vote for it."""
    node = One(voters=(1, 2, 3, 4, 5))
    node.raft.campaign()
    node.take()
    node.voted(2, pre_vote=True)
    assert (node.role, node.raft.term) == ("PreCandidate", 0)
    sent = node.voted(3, pre_vote=True)
    assert (node.role, node.raft.term) == ("Candidate", 1)
    assert {m.to for m in of(RequestVote, sent)} == {2, 3, 4, 5}


def test_a_pre_vote_is_refused_to_a_log_that_is_behind():
    """Thesis §9.6: voters grant it only if they would grant the vote."""
    [reply] = One((1, 2)).asked(2, term=3, last=(5, 1), pre_vote=True)
    assert not reply.granted


def test_a_pre_vote_is_refused_while_a_leader_is_heard():
    """Thesis §9.6, §4.2.3: a server that hears from a leader refuses."""
    node = One(term=1)
    node.hear(3, term=1, prev=(0, 0))
    [reply] = node.asked(2, term=2, pre_vote=True)
    assert not reply.granted


def test_a_refused_pre_vote_with_a_newer_term_brings_that_term():
    """§5.1: the pre-candidate learns that it is behind."""
    node = One(term=1)
    node.raft.campaign()
    node.take()
    node.voted(2, granted=False, pre_vote=True, term=8)
    assert (node.role, node.raft.term) == ("Follower", 8)


def test_a_pre_candidate_that_hears_a_leader_follows_it():
    """Thesis §9.6: the cluster has a leader after all."""
    node = One(term=1)
    node.raft.campaign()
    node.take()
    node.hear(2, term=1, prev=(0, 0))
    assert (node.role, node.raft.leader, node.raft.term) == ("Follower", 2, 1)


# §6, thesis §4.2.3: disruptive servers


def test_a_vote_is_refused_within_the_minimum_timeout_of_hearing_a_leader():
    """§6: it neither updates its term nor grants its vote (F37)."""
    node = One(term=2)
    node.hear(2, term=2, prev=(0, 0))
    node.tick(9)
    assert node.asked(3, term=7) == []
    assert (node.raft.term, node.raft.vote, node.raft.leader) == (2, None, 2)


def test_after_the_minimum_timeout_the_vote_is_granted():
    """§6: only a leader that was heard recently protects."""
    node = One(term=2, draw=lambda n: n - 1)
    node.hear(2, term=2, prev=(0, 0))
    node.tick(10)
    assert of(RequestVoteReply, node.asked(3, term=7))[0].granted


def test_a_lost_connection_to_the_leader_ends_its_protection():
    """A deviation: when the leader's connection breaks, its word protects it no more, until it is heard again."""
    node = One(term=2)
    node.hear(2, term=2, prev=(0, 0))
    node.raft.peer_lost(2)
    assert of(RequestVoteReply, node.asked(3, term=3, pre_vote=True))[0].granted
    node.hear(2, term=2, prev=(0, 0))
    assert not of(RequestVoteReply, node.asked(3, term=3, pre_vote=True))[0].granted


def test_a_lost_connection_starts_a_pre_vote_soon():
    """A deviation: a dead leader's connections break, so a follower asks around at once instead of timing out."""
    node = One(term=2, draw=lambda n: 0)
    node.hear(2, term=2, prev=(0, 0))
    node.raft.peer_lost(2)
    assert of(RequestVote, node.tick(1))[0].pre_vote
    for me in (1, 2, 3):
        waiting = One(node_id=me, voters=(1, 2, 3, 4), term=2, draw=lambda n: n - 1)
        waiting.hear(4, term=2, prev=(0, 0))
        waiting.raft.peer_lost(4)
        turn = 2 * (me - 1) + 1
        assert of(RequestVote, waiting.tick(turn)) == [], f"it is not yet the turn of {me}"
        assert of(RequestVote, waiting.tick(1)), f"it is the turn of {me}"
    other = One(term=2)
    other.hear(2, term=2, prev=(0, 0))
    other.raft.peer_lost(3)
    assert of(RequestVote, other.tick(5)) == [], "only the leader's connection matters"


def test_who_lags_lets_others_go_first_and_votes_for_them_at_once():
    """A deviation: a node with much left to apply does not campaign early, but its vote keeps nobody waiting."""
    node = One(term=2, draw=lambda n: 0)
    node.hear(2, term=2, prev=(0, 0))
    node.raft.peer_lost(2, campaigns=False)
    assert of(RequestVote, node.tick(5)) == []
    assert of(RequestVoteReply, node.asked(3, term=3, pre_vote=True))[0].granted


def test_a_leader_refuses_votes_while_it_leads():
    """§6: a working leader is not deposed by a server with a larger term."""
    node = One().lead()
    assert node.asked(3, term=9) == []
    assert (node.role, node.raft.term) == ("Leader", 1)


def test_a_transfer_overrides_the_stickiness():
    """Thesis §4.2.3: a RequestVote may say that it may disrupt the leader, who has asked for it."""
    node = One(term=2)
    node.hear(2, term=2, prev=(0, 0))
    assert of(RequestVoteReply, node.asked(3, term=3, transfer=True))[0].granted


def test_a_stranger_with_a_newer_term_deposes_nobody():
    """§6: a removed server is no reason to step down, whatever it sends (F37)."""
    node = One().lead()
    for message in (AppendReply(9, 1, 50, 0, 0), RequestVoteReply(9, 1, 50, False), TimeoutNow(9, 1, 50)):
        node.step(message)
        assert (node.role, node.raft.term) == ("Leader", 1)


def test_a_leader_that_hears_no_majority_steps_down():
    """Thesis §6.2: if an election time-out passes without a round of heartbeats to a majority, it steps down (F40)."""
    node = One(voters=(1, 2, 3, 4, 5)).lead()
    for _ in range(5):
        assert node.role == "Leader"
        node.tick(2)
        node.holds(2, 0)
    assert (node.role, node.raft.leader) == ("Follower", None)


def test_a_leader_that_hears_a_majority_goes_on():
    """Thesis §6.2: two of four others are enough, whichever they are."""
    node = One(voters=(1, 2, 3, 4, 5)).lead()
    for at in range(20):
        node.tick(2)
        node.holds(2 + at % 2, 0)
        node.holds(4 + at % 2, 0)
    assert node.role == "Leader"


def test_a_leader_with_nothing_to_say_goes_on_to_speak():
    """§5.2: it sends every follower a heartbeat in each interval, or they would stand for election. Each is of a round
    of its own, so that its answer can't be taken for one to an earlier round (F72)."""
    node = One().lead().settle(2, 3)
    node.tick(2)  # they hear of the commit
    rounds = []
    for _ in range(3):
        beats = of(AppendEntries, node.tick(2))
        assert [(beat.to, beat.entries) for beat in beats] == [(2, []), (3, [])]
        rounds += {beat.round for beat in beats}
    assert len(rounds) == len({*rounds}) == 3


# Thesis §3.10: leadership transfer


def test_a_transfer_stops_commands_and_tells_a_caught_up_target():
    """Thesis §3.10: the leader stops accepting requests, brings the target up to date, sends TimeoutNow."""
    node = One().lead().settle(2, 3)
    node.propose("x")
    node.raft.transfer_leadership(2)
    assert of(TimeoutNow, node.take()) == []
    with pytest.raises(Exception, match="being transferred"):
        node.propose("y")
    [message] = of(TimeoutNow, node.holds(2, 2))
    assert message.to == 2


def test_a_transfer_that_fails_is_given_up_after_a_while():
    """Thesis §3.10: if it does not complete within about an election time-out, the leader resumes (F45, #696)."""
    node = One().lead().settle(2, 3)
    node.raft.transfer_leadership(2)
    for _ in range(5):
        node.tick(2)
        node.settle(2, 3)
    assert node.role == "Leader" and node.raft.role.transfer is None
    assert node.propose("x")


def test_timeout_now_is_repeated_while_the_transfer_lasts():
    """Thesis §3.10: the message may be lost (F45)."""
    node = One().lead().settle(2, 3)
    node.raft.transfer_leadership(3)
    assert len(of(TimeoutNow, node.take())) == 1
    assert len(of(TimeoutNow, node.tick(2))) == 1


def test_the_target_campaigns_at_once_without_pre_vote():
    """Thesis §3.10: the target starts an election immediately."""
    node = One(term=2)
    node.hear(2, term=2, prev=(0, 0))
    sent = of(RequestVote, node.told_to_lead(2))
    assert [(m.term, m.pre_vote, m.transfer) for m in sent] == [(3, False, True)] * 2


@pytest.mark.parametrize("stale", [1, 2])
def test_a_stale_timeout_now_is_ignored(stale):
    """Thesis §3.10: of an older term it means nothing (F48)."""
    node = One(term=3)
    node.hear(2, term=3, prev=(0, 0))
    assert node.told_to_lead(2, term=stale) == []
    assert node.role == "Follower"


@pytest.mark.parametrize("learners", [(4,), ()])
def test_who_never_campaigns_knows_of_no_leader_after_long_silence(learners):
    """A voter asks for votes then. A learner, or a node that is no member any more, would name the one that it once
    heard for ever, send clients there, and let them wait for changes that it will not hear of."""
    node = One(node_id=4, learners=learners, term=1)
    node.hear(2, term=1, prev=(0, 0))
    node.tick(2 * 10 - 1)
    assert node.raft.leader == 2
    node.tick()
    assert node.raft.leader is None
    node.hear(2, term=1, prev=(0, 0))
    assert node.raft.leader == 2


def test_a_learner_is_never_told_to_lead_and_never_campaigns():
    """Thesis §4.2.1: a non-voting server does not stand (F47)."""
    node = One(learners=(4,)).lead()
    with pytest.raises(InvalidArgument, match="no voter"):
        node.raft.transfer_leadership(4)
    learner = One(node_id=4, learners=(4,), term=1)
    learner.hear(2, term=1, prev=(0, 0))
    learner.told_to_lead(2)
    learner.tick(50)
    assert learner.role == "Learner"


def test_a_transfer_to_a_silent_node_is_refused():
    """To give leadership to a node that is not there would cost time (F46)."""
    node = One(voters=(1, 2, 3, 4, 5)).lead()
    for _ in range(6):
        node.tick(2)
        node.settle(2, 3)
    with pytest.raises(ChangeRefused, match="not heard"):
        node.raft.transfer_leadership(5)


def test_who_yielded_to_another_waits_a_whole_timeout_for_it_as_leader():
    """§5.2: the short wait of one that let another go first is over with the election; kept, it would end between
    two heartbeats, again and again, and with leases break the promise behind them (F73)."""
    node = One((1,), node_id=2, term=1)
    node.raft.campaign()
    node.take()
    node.asked(1, term=2, pre_vote=True)
    assert node.raft.role.timeout < 10
    node.asked(1, term=2)
    node.hear(1, term=2, terms=(2,))
    assert node.raft.role.timeout >= 10
    node.tick(9)
    assert node.role == "Follower"


def test_who_lost_a_leader_waits_a_whole_timeout_for_the_next_one():
    """§5.2: the short wait after a broken connection is not kept for the leader that was elected meanwhile."""
    node = One((1,), term=1)
    node.hear(2, term=1)
    node.raft.peer_lost(2)
    node.asked(3, term=2)
    node.hear(3, term=2, terms=(2,))
    assert node.raft.role.timeout >= 10


def test_a_message_for_somebody_else_is_an_error():
    """No correct peer sends it: the connection is wrong."""
    with pytest.raises(PeerError):
        One().step(RequestVote(2, 3, 1, 0, 0))


def test_a_leader_that_steps_down_asks_the_best_follower_to_take_over():
    """Thesis §3.10: a graceful end of leadership costs no time-out."""
    node = One().lead().settle(2, 3)
    node.propose("x")
    node.holds(3, 2)
    node.raft.step_down()
    sent = node.take()
    assert node.role == "Follower"
    assert [message.to for message in of(TimeoutNow, sent)] == [3]


def test_kinds_helper_names_messages():
    """The helper that other tests lean on."""
    assert kinds([RequestVote(1, 2, 1, 0, 0)]) == ["RequestVote"]
    assert [entry.index for entry in entries_of((1, 1), 5)] == [5, 6]


# Nodes without room (F13, F14)


def heard(node, round=1, **has_room):
    """Both followers have answered a broadcast; `_2=False`: number 2 has no room."""
    node.raft.tick(0)
    node.tick(2)
    for follower in (2, 3):
        node.holds(follower, node.raft.log.last_index, round=round, has_room=has_room.get(f"_{follower}", True))
    return node


def test_a_follower_without_room_leaves_the_election_to_others_but_not_for_ever():
    """It would refuse every write; but when nobody else can win, somebody has to lead."""
    node = One(term=2)
    node.hear(2, term=2, prev=(0, 0))
    timeout = node.raft.role.timeout
    node.raft.has_room = False
    node.raft.peer_lost(2)
    assert of(RequestVote, node.tick(timeout)) == []
    assert of(RequestVoteReply, node.asked(3, term=3, pre_vote=True))[0].granted
    assert of(RequestVote, node.tick(2 * SETTINGS["election_ticks"]))


def test_a_follower_says_with_every_answer_whether_it_has_room():
    """What fits and what does not: the leader reads it in either."""
    node = One(term=2)
    node.raft.has_room = False
    assert [reply.has_room for reply in of(AppendReply, node.hear(2, term=2, prev=(0, 0)))] == [False]
    assert [reply.has_room for reply in of(AppendReply, node.hear(2, term=2, prev=(5, 2)))] == [False]
    node.raft.has_room = True
    assert [reply.has_room for reply in of(AppendReply, node.hear(2, term=2, prev=(0, 0)))] == [True]


def test_leadership_goes_to_nobody_without_room():
    """Neither by order, nor when a leader looks for an heir or steps down; unless they are all without."""
    node = heard(One().lead().settle(2, 3), _2=False)
    with pytest.raises(ChangeRefused, match="node 2 has no room"):
        node.raft.transfer_leadership(2)
    node.raft.has_room = False
    assert node.raft.heir() == 3
    with pytest.raises(ChangeRefused, match="node 2 has no room"):
        node.raft.transfer_leadership(2)
    node.raft.step_down()
    assert [message.to for message in of(TimeoutNow, node.take())] == [3]
    everybody = heard(One().lead().settle(2, 3), _2=False, _3=False)
    everybody.raft.has_room = False
    assert everybody.raft.heir() is None
    everybody.raft.transfer_leadership(2)
    assert of(TimeoutNow, everybody.take())


def test_who_holds_all_that_is_committed_takes_over_before_who_has_room():
    """A voter without room can lead, if badly; one that lacks a committed entry is not elected at all (§5.4.1)."""
    node = heard(One().lead().settle(2, 3), _2=False)
    node.propose("x")
    node.holds(2, 2, round=1, has_room=False)
    assert node.raft.commit_index == 2
    node.raft.step_down()
    assert [message.to for message in of(TimeoutNow, node.take())] == [2]


def test_leadership_may_go_to_who_has_not_answered_yet():
    """It voted a moment ago; that its disk is full it would have to say first."""
    node = One().lead()
    node.raft.transfer_leadership(3)
    node.take()
    assert [message.to for message in of(TimeoutNow, node.holds(3, 1))] == [3]


def test_only_who_has_answered_lately_and_has_little_to_catch_up_with_is_an_heir():
    """Of the others nobody knows whether they could lead."""
    node = One(promotion_lag_max=3).lead().settle(2, 3)
    assert node.raft.heir() is None, "nobody has answered this leader's broadcasts"
    heard(node, _2=False)
    assert node.raft.heir() == 3
    node.propose("a", "b", "c", "d")
    assert node.raft.heir() is None, "four entries behind"
    node.holds(3, node.raft.log.last_index, round=1)
    assert node.raft.heir() == 3
    for _ in range(5):
        node.tick(2)
        node.holds(2, node.raft.log.last_index, round=1, has_room=False)
    assert node.raft.heir() is None, "silent"
