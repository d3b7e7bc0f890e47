"""The small parts of the core: majorities, progress, durability, what is pending, and the invariants themselves."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.core import invariants
from raftkv.core.durability import Durability
from raftkv.core.messages import AppendEntries, TimeoutNow
from raftkv.core.pending import Pending
from raftkv.core.progress import Flow, Progress
from raftkv.core.quorum import is_quorum, majority, reached_by_quorum
from raftkv.core.roles import Candidate, Follower, Joined, Learner, PreCandidate
from raftkv.model import HardState, Member, Membership
from tests.core.one import One, entries_of, meta


def joint(new, old):
    """A joint membership."""
    members = tuple(Member(node) for node in sorted({*new, *old}))
    return Membership(voters=tuple(sorted(new)), outgoing=tuple(sorted(old)), members=members)


@given(st.sets(st.integers(1, 7), min_size=1), st.sets(st.integers(1, 7)))
def test_any_two_quorums_of_a_membership_meet(new, old):
    """The reason why majorities work at all: two of them always have a node in common, in each half."""
    membership = joint(new, old)
    nodes = membership.all_voters()
    quorums = [set(c) for n in range(len(nodes) + 1) for c in combinations(nodes, n) if is_quorum(membership, c)]
    for half in filter(None, (new, old)):
        assert all(a & b & half for a in quorums for b in quorums)


@given(st.sets(st.integers(1, 7), min_size=1), st.sets(st.integers(1, 7)), st.lists(st.integers(0, 9), min_size=7))
def test_what_a_quorum_has_reached_is_the_greatest_number_that_a_quorum_has_reached(new, old, values):
    """Against the definition, by brute force."""
    membership = joint(new, old)
    value = dict(enumerate(values, 1))
    found = reached_by_quorum(membership, value.__getitem__)
    nodes = membership.all_voters()
    best = max(n for n in range(10) if is_quorum(membership, [node for node in nodes if value[node] >= n]))
    assert found == best


def test_majorities_of_small_clusters():
    """1 of 1, 2 of 2, 2 of 3, 3 of 4, 3 of 5."""
    assert [majority(n) for n in range(1, 6)] == [1, 2, 2, 3, 3]


def progress(next_index=1, **bounds):
    """A new follower's progress."""
    return Progress(next_index, 0, bounds.get("messages", 4), bounds.get("size", 1000))


def test_probing_sends_one_append_and_waits():
    """Until it is known where the logs part, one at a time (§5.3)."""
    one = progress(5)
    assert one.may_send_entries
    one.sent(7, 10)
    assert (one.may_send_entries, one.next_index) == (False, 5)


def test_replicating_sends_on_until_the_window_is_full():
    """In messages and in bytes; an acknowledgement makes room."""
    one = progress(messages=2)
    one.become_replicate()
    one.sent(1, 10)
    one.sent(2, 10)
    assert (one.may_send_entries, one.next_index, one.inflight_bytes) == (False, 3, 20)
    assert one.matched(1)
    assert not one.matched(1), "that is no news any more"
    assert (one.may_send_entries, one.inflight_bytes) == (True, 10)
    full = progress(size=15)
    full.become_replicate()
    full.sent(1, 15)
    assert not full.may_send_entries


def test_a_snapshot_stops_entries():
    """Nothing fits before it is there."""
    one = progress(3)
    one.become_snapshot(meta(9, 1))
    assert (one.may_send_entries, one.next_index, one.sending.index) == (False, 10, 9)
    with pytest.raises(AssertionError):
        late = progress()
        late.matched(9)
        late.become_snapshot(meta(9, 1))


def test_probing_never_goes_back_behind_what_matches():
    """What is known to match needs no second look."""
    one = progress()
    one.matched(6)
    one.become_probe(2)
    assert (one.next_index, one.flow) == (7, Flow.PROBE)


def test_a_write_makes_durable_what_is_left_of_it():
    """A truncation lowers what the writes under way can vouch for (F31)."""
    one = Durability(3, 1)
    first = one.begin(6, 1)
    one.truncated_from(5)
    second = one.begin(7, 2)
    assert one.persisted(first)
    assert (one.index, one.term) == (4, 1)
    assert one.persisted(second)
    assert (one.index, one.term, one.done) == (7, 2, 2)


def test_a_later_completion_includes_the_earlier_ones_and_late_news_is_none():
    """Completions may be reported out of order: writes themselves are done in order."""
    one = Durability(0, 0)
    first, second = one.begin(1, 1), one.begin(2, 1)
    assert one.persisted(second)
    assert one.index == 2
    assert not one.persisted(first)


def test_a_truncation_takes_back_what_was_durable():
    """Entries that are gone are not durable."""
    one = Durability(9, 1)
    one.truncated_from(4)
    assert one.index == 3


def test_a_reset_bounds_what_is_under_way():
    """A snapshot replaced the log: older writes can't reach behind it."""
    one = Durability(2, 1)
    write = one.begin(50, 1)
    one.reset(10)
    one.persisted(write)
    assert one.index == 10


@pytest.mark.parametrize("before", [2, 50])
def test_after_a_reset_the_log_is_durable_up_to_the_snapshot(before):
    """Which is durable itself; whatever was behind it is gone."""
    one = Durability(before, 1)
    one.reset(10)
    assert one.index == 10


def take(pending):
    """What is pending as a Ready."""
    return pending.take(Durability(0, 0), 1, 9, None)


def test_entries_cut_off_before_they_were_handed_out_are_not_written():
    """Nobody needs to truncate what was never written."""
    pending = Pending(0)
    pending.append(entries_of((1, 1, 1)))
    pending.truncate(2)
    ready = take(pending)
    assert ([entry.index for entry in ready.entries], ready.truncate_from) == ([1], None)


def test_entries_cut_off_after_they_were_handed_out_are_truncated():
    """And the lowest of several truncations counts."""
    pending = Pending(5)
    pending.truncate(4)
    pending.append(entries_of((2,), 4))
    pending.truncate(3)
    ready = take(pending)
    assert (ready.entries, ready.truncate_from) == ([], 3)
    assert pending.is_empty()


def test_entries_that_were_never_handed_out_need_no_second_truncation():
    """The disk's log ends where the first one has cut it: there is nothing to cut off there."""
    pending = Pending(5)
    pending.truncate(4)
    assert take(pending).truncate_from == 4
    pending.append(entries_of((2,), 4))
    pending.truncate(4)
    assert pending.is_empty()
    pending.append(entries_of((3,), 4))
    assert [entry.index for entry in take(pending).entries] == [4]
    pending.truncate(4)
    assert take(pending).truncate_from == 4


def test_the_appends_of_a_leader_that_steps_down_are_forgotten_but_not_its_heartbeats():
    """They name ranges of a log that may change before they are sent; a heartbeat names none."""
    pending = Pending(0)
    pending.messages = [
        AppendEntries(1, 2, 1, 0, 0, 0, 3, 0, 0, []),
        AppendEntries(1, 2, 1, 3, 1, 7, 3, 0, 0, []),
        TimeoutNow(1, 2, 1),
    ]
    pending.forget_appends()
    assert [type(message).__name__ for message in pending.messages] == ["AppendEntries", "TimeoutNow"]
    assert pending.messages[0].prev_index == 3


def test_only_a_ready_with_a_write_gets_a_new_number():
    """Others repeat the last one's, as they wait for it."""
    durability, pending = Durability(0, 0), Pending(0)
    pending.hard_state = HardState(1, 1)
    assert pending.take(durability, 1, 0, None).write == 1
    pending.durable_messages.append(TimeoutNow(1, 2, 1))
    ready = pending.take(durability, 1, 0, None)
    assert (ready.write, ready.must_persist) == (1, False)


def break_commit(raft):
    """A commit index past the log."""
    raft.commit_index = raft.log.last_index + 1


def break_applied(raft):
    """More applied than committed."""
    raft.handed_index = raft.applied_index = raft.commit_index + 1


def break_durable(raft):
    """More durable than there is."""
    raft.durability.index = raft.log.last_index + 1


def break_vote(raft):
    """A leader that voted for somebody else."""
    raft.vote = 2


def break_progress(raft):
    """A follower that is ahead of its leader."""
    raft.role.progress[2].match_index = raft.log.last_index + 5


def break_next(raft):
    """Next not above match."""
    raft.role.progress[2].next_index = raft.role.progress[2].match_index


def break_peers(raft):
    """A member that nobody replicates to."""
    del raft.role.progress[3]


def break_reads(raft):
    """A read that is counted but not there."""
    raft.role.reads_count += 1


def break_term(raft):
    """A log of a newer term than the node's."""
    raft.log.last_term = raft.term + 1


@pytest.mark.parametrize(
    "damage",
    [
        break_commit,
        break_applied,
        break_durable,
        break_vote,
        break_progress,
        break_next,
        break_peers,
        break_reads,
        break_term,
    ],
)
def test_the_invariants_reject_a_broken_core(damage):
    """A check that can't fail shows nothing."""
    raft = One().lead().settle(2, 3).raft
    invariants.check(raft)
    damage(raft)
    with pytest.raises(AssertionError):
        invariants.check(raft)


@pytest.mark.parametrize("field", ["term", "commit_index", "applied_index"])
def test_the_invariants_of_a_step_reject_what_goes_back(field):
    """Monotonic means monotonic."""
    raft = One().lead().settle(2, 3).raft
    before = invariants.Sample.of(raft)
    setattr(raft, field, getattr(raft, field) - 1)
    with pytest.raises(AssertionError, match="went back"):
        invariants.check_step(before, raft)


def break_suffrage(raft):
    """A follower that the membership makes a learner."""
    raft.log.set_base(Membership.of((2, 3), (1,)))


def break_guest(raft):
    """A guest that is a member."""
    raft.role = Joined()


def break_learner(raft):
    """A learner that is a voter."""
    raft.role = Learner()


def break_patience(raft):
    """A follower that would campaign while its leader is heard."""
    raft.role = Follower(leader=2, timeout=9)


def break_candidate(raft):
    """A candidate that has voted for another."""
    raft.role, raft.vote = Candidate(timeout=10), 3


def break_pre_candidate(raft):
    """One that stands for election in the middle of an install."""
    raft.role, raft.installing = PreCandidate(timeout=10), meta(9, 1)


def break_snapshot(raft):
    """A snapshot of what was not applied."""
    raft.snapshot = meta(raft.applied_index + 1, 1)


@pytest.mark.parametrize(
    "damage",
    [
        break_suffrage,
        break_guest,
        break_learner,
        break_patience,
        break_candidate,
        break_pre_candidate,
        break_snapshot,
    ],
)
def test_the_invariants_reject_a_broken_follower(damage):
    """What may not be of who does not lead."""
    raft = One((1, 1), term=1).raft
    invariants.check(raft)
    damage(raft)
    with pytest.raises(AssertionError):
        invariants.check(raft)


def test_the_invariants_of_a_step_reject_a_match_index_that_goes_back():
    """What a follower held durably, it holds as long as the leader leads (F29)."""
    raft = One().lead().settle(2, 3).raft
    before = invariants.Sample.of(raft)
    raft.role.progress[3].match_index = 0
    with pytest.raises(AssertionError, match="match index of n3 went back"):
        invariants.check_step(before, raft)


def test_the_invariants_of_a_step_reject_a_changed_vote_and_a_shorter_leaders_log():
    """A vote belongs to its term; a leader never removes entries (Leader Append-Only, §5.3)."""
    raft = One().lead().settle(2, 3).raft
    before = invariants.Sample.of(raft)
    raft.vote = 3
    with pytest.raises(AssertionError, match="vote"):
        invariants.check_step(before, raft)
    raft.vote = 1
    raft.log.last_index -= 1
    with pytest.raises(AssertionError, match="its own log"):
        invariants.check_step(before, raft)
