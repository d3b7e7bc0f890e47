"""What the paper demands of the log: §5.3, §5.4.2, §5.5, §8 (no-op), thesis §10.2.1; persistence of both ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.core.messages import AppendEntries, AppendReply
from raftkv.core.progress import Flow
from raftkv.errors import Busy, InvalidArgument, NotLeader, PeerError, SafetyViolation
from raftkv.model import EntryKind
from tests.core.one import One, entries_of, meta, of


def test_only_a_leader_takes_commands():
    """§5.1: the leader handles all client requests; a follower names it."""
    node = One(term=1)
    with pytest.raises(NotLeader) as caught:
        node.raft.propose([b"x"], 0)
    assert caught.value.leader is None
    node.hear(3, term=1, prev=(0, 0))
    with pytest.raises(NotLeader) as caught:
        node.raft.propose([b"x"], 0)
    assert caught.value.leader == 3


def test_a_command_is_appended_and_sent_to_all_at_once():
    """§5.3: the leader appends it as a new entry and sends it to each of the others in parallel."""
    node = One().lead().settle(2, 3)
    appends = of(AppendEntries, node.propose("x"))
    assert {(m.to, tuple(e.payload for e in m.entries)) for m in appends} == {(2, (b"x",)), (3, (b"x",))}


def test_an_entry_has_the_term_it_was_received_in_and_its_position():
    """§5.3: each entry stores a term number and an index."""
    node = One((1, 1), term=4).lead().settle(2, 3)
    node.propose("x")
    assert (node.log[-1].index, node.log[-1].term, node.log[-1].payload) == (4, 5, b"x")


def test_the_leader_sends_before_its_own_write_is_durable():
    """Thesis §10.2.1: it may write to its disk in parallel with replicating to the followers."""
    node = One().lead().settle(2, 3)
    node.raft.propose([b"x"], 0)
    assert len(of(AppendEntries, node.take(persist=False))) == 2


def test_several_commands_of_one_turn_leave_in_one_message():
    """Thesis §10.2.2: batching."""
    node = One().lead().settle(2, 3)
    node.raft.propose([b"x"], 0)
    node.raft.propose([b"y"], 0)
    assert [len(m.entries) for m in of(AppendEntries, node.take())] == [2, 2]


def test_appends_are_pipelined_behind_each_other():
    """Thesis §10.2.2: the next append goes without waiting for the answer to the last."""
    node = One().lead().settle(2, 3)
    node.propose("x")
    assert of(AppendEntries, node.propose("y"))[0].prev_index == 2


def test_the_window_bounds_messages_on_their_way():
    """F34: a slow follower's appends are bounded in number; an answer makes room."""
    node = One(voters=(1, 2), inflight_messages_max=2).lead().settle(2)
    for command in "abcd":
        node.propose(command)
    progress = node.raft.role.progress[2]
    assert (progress.inflight_count, progress.next_index) == (2, 4)
    assert [m.last_index for m in of(AppendEntries, node.holds(2, 2))] == [5]


def test_the_window_bounds_bytes_on_their_way():
    """F34: and in bytes."""
    node = One(voters=(1, 2), inflight_bytes_max=100).lead().settle(2)
    for _ in range(5):
        node.propose("x" * 60)
    assert node.raft.role.progress[2].inflight_count == 2


def test_a_batch_is_bounded_in_bytes_but_never_empty():
    """F32: batches are cut at their limit; one entry larger than it still goes, alone."""
    node = One(voters=(1, 2), batch_bytes_max=150).lead().settle(2)
    node.raft.propose([b"x" * 50, b"y" * 50, b"z" * 500], 0)
    assert [[len(e.payload) for e in m.entries] for m in of(AppendEntries, node.take())] == [[50], [50], [500]]


def test_a_command_that_is_too_large_is_refused_before_it_is_appended():
    """F33: a clean error, and never in the log."""
    node = One(entry_bytes_max=10).lead().settle(2, 3)
    with pytest.raises(InvalidArgument, match="at most 10"):
        node.raft.propose([b"ok", b"x" * 11], 0)
    assert node.take() == []
    assert node.raft.log.last_index == 1
    node.raft.propose([b"x" * 10], 0)


def test_uncommitted_bytes_are_bounded():
    """F34: over the bound commands are refused, until something commits."""
    node = One(uncommitted_bytes_max=150).lead().settle(2, 3)
    node.propose("x" * 50)
    with pytest.raises(Busy, match="wait to be committed"):
        node.raft.propose([b"x" * 80], 0)
    node.settle(2)
    node.propose("x" * 80)


def test_up_to_the_bound_uncommitted_bytes_are_taken():
    """F34: the bound itself is allowed, not a byte more."""
    node = One(uncommitted_bytes_max=500).lead().settle(2, 3)
    node.propose("x" * 100)
    left = 500 - node.raft.log.bytes_between(node.raft.commit_index, node.raft.log.last_index)
    with pytest.raises(Busy):
        node.raft.propose([b"x" * left, b"y"], 0)
    node.raft.propose([b"x" * (left - 1), b"y"], 0)


def test_one_command_is_taken_even_when_it_alone_is_over_the_bound():
    """A bound must not make a legal command impossible."""
    node = One(uncommitted_bytes_max=10).lead().settle(2, 3)
    node.propose("x" * 50)


def test_an_entrys_time_never_goes_back_along_the_log():
    """The leader's clock may jump; the log's time does not (F73)."""
    node = One().lead().settle(2, 3)
    node.propose("a", now_ms=5_000)
    node.propose("b", now_ms=4_000)
    node.propose("c", now_ms=6_000)
    assert [entry.time_ms for entry in node.log[-3:]] == [5_000, 5_000, 6_000]


def test_a_follower_accepts_what_fits_behind_prev():
    """§5.3: if it finds prev, it appends."""
    node = One((1, 1))
    [reply] = node.hear(2, term=2, terms=(2, 2), round=5)
    assert node.terms == [1, 1, 2, 2]
    assert reply == AppendReply(sender=1, to=2, term=2, round=5, match_index=4)


def test_a_follower_refuses_when_it_has_no_entry_at_prev():
    """§5.3: if it does not find an entry with that index and term, it refuses; and says where its log ends."""
    node = One((1, 1))
    [reply] = node.hear(2, term=2, prev=(5, 2), terms=(2,))
    assert (reply.rejected, reply.conflict_index, reply.conflict_term) == (True, 3, None)
    assert node.terms == [1, 1]


def test_a_follower_refuses_when_the_entry_at_prev_has_another_term():
    """§5.3; and names the first index of the term that conflicts, so that the leader skips it whole."""
    node = One((1, 2, 2, 2))
    [reply] = node.hear(2, term=3, prev=(4, 3), terms=(3,))
    assert (reply.rejected, reply.conflict_index, reply.conflict_term) == (True, 2, 2)


def test_equal_index_and_term_with_another_chain_is_a_violation():
    """Log Matching is verified: the same (index, term) with a different history cannot be (F19)."""
    node = One((1, 1))
    with pytest.raises(SafetyViolation, match="chain value"):
        node.hear(2, term=2, terms=(2,), chain=4711)


def test_an_equal_entry_with_another_chain_is_a_violation():
    """The same, for an entry inside the message."""
    node = One((1, 1))
    other = entries_of((1, 1))[:1] + entries_of((1,), 2, 777)
    message = AppendEntries(2, 1, 2, 0, 0, 0, 2, 0, 0, other)
    with pytest.raises(SafetyViolation, match="chain value"):
        node.step(message)


def test_a_conflicting_entry_and_all_behind_it_are_removed():
    """§5.3: an existing entry that conflicts with a new one goes, with all that follow."""
    node = One((1, 2, 2, 2))
    node.hear(2, term=3, prev=(1, 1), terms=(3,))
    assert (node.terms, node.truncated) == ([1, 3], 2)


def test_a_late_shorter_append_removes_nothing():
    """§5.3: only a conflict removes entries; a delayed append of a prefix leaves the log alone (F28)."""
    node = One((1, 1, 1, 1), term=2)
    node.hear(2, term=2, prev=(1, 1), terms=(1,))
    assert (node.terms, node.truncated) == ([1, 1, 1, 1], None)


def test_a_repeated_append_changes_nothing():
    """§5.5: Raft RPCs are idempotent."""
    node = One((1,))
    node.hear(2, term=2, prev=(1, 1), terms=(2, 2))
    before = list(node.appended)
    [reply] = node.hear(2, term=2, prev=(1, 1), terms=(2, 2))
    assert (node.terms, node.appended, reply.match_index) == ([1, 2, 2], before, 3)


def test_an_append_that_overlaps_adds_only_what_is_new():
    """§5.3: entries that are there are skipped."""
    node = One((1, 1))
    node.hear(2, term=2, prev=(1, 1), terms=(1, 2))
    assert node.terms == [1, 1, 2]
    assert [entry.index for entry in node.appended] == [3]


def compacted_follower(*terms, start):
    """A follower whose entries of these terms are all committed, and compacted up to `start`."""
    node = One(terms)
    node.hear(2, commit=len(terms))
    log = node.raft.log
    node.raft.snapshot_taken(meta(start, log.term(start), log.chain(start)))
    node.raft.compact(start)
    return node


def straddling(node, entries, prev, term=2):
    """An append of `entries` behind `prev`, which is compacted here."""
    return AppendEntries(2, 1, term, prev, 1, 4711, prev + len(entries), 0, 0, entries)


def test_an_append_that_begins_in_what_is_compacted_adds_what_is_new():
    """§7: what is compacted was committed, so it is as the leader has it; the rest is looked at as ever."""
    node = compacted_follower(1, 1, 1, 1, start=3)
    whole = entries_of((1, 1, 1, 1, 2))
    [reply] = node.step(straddling(node, whole[1:], prev=1))
    assert (reply.rejected, reply.match_index, node.raft.log.last_index) == (False, 5, 5)
    assert [entry.index for entry in node.appended] == [5]
    [reply] = node.step(straddling(node, whole[1:3], prev=1))
    assert (reply.rejected, reply.match_index) == (False, 3)


def test_an_append_that_contradicts_what_is_compacted_is_a_violation():
    """Log Matching is verified where the log begins, too: both have entry 3, and with another history (F19)."""
    node = compacted_follower(1, 1, 1, 1, start=3)
    with pytest.raises(SafetyViolation, match="entry 3@1 has chain value"):
        node.step(straddling(node, entries_of((1, 1, 1, 2), 2, 4711), prev=1))
    assert node.raft.log.last_index == 4


def test_what_is_committed_is_never_removed():
    """§5.4.3: a leader that conflicts with a committed entry would be a violation."""
    node = One((1, 1))
    node.hear(2, term=1, commit=2, prev=(2, 1))
    with pytest.raises(SafetyViolation, match="committed"):
        node.hear(3, term=2, prev=(1, 1), terms=(2,))
    assert node.terms == [1, 1]


def test_a_leader_whose_prev_conflicts_with_a_committed_entry_is_a_violation():
    """The same, noticed at the consistency check."""
    node = One((1, 1))
    node.hear(2, term=1, commit=2, prev=(2, 1))
    with pytest.raises(SafetyViolation, match="is committed"):
        node.hear(3, term=2, prev=(2, 2))


def test_a_message_whose_entries_are_not_those_it_names_is_refused():
    """Whoever attached the entries attached wrong ones: the connection is closed, nothing else happens."""
    node = One((1,))
    for entries in ([], entries_of((2,), 5)):
        with pytest.raises(PeerError):
            node.step(AppendEntries(2, 1, 2, 1, 1, node.raft.log.last_chain, 2, 0, 0, entries))
    assert node.terms == [1]


def test_an_append_of_entries_newer_than_its_own_term_is_refused():
    """§5.1: no leader has entries of a term that it has not reached."""
    node = One((1,))
    with pytest.raises(PeerError, match="in term 2"):
        node.hear(2, term=2, prev=(1, 1), terms=(2, 3))
    assert node.terms == [1]


@pytest.mark.parametrize("claim", [{"match": 2}, {"match": 99}, {"match": 1, "round": 1000}], ids=str)
def test_an_answer_to_what_was_never_sent_is_refused(claim):
    """Who claims to hold entries or to have seen rounds that don't exist is broken: neither does this leader stop
    for it, or one broken node would stop leader after leader, nor are reads confirmed by it (F72)."""
    node = One().lead().settle(2, 3)
    node.raft.read(7)
    node.take()
    with pytest.raises(PeerError, match="node 2 says"):
        node.holds(2, **claim)
    assert node.reads == {}
    assert node.tick(2)
    assert node.role == "Leader"
    node.holds(3, 1, round=node.raft.role.round)
    assert node.reads == {7: 1}


def test_a_follower_acknowledges_only_what_is_durable():
    """Figure 2: respond after updating stable storage (F4)."""
    node = One((1,), term=2)
    node.hear(2, term=2, prev=(1, 1))
    assert node.hear(2, term=2, terms=(2, 2), persist=False) == []
    [reply] = node.persist()
    assert reply.match_index == 3


def test_a_heartbeat_is_answered_at_once_but_only_with_what_is_durable():
    """F16: a slow disk does not look like a dead node, and still nothing is claimed that could be forgotten."""
    node = One((1,), term=2)
    node.hear(2, term=2, prev=(1, 1))
    node.hear(2, term=2, terms=(2, 2), persist=False)
    [reply] = node.hear(2, term=2, persist=False)
    assert (reply.rejected, reply.match_index) == (False, 1)


def test_an_answer_in_a_new_term_waits_until_the_term_is_durable():
    """Figure 2: currentTerm is on stable storage before responding."""
    node = One((1,))
    assert node.hear(2, term=5, persist=False) == []
    assert of(AppendReply, node.persist())[0].term == 5


def test_a_refusal_in_a_new_term_waits_until_the_term_is_durable_too():
    """Figure 2: currentTerm is on stable storage before responding, whatever the answer."""
    node = One((1,), vote=1)
    assert node.hear(2, term=5, prev=(9, 4), persist=False) == []
    [reply] = node.persist()
    assert (reply.rejected, reply.term) == (True, 5)
    [reply] = node.hear(2, term=5, prev=(9, 4), persist=False)
    assert reply.rejected, "and no longer"


def test_a_deposed_leader_sends_no_entries_any_more():
    """Its log may change before the appends that it has decided on are sent, and these name a range of it (F30)."""
    node = One((1, 1, 1), term=1).lead()
    reply = AppendReply(2, 1, 2, 0, 0, rejected=True, prev_index=3, conflict_index=1)
    node.raft.step(reply)
    node.raft.step(
        AppendEntries(3, 1, 3, 1, 1, node.raft.log.chain(1), 2, 0, 0, entries_of((3,), 2, node.log[0].chain))
    )
    assert [m for m in of(AppendEntries, node.take()) if m.entries or m.last_index > m.prev_index] == []
    assert node.terms == [1, 3]


def test_a_write_that_was_cut_off_vouches_for_nothing():
    """F31: entries written, cut off and written again; the first write's completion says nothing of the last."""
    node = One((1,))
    node.hear(2, term=2, terms=(2,), persist=False)
    first = node.waiting[-1].write
    node.hear(3, term=3, prev=(1, 1), terms=(3,), persist=False)
    node.hear(2, term=4, prev=(1, 1), terms=(2,), persist=False)
    node.raft.persisted(first)
    assert node.raft.durable_index == 1
    node.persist()
    assert node.raft.durable_index == 2


def test_after_a_refusal_the_leader_goes_back_and_tries_again():
    """§5.3: after a rejection it decrements nextIndex and retries; here by whole terms."""
    node = One((1, 1, 1, 4, 4), term=5).lead()
    progress = node.raft.role.progress[2]
    [append] = of(AppendEntries, node.holds(2, 0, rejected=True, prev_index=5, conflict_index=4, conflict_term=None))
    assert (append.prev_index, progress.flow) == (3, Flow.PROBE)


def test_a_conflicting_term_that_the_leader_has_is_tried_from_its_end():
    """§5.3 end: one rejection per conflicting term."""
    node = One((1, 2, 2, 4), term=5).lead()
    [append] = of(AppendEntries, node.holds(2, 0, rejected=True, prev_index=4, conflict_index=2, conflict_term=2))
    assert append.prev_index == 3


def test_a_conflicting_term_that_the_leader_lacks_is_skipped_whole():
    """§5.3 end: all entries of the conflicting term are bypassed."""
    node = One((1, 1, 4, 4), term=5).lead()
    [append] = of(AppendEntries, node.holds(2, 0, rejected=True, prev_index=4, conflict_index=2, conflict_term=3))
    assert append.prev_index == 1


def test_a_rejection_of_something_old_is_ignored():
    """F29: a late rejection below the match index says nothing."""
    node = One((1, 1), term=2).lead().settle(2, 3)
    assert node.holds(2, 0, rejected=True, prev_index=1, conflict_index=1) == []
    assert node.raft.role.progress[2].match_index == 3


def test_a_refusal_of_another_append_than_the_last_probe_is_ignored():
    """F29: while the leader looks for where the logs part, a late refusal would only lead it astray."""
    node = One((1, 1, 1, 1, 1), term=2).lead()
    progress = node.raft.role.progress[2]
    node.holds(2, 0, rejected=True, prev_index=5, conflict_index=4)
    assert progress.next_index == 4
    node.holds(2, 0, rejected=True, prev_index=2, conflict_index=1)
    assert (progress.flow, progress.next_index) == (Flow.PROBE, 4)
    node.holds(2, 0, rejected=True, prev_index=3, conflict_index=2)
    assert progress.next_index == 2


def test_the_match_index_never_goes_back():
    """F29: answers may arrive in any order."""
    node = One((1, 1), term=2).lead()
    node.holds(2, 3)
    node.holds(2, 1)
    assert node.raft.role.progress[2].match_index == 3


def test_answers_of_an_older_term_are_not_counted():
    """§5.1; an ack of term 1 must not commit in term 3 (F29)."""
    node = One((1, 1), term=2).lead()
    node.holds(2, 3, term=2)
    assert (node.raft.commit_index, node.raft.role.progress[2].match_index) == (0, 0)


def test_lost_entries_are_noticed_by_the_next_heartbeat():
    """§5.3: the leader retries until all followers store all entries."""
    node = One().lead().settle(2, 3)
    node.propose("x")
    [beat] = [m for m in of(AppendEntries, node.tick(2)) if m.to == 2]
    assert (beat.prev_index, beat.entries) == (2, [])
    node.holds(2, 0, rejected=True, prev_index=2, conflict_index=2)
    assert node.raft.role.progress[2].next_index == 2


def test_a_broken_connection_makes_the_leader_probe():
    """What was on its way may be lost: begin again where the follower is known to be."""
    node = One().lead().settle(2, 3)
    node.propose("x", "y")
    node.raft.peer_lost(2)
    progress = node.raft.role.progress[2]
    assert (progress.flow, progress.next_index, progress.inflight_count) == (Flow.PROBE, 2, 0)
    assert progress.inflight_bytes == 0, "nothing that was lost fills the window"


def test_an_entry_commits_when_a_majority_holds_it():
    """§5.3: committed once the leader has replicated it on a majority; then it is applied."""
    node = One(voters=(1, 2, 3, 4, 5)).lead().settle(2, 3)
    node.propose("x")
    node.holds(2, 2)
    assert node.raft.commit_index == 1
    node.holds(3, 2)
    assert (node.raft.commit_index, node.committed) == (2, [1, 2])


def test_the_leaders_own_copy_counts_only_when_durable():
    """F5: its own entry is counted like everybody's."""
    node = One().lead().settle(2, 3)
    node.raft.propose([b"x"], 0)
    node.take(persist=False)
    node.raft.step(AppendReply(2, 1, 1, 0, 2))
    node.take(persist=False)
    assert node.raft.commit_index == 1
    node.persist()
    assert node.raft.commit_index == 2


def test_a_cluster_of_one_commits_when_its_disk_is_done():
    """F5: an acknowledged write of a single node is durable."""
    node = One(voters=(1,)).lead()
    node.raft.propose([b"x"], 0)
    node.take(persist=False)
    assert node.raft.commit_index == 1
    node.persist()
    assert node.raft.commit_index == 2


def test_followers_may_commit_what_the_leaders_disk_has_not_written():
    """Thesis §10.2.1: a majority without the leader is a majority; but the leader applies only what it holds itself."""
    node = One().lead().settle(2, 3)
    node.raft.propose([b"x"], 0)
    node.take(persist=False)
    for follower in (2, 3):
        node.raft.step(AppendReply(follower, 1, 1, 0, 2))
    node.take(persist=False)
    assert (node.raft.commit_index, node.committed) == (2, [1])
    node.persist()
    assert node.committed == [1, 2]


def test_entries_of_older_terms_are_not_committed_by_counting():
    """§5.4.2, Figure 8: an old entry on a majority is not committed until one of the own term is (F25)."""
    node = One((1, 2), term=3).lead()
    node.holds(2, 2)
    node.holds(3, 2)
    assert node.raft.commit_index == 0
    node.holds(2, 3)
    assert node.raft.commit_index == 3, "the Log Matching property commits what precedes"


def test_a_follower_learns_of_commits_from_the_leader():
    """§5.3: the leader includes the highest committed index in its appends."""
    node = One((1, 1))
    node.hear(2, term=1, commit=1)
    assert node.committed == [1]


def test_a_follower_commits_no_further_than_what_the_message_vouches_for():
    """Figure 2: min(leaderCommit, index of last new entry) (F30)."""
    node = One((1, 1, 1))
    node.hear(2, term=2, prev=(1, 1), commit=3)
    assert node.raft.commit_index == 1


def test_the_commit_index_never_goes_back():
    """Figure 2: monotonic."""
    node = One((1, 1))
    node.hear(2, term=1, commit=2)
    node.hear(2, term=1, commit=1)
    assert (node.raft.commit_index, node.committed) == (2, [1, 2])


def test_a_follower_applies_only_what_is_durable_in_its_own_log():
    """F6: the state must never remember an entry that the log could forget."""
    node = One((1,), term=1)
    node.hear(2, term=1, terms=(1,), commit=2, persist=False)
    assert node.committed == [1]
    node.persist()
    assert node.committed == [1, 2]


def test_followers_are_told_of_a_commit_soon_when_nothing_else_is_sent():
    """A deviation: with the next tick, not only with the next heartbeat, so that they are not behind."""
    node = One().lead().settle(2, 3)
    node.tick(2)
    node.propose("x")
    node.holds(2, 2)
    sent = of(AppendEntries, node.tick(1))
    assert {(m.to, m.commit_index) for m in sent} == {(2, 2), (3, 2)}


# §8: the no-op


def test_a_new_leader_begins_its_term_with_a_no_op():
    """§8: each leader commits a blank no-op entry at the start of its term (F27)."""
    node = One((1, 1), term=2).lead()
    assert (node.log[-1].kind, node.log[-1].term, node.log[-1].payload) == (EntryKind.NOOP, 3, b"")
    assert node.raft.role.term_start == 3


@given(
    matches=st.lists(st.integers(0, 9), min_size=2, max_size=6),
    own_from=st.integers(1, 9),
)
def test_commitment_equals_its_definition(matches, own_from):
    """§5.3, §5.4.2: N > commitIndex, a majority of matchIndex ≥ N, log[N].term == currentTerm: by brute force."""
    voters = tuple(range(1, len(matches) + 2))
    node = One((1,) * (own_from - 1), voters=voters, term=1).lead()
    while node.raft.log.last_index < 9:
        node.propose("x")
    last = node.raft.log.last_index
    for follower, match in zip(voters[1:], matches, strict=True):
        node.holds(follower, min(match, last))
    held = [last, *(min(match, last) for match in matches)]
    expected = max(
        (n for n in range(1, last + 1) if sum(h >= n for h in held) * 2 > len(voters) and node.log[n - 1].term == 2),
        default=0,
    )
    assert node.raft.commit_index == expected
