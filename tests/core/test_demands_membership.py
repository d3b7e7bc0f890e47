"""What the paper demands of membership changes: §6, thesis chapter 4."""

from __future__ import annotations

import pytest

from raftkv.core.messages import AppendEntries, RequestVote, TimeoutNow
from raftkv.entry import make_entry
from raftkv.errors import ChangeRefused, InvalidArgument, NotCaughtUp, NotLeader
from raftkv.model import EntryKind, Member, Membership, decode_membership, encode_membership
from tests.core.one import One, entries_of, of


def leader(voters=(1, 2, 3), learners=(), **settings):
    """A leader of an established term, whose followers and learners hold everything and answer heartbeats."""
    node = One(voters=voters, learners=learners, **settings).lead()
    node.tick(2)
    for other in (*voters[1:], *learners):
        node.holds(other, node.raft.log.last_index, round=node.raft.role.round)
    return node


def everyone_holds(node):
    """All that get the log hold all of it."""
    for _ in range(4):
        for other in list(getattr(node.raft.role, "progress", ())):
            node.holds(other, node.raft.log.last_index)


def memberships(node):
    """The memberships in the log, in words."""
    return [decode_membership(e.payload).describe() for e in node.log if e.kind == EntryKind.MEMBERSHIP]


def test_a_change_goes_through_a_joint_membership():
    """§6: C_old,new first; once it is committed, C_new."""
    node = leader(learners=(4,))
    node.raft.change_membership(Membership.of((1, 2, 3, 4)))
    node.take()
    assert memberships(node) == ["voters 1 2 3 4 (outgoing 1 2 3)"]
    everyone_holds(node)
    assert memberships(node) == ["voters 1 2 3 4 (outgoing 1 2 3)", "voters 1 2 3 4"]
    assert (node.raft.membership.is_joint, node.raft.commit_index) == (False, node.raft.log.last_index)


def test_a_membership_is_in_force_as_soon_as_it_is_in_the_log():
    """§6: a server always uses the latest configuration in its log, committed or not."""
    node = leader(learners=(4,))
    node.raft.change_membership(Membership.of((1, 2, 3, 4)))
    assert node.raft.membership.voters == (1, 2, 3, 4)
    follower = One(node_id=2)
    entry = make_entry(1, 1, 0, EntryKind.MEMBERSHIP, encode_membership(Membership.of((1, 2, 3), (4,))), 0)
    follower.step(AppendEntries(1, 2, 1, 0, 0, 0, 1, 0, 0, [entry]))
    assert follower.raft.membership.learners == (4,)


def test_a_joint_membership_commits_only_with_both_majorities():
    """§6: agreement requires separate majorities from both the old and the new configuration (F56)."""
    node = leader(voters=(1, 2, 3), learners=(4, 5))
    node.raft.change_membership(Membership.of((3, 4, 5), ()))
    node.take()
    index = node.raft.log.last_index
    node.holds(4, index)
    node.holds(5, index)
    assert node.raft.commit_index < index, "the new majority alone"
    node.holds(2, index)
    assert node.raft.commit_index >= index, "and a majority of the old one with the leader itself"


def test_an_election_in_a_joint_membership_needs_both_majorities():
    """§6: so do elections (F56)."""
    joint = Membership(voters=(3, 4, 5), outgoing=(1, 2, 3), members=tuple(Member(i) for i in (1, 2, 3, 4, 5)))
    node = One(voters=(1, 2, 3), pre_vote=False)
    entry = make_entry(1, 1, 0, EntryKind.MEMBERSHIP, encode_membership(joint), 0)
    node.step(AppendEntries(2, 1, 1, 0, 0, 0, 1, 0, 0, [entry]))
    node.raft.campaign()
    node.take()
    node.voted(4, 5)
    assert node.role == "Candidate", "the new majority alone"
    node.voted(2)
    assert node.role == "Leader"


def test_a_new_majority_is_asked_for_even_when_the_old_one_is_won():
    """§6: the other way round."""
    joint = Membership(voters=(3, 4, 5), outgoing=(1, 2, 3), members=tuple(Member(i) for i in (1, 2, 3, 4, 5)))
    node = One(voters=(1, 2, 3), pre_vote=False)
    entry = make_entry(1, 1, 0, EntryKind.MEMBERSHIP, encode_membership(joint), 0)
    node.step(AppendEntries(2, 1, 1, 0, 0, 0, 1, 0, 0, [entry]))
    node.raft.campaign()
    node.take()
    node.voted(2, 3)
    assert node.role == "Candidate"


def test_the_final_membership_is_not_appended_before_the_joint_one_is_committed():
    """§6: C_new only once C_old,new has been committed (F50)."""
    node = leader(learners=(4,))
    node.propose("x")
    node.raft.change_membership(Membership.of((1, 2, 3, 4)))
    node.take()
    before = node.raft.log.last_index - 1
    node.holds(2, before)
    node.holds(3, before)
    assert node.raft.commit_index == before, "something else was committed, but not the joint membership"
    assert memberships(node) == ["voters 1 2 3 4 (outgoing 1 2 3)"]


def test_learners_change_without_a_joint_membership():
    """Thesis §4.2.1: a node without a vote changes no majority."""
    node = leader()
    node.raft.change_membership(Membership.of((1, 2, 3), (4,)))
    node.take()
    everyone_holds(node)
    assert memberships(node) == ["voters 1 2 3 learners 4"]


def test_a_learner_gets_the_log_but_does_not_count():
    """Thesis §4.2.1: it is not counted for majorities (F47)."""
    node = One(voters=(1, 2, 3), learners=(4, 5)).lead()
    node.propose("x")
    node.holds(4, 2)
    node.holds(5, 2)
    assert node.raft.commit_index == 0
    node.holds(2, 2)
    assert node.raft.commit_index == 2


def test_learners_are_not_asked_for_votes():
    """Thesis §4.2.1."""
    node = One(learners=(4,), pre_vote=False)
    node.raft.campaign()
    assert {m.to for m in of(RequestVote, node.take())} == {2, 3}


def test_a_new_node_must_be_a_learner_first():
    """Thesis §4.2.1, etcd#6420: a wrong address must not cost the quorum."""
    node = leader()
    with pytest.raises(ChangeRefused, match="learner first"):
        node.raft.change_membership(Membership.of((1, 2, 3, 4)))


def test_a_learner_that_lags_is_not_promoted():
    """Thesis §4.2.1: the leader waits until the new server has caught up (F54)."""
    node = leader(learners=(4,), promotion_lag_max=3)
    for _ in range(5):
        node.propose("x")
        node.settle(2, 3)
    with pytest.raises(NotCaughtUp, match="5 entries behind"):
        node.raft.change_membership(Membership.of((1, 2, 3, 4)))
    node.holds(4, node.raft.log.last_index - 4)
    with pytest.raises(NotCaughtUp, match="4 entries behind"):
        node.raft.change_membership(Membership.of((1, 2, 3, 4)))
    node.holds(4, node.raft.log.last_index - 3)
    node.raft.change_membership(Membership.of((1, 2, 3, 4)))


def test_a_learner_that_does_not_answer_is_not_promoted():
    """etcd#6420: a voter that is not there costs the quorum."""
    node = One(learners=(4,)).lead().settle(2, 3)
    with pytest.raises(NotCaughtUp, match="does not answer"):
        node.raft.change_membership(Membership.of((1, 2, 3, 4)))


def test_a_learner_without_the_entry_that_made_it_one_is_not_promoted():
    """Whoever does not know that it is a member could refuse to vote: a cluster of one would be stuck."""
    node = One(voters=(1,), promotion_lag_max=50).lead()
    node.raft.change_membership(Membership.of((1,), (2,)))
    node.take()
    node.tick(2)
    node.holds(2, 0, round=node.raft.role.round)
    with pytest.raises(NotCaughtUp, match="does not yet hold the log"):
        node.raft.change_membership(Membership.of((1, 2)))


def with_learner(acked=0, match=0):
    """A leader that has added learner 4, which has answered so far and holds so much."""
    node = leader()
    node.raft.change_membership(Membership.of((1, 2, 3), (4,)))
    node.take()
    node.settle(2, 3)
    if acked or match:
        node.holds(4, match, round=acked)
    return node


@pytest.mark.parametrize(
    ("acked", "match", "unmet", "removed"),
    [(0, 0, (4,), ()), (0, 0, (), (4,)), (1, 0, (4,), (4,)), (0, 1, (4,), (4,)), (1, 1, (4,), (4,))],
)
def test_only_an_id_that_never_answered_may_be_given_again(acked, match, unmet, removed):
    """Whoever acknowledged a round or an entry may come back with what it promised; that nobody has met it, whoever
    asks for the change must say as well (F20)."""
    node = with_learner(acked, match)
    node.raft.change_membership(Membership.of((1, 2, 3)), unmet)
    assert node.raft.membership.removed == removed


def test_a_voters_id_is_never_given_again():
    """However silent it has been: it may have voted, or hold what was committed (F20)."""
    node = One().lead().settle(2)
    node.raft.change_membership(Membership.of((1, 2)), unmet=(3,))
    node.take()
    for _ in range(3):
        node.settle(2)
    assert node.raft.membership.removed == (3,)


def test_whether_a_change_may_begin_can_be_asked():
    """The answer is the error that the change would raise, and nothing changes."""
    node = leader(learners=(4,))
    with pytest.raises(NotLeader):
        One().raft.check_membership(Membership.of((1, 2, 3)))
    with pytest.raises(InvalidArgument, match="cannot be"):
        node.raft.check_membership(Membership.of((), (1, 2, 3)))
    node.raft.check_membership(Membership.of((1, 2, 3, 4)))
    assert node.raft.log.last_index == 1
    node.raft.change_membership(Membership.of((1, 2, 3, 4)))
    with pytest.raises(ChangeRefused, match="another change is under way"):
        node.raft.check_membership(Membership.of((1, 2, 3)))


def test_no_change_before_the_terms_no_op_is_committed():
    """Ongaro 2015 (raft-dev): a leader changes nothing before an entry of its own term is committed (F49)."""
    node = One(learners=(4,)).lead()
    with pytest.raises(ChangeRefused, match="not committed yet"):
        node.raft.change_membership(Membership.of((1, 2, 3)))


def test_one_change_at_a_time():
    """§6: a second change is refused until the first is done (F55)."""
    node = leader()
    node.raft.change_membership(Membership.of((1, 2, 3), (4,)))
    node.take()
    with pytest.raises(ChangeRefused, match="under way"):
        node.raft.change_membership(Membership.of((1, 2, 3), (4, 5)))


def test_no_change_during_a_transfer():
    """The next leader would have to finish what it does not know of."""
    node = leader(voters=(1, 2, 3))
    node.propose("x")
    node.raft.transfer_leadership(2)
    with pytest.raises(ChangeRefused, match="transferred"):
        node.raft.change_membership(Membership.of((1, 2)))


def test_only_the_leader_changes_the_membership():
    """§6: it is an entry like any other."""
    with pytest.raises(NotLeader):
        One(term=1).raft.change_membership(Membership.of((1, 2)))


def test_a_change_that_would_have_no_quorum_now_is_refused():
    """F46, F58: the silent ones are named."""
    node = leader(voters=(1, 2, 3, 4, 5))
    for _ in range(6):
        node.tick(2)
        node.settle(2, 3)
    with pytest.raises(ChangeRefused, match=r"\[4, 5\]"):
        node.raft.change_membership(Membership.of((1, 4, 5)))


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (Membership.of(()), "at least one voter"),
        (Membership(voters=(1, 2), members=(Member(1),)), "exactly the voters"),
        (
            Membership(voters=(1, 2, 3), members=(Member(1, "a:1"), Member(2, "a:1"), Member(3))),
            "used by more than one",
        ),
        (Membership(voters=(1, 1), members=(Member(1),)), "without repetition"),
        (Membership(voters=(1, 2), learners=(2,), members=(Member(1), Member(2))), "at once"),
        (Membership(voters=(0, 1), members=(Member(0), Member(1))), "node ids must be"),
    ],
)
def test_memberships_that_cannot_be_are_refused(target, text):
    """F57, F58: no voters, the same id or address twice, and so on: each is named."""
    with pytest.raises(InvalidArgument, match=text):
        leader().raft.change_membership(target)


def test_a_removed_id_never_comes_back():
    """A wiped node under an old id could make two quorums (F20, openraft#2002)."""
    node = leader(voters=(1, 2, 3, 4))
    node.raft.change_membership(Membership.of((1, 2, 3)))
    node.take()
    everyone_holds(node)
    assert node.raft.membership.removed == (4,)
    with pytest.raises(InvalidArgument, match="removed before"):
        node.raft.change_membership(Membership.of((1, 2, 3), (4,)))


def test_changing_to_the_present_membership_is_refused():
    """There is nothing to do, and saying so is clearer than an entry."""
    with pytest.raises(ChangeRefused, match="already"):
        leader().raft.change_membership(Membership.of((1, 2, 3)))


def test_a_leader_that_is_removed_manages_the_change_and_then_steps_down():
    """§6, thesis §4.2.2: it steps down once C_new is committed, and is not counted in it (F53)."""
    node = leader(voters=(1, 2, 3))
    node.raft.change_membership(Membership.of((2, 3)))
    node.take()
    node.holds(2, node.raft.log.last_index)
    node.holds(3, node.raft.log.last_index)
    assert memberships(node)[-1] == "voters 2 3"
    final = node.raft.log.last_index
    node.holds(2, final)
    assert (node.role, node.raft.commit_index) == ("Leader", final - 1), "its own copy does not count"
    sent = node.holds(3, final)
    assert (node.role, node.raft.commit_index) == ("Joined", final)
    assert len(of(TimeoutNow, sent)) == 1, "so that the others need not wait for a time-out"
    assert {m.commit_index for m in of(AppendEntries, sent)} == {final}, "and they learn of the commit"


def test_a_node_that_is_removed_hears_of_it():
    """A deviation: it gets one last message with the commit, so that it does not campaign (F37)."""
    node = leader(voters=(1, 2, 3))
    node.raft.change_membership(Membership.of((1, 2)))
    node.take()
    everyone_holds(node)
    assert 3 not in node.raft.role.progress
    assert node.raft.membership.voters == (1, 2)


def test_a_truncated_membership_rolls_back():
    """§6: a server falls back to the previous configuration in its log (F51)."""
    follower = One((1,), node_id=2, term=1)
    chain = follower.raft.log.last_chain
    entry = make_entry(2, 1, 0, EntryKind.MEMBERSHIP, encode_membership(Membership.of((1, 3), (2,))), chain)
    follower.step(AppendEntries(1, 2, 1, 1, 1, chain, 2, 0, 0, [entry]))
    assert follower.raft.membership.voters == (1, 3)
    follower.hear(3, term=2, prev=(1, 1), terms=(2,))
    assert (follower.raft.membership.voters, follower.role) == ((1, 2, 3), "Follower")


def test_who_was_to_become_a_voter_is_a_learner_again_when_that_is_truncated():
    """§6: its role goes back with the membership; a learner that stands for election disturbs those who vote."""
    node = One((1,), node_id=4, learners=(4,), term=1)
    assert node.role == "Learner"
    joint = Membership(voters=(1, 2, 3, 4), outgoing=(1, 2, 3), members=tuple(Member(i) for i in (1, 2, 3, 4)))
    chain = node.raft.log.last_chain
    entry = make_entry(2, 1, 0, EntryKind.MEMBERSHIP, encode_membership(joint), chain)
    node.step(AppendEntries(1, 4, 1, 1, 1, chain, 2, 0, 0, [entry]))
    assert node.role == "Follower"
    node.hear(2, term=2, prev=(1, 1), terms=(2,))
    assert (node.raft.membership.learners, node.role) == ((4,), "Learner")


def test_whom_an_uncommitted_change_leaves_out_still_campaigns():
    """Thesis §4.2.2: it may be needed until C_new is committed; afterwards it is quiet."""
    node = One((1,), node_id=2, term=1, pre_vote=False)
    chain = node.raft.log.last_chain
    entry = make_entry(2, 1, 0, EntryKind.MEMBERSHIP, encode_membership(Membership.of((1, 3))), chain)
    node.step(AppendEntries(1, 2, 1, 1, 1, chain, 2, 0, 0, [entry]))
    assert node.role == "Follower"
    node.hear(1, term=1, prev=(2, 1), commit=2)
    assert node.role == "Joined"
    node.tick(50)
    assert node.role == "Joined"


def test_who_has_no_place_among_the_voters_waits_a_whole_timeout_too():
    """A change that is not committed leaves it out: it may be needed still, but no earlier than the others."""
    node = One((1,), node_id=2, term=1)
    chain = node.raft.log.last_chain
    entry = make_entry(2, 1, 0, EntryKind.MEMBERSHIP, encode_membership(Membership.of((1, 3))), chain)
    node.step(AppendEntries(1, 2, 1, 1, 1, chain, 2, 0, 0, [entry]))
    node.hear(3, term=2, prev=(2, 1))
    assert (node.role, node.raft.role.timeout) == ("Follower", 10)


def test_a_brand_new_node_follows_but_does_not_vote():
    """Thesis §4.1: it accepts entries of a leader that it does not know; a wiped disk must not give votes (F20)."""
    node = One(node_id=9, voters=(), learners=())
    assert node.role == "Joined"
    assert node.asked(1, term=3, last=(9, 2), transfer=True) == []
    [reply] = node.hear(1, term=2, prev=(0, 0), terms=(1, 2))
    assert reply.match_index == 2


def test_a_learner_grants_its_vote_when_asked():
    """Thesis §4.1: servers vote whatever their own configuration says; the candidate's counts."""
    node = One((1,), node_id=4, learners=(4,), term=1)
    [reply] = node.asked(2, term=2)
    assert reply.granted


def test_a_new_leader_finishes_the_change_that_it_finds():
    """§6: the joint membership of an old leader is left once an entry of the new term is committed (F50)."""
    joint = Membership(voters=(1, 2, 3, 4), outgoing=(1, 2, 3), members=tuple(Member(i) for i in (1, 2, 3, 4)))
    node = One(voters=(1, 2, 3))
    entry = make_entry(1, 1, 0, EntryKind.MEMBERSHIP, encode_membership(joint), 0)
    node.step(AppendEntries(2, 1, 1, 0, 0, 0, 1, 0, 0, [entry]))
    node.raft.peer_lost(2)
    node.lead()
    everyone_holds(node)
    assert memberships(node)[-1] == "voters 1 2 3 4"


def test_demoting_a_voter_makes_it_a_learner():
    """Joint consensus allows any change, also this one."""
    node = leader(voters=(1, 2, 3))
    node.raft.change_membership(Membership.of((1, 2), (3,)))
    node.take()
    everyone_holds(node)
    assert node.raft.membership.describe() == "voters 1 2 learners 3"
    assert entries_of((1,))[0].index == 1
