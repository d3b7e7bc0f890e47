"""What the paper demands of snapshots (§7, Figure 13) and of reads (§8, thesis §6.4)."""

from __future__ import annotations

import pytest

from raftkv.config import RaftConfig
from raftkv.core.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    ReadIndex,
    ReadIndexReply,
    RequestVoteReply,
)
from raftkv.core.progress import Flow
from raftkv.errors import Busy, ChangeRefused, ConfigError, NotLeader, SafetyViolation
from raftkv.model import SnapshotMeta
from tests.core.one import One, entries_of, meta, of


def snapshot_of(node, index=None):
    """A snapshot of what the node has applied, as it would take it itself."""
    log = node.raft.log
    index = node.raft.applied_index if index is None else index
    return SnapshotMeta(index, log.term(index), log.chain(index), log.time_ms(index), log.membership_at(index))


def compacted(count=5, **settings):
    """A leader that has cut off its log."""
    node = One(**settings).lead().settle(2, 3)
    for _ in range(count):
        node.propose("x")
    node.settle(2, 3)
    node.raft.snapshot_taken(snapshot_of(node))
    node.raft.compact(node.raft.applied_index)
    return node


def install(node, ok=True):
    """Do what `Ready.snapshot` asks for."""
    found, node.snapshot = node.snapshot, None
    node.log = [entry for entry in node.log if entry.index > found.index]
    if ok:
        node.raft.snapshot_installed()
    else:
        node.raft.snapshot_failed()
    if node.raft.log.last_index == found.index:
        node.log = []
    return node.take()


# §7: taking and cutting


def test_the_log_is_cut_only_behind_a_durable_snapshot():
    """§7: a server discards the log only up to what its snapshot covers (F59)."""
    node = One().lead().settle(2, 3)
    with pytest.raises(ChangeRefused, match="no durable snapshot"):
        node.raft.compact(1)
    node.raft.snapshot_taken(snapshot_of(node))
    node.propose("x")
    node.settle(2, 3)
    with pytest.raises(ChangeRefused):
        node.raft.compact(2)
    node.raft.compact(1)
    assert node.raft.log.start.index == 1


def test_a_leader_knows_what_followers_that_are_there_need():
    """What the slowest holds, or will hold by its snapshot; nobody counts who is silent, or needs what is gone."""
    node = One()
    assert node.raft.needed_behind is None, "it does not lead"
    node.lead().settle(2, 3)
    for _ in range(5):
        node.propose("x")
    node.settle(2, 3)
    last, progress = node.raft.log.last_index, node.raft.role.progress
    assert node.raft.needed_behind == last
    progress[2].match_index = last - 2
    assert node.raft.needed_behind == last - 2
    node.raft.snapshot_taken(snapshot_of(node))
    progress[3].become_probe(1)
    progress[3].match_index = 0
    assert node.raft.needed_behind == 0
    node.raft.compact(last - 3)
    assert node.raft.needed_behind == last - 2, "a snapshot alone helps the other one"
    progress[3].become_snapshot(snapshot_of(node, last - 3))
    assert node.raft.needed_behind == last - 3
    progress[3].contact_tick = node.raft.role.tick - node.raft.config.election_ticks
    assert node.raft.needed_behind == last - 2
    progress[2].contact_tick = progress[3].contact_tick
    assert node.raft.needed_behind is None


def test_the_snapshots_last_term_serves_the_consistency_check():
    """§7: last included index and term support the check for the first entry behind the snapshot."""
    node = compacted()
    node.propose("y")
    assert {m.prev_index for m in of(AppendEntries, node.sent)} == {6}


def test_the_newest_snapshot_counts():
    """Whichever is told of last: an older one, verified late, must not take its place."""
    node = One().lead().settle(2, 3)
    node.propose("x")
    node.settle(2, 3)
    for index, newest in ((1, 1), (2, 2), (1, 2)):
        node.raft.snapshot_taken(snapshot_of(node, index))
        assert node.raft.snapshot.index == newest


def test_a_snapshot_carries_the_membership():
    """§7: the latest configuration as of the last included index."""
    node = compacted(voters=(1, 2, 3), learners=(4,))
    assert node.raft.snapshot.membership.learners == (4,)
    assert node.raft.membership.learners == (4,)


# §7: sending


def test_a_follower_that_needs_what_was_cut_off_gets_the_snapshot():
    """§7: the leader sends a snapshot when it has discarded the next entry that it needs to send."""
    node = compacted()
    node.raft.peer_lost(3)
    node.raft.role.progress[3].match_index = 0
    node.raft.role.progress[3].become_probe(1)
    sent = node.tick(2)
    assert [(m.to, m.snapshot.index) for m in of(InstallSnapshot, sent)] == [(3, 6)]
    assert node.raft.role.progress[3].flow is Flow.SNAPSHOT


def lagging(node):
    """Make follower 3 of a compacted leader one that is being sent the snapshot."""
    node.raft.role.progress[3].match_index = 0
    node.raft.role.progress[3].become_probe(1)
    node.tick(2)
    return node.raft.role.progress[3]


def test_while_the_snapshot_travels_there_are_heartbeats_but_no_entries():
    """§7, §5.2: the leader stays in contact; entries would not fit yet."""
    node = compacted()
    lagging(node)
    node.propose("y")
    sent = [m for m in of(AppendEntries, node.tick(2)) if m.to == 3]
    assert sent and all(m.entries == [] and m.prev_index == 0 for m in sent)


def test_after_the_snapshot_come_the_entries_behind_it():
    """§7: the follower then continues from the log (F67)."""
    node = compacted()
    progress = lagging(node)
    node.propose("y")
    [append] = of(AppendEntries, node.holds(3, 6))
    assert (append.prev_index, len(append.entries), progress.flow) == (6, 1, Flow.REPLICATE)
    assert progress.sending is None, "so that it may ask for another one some day"


def test_a_failed_transfer_is_tried_again_with_the_next_heartbeat():
    """#118 of NuRaft: trying again at once would hammer a follower that cannot; never would leave it behind."""
    node = compacted()
    progress = lagging(node)
    node.raft.snapshot_sent(3, False)
    assert progress.flow is Flow.PROBE
    assert of(InstallSnapshot, node.take()) == []
    assert len(of(InstallSnapshot, node.tick(2))) == 1


def test_transfers_that_go_on_failing_are_tried_less_and_less_often():
    """The pause doubles, up to some seconds; a follower whose transfer succeeds begins anew."""
    node = compacted()
    lagging(node)
    waited = []
    for _ in range(9):
        node.raft.snapshot_sent(3, False)
        node.take()
        ticks = 0
        while not of(InstallSnapshot, node.tick(1)):
            node.holds(2, node.raft.log.last_index)
            node.holds(3, 0, wants_snapshot=True, conflict_index=1)  # whatever it says meanwhile
            ticks += 1
            assert ticks < 200
        waited.append(ticks + 1)
    assert waited == [2, 4, 8, 16, 32, 64, 100, 100, 100], "at most ten election time-outs"


def test_after_a_success_the_pauses_begin_anew():
    """Failures count in a row; what was long ago is no reason to wait."""
    node = compacted()
    progress = lagging(node)
    for _ in range(5):
        node.raft.snapshot_sent(3, False)
    node.raft.snapshot_sent(3, True)
    node.raft.snapshot_sent(3, False)
    node.raft.snapshot_sent(3, False)
    assert progress.snapshot_tick - node.raft.role.tick == 4


def test_after_a_transfer_nothing_is_sent_before_the_next_heartbeat():
    """The follower's own answer is on its way, and tells what it has; no entry is sent in vain before it."""
    node = compacted()
    progress = lagging(node)
    node.raft.snapshot_sent(3, True)
    assert (progress.flow, progress.next_index) == (Flow.PROBE, 7)
    assert [m.to for m in of(AppendEntries, node.propose("y"))] == [2]
    assert {m.to for m in of(AppendEntries, node.tick(2)) if m.entries} == {3}


def test_an_answer_while_the_snapshot_travels_does_not_make_the_leader_forget_it():
    """The end of the transfer tells where to go on: behind that snapshot (F67)."""
    node = compacted()
    progress = lagging(node)
    node.holds(3, 0, round=node.raft.role.round)
    assert (progress.flow, progress.sending) == (Flow.SNAPSHOT, node.raft.snapshot)
    node.holds(3, 0, rejected=True, prev_index=5, conflict_index=1)
    assert progress.flow is Flow.SNAPSHOT, "a late refusal says nothing new"
    node.raft.snapshot_sent(3, True)
    assert progress.next_index == 7


def test_a_follower_that_parts_right_behind_what_is_compacted_needs_no_snapshot():
    """§5.3 end: its conflicting run holds the entry at which this log begins, so they agree there."""
    node = One((1, 1, 1, 2, 2), term=2).lead().settle(2)
    node.raft.snapshot_taken(snapshot_of(node, 3))
    node.raft.compact(3)
    sent = node.holds(3, 0, rejected=True, prev_index=5, conflict_index=1, conflict_term=1)
    assert of(InstallSnapshot, sent) == []
    assert [m.prev_index for m in of(AppendEntries, sent)] == [3]


def test_a_follower_that_parts_below_what_is_compacted_needs_the_snapshot():
    """The entry at which this log begins is of a newer term than the run that conflicts: nothing above it can fit."""
    node = One((1, 2, 2, 3, 3), term=3).lead().settle(2)
    node.raft.snapshot_taken(snapshot_of(node, 3))
    node.raft.compact(3)
    sent = node.holds(3, 0, rejected=True, prev_index=5, conflict_index=2, conflict_term=1)
    assert [m.snapshot.index for m in of(InstallSnapshot, sent)] == [3]


def test_a_success_that_comes_late_counts():
    """ClickHouse#112405: the follower has it, however the transfer was judged."""
    node = compacted()
    progress = lagging(node)
    node.raft.snapshot_sent(3, False)
    node.holds(3, 6)
    assert (progress.flow, progress.match_index) == (Flow.REPLICATE, 6)


def test_no_snapshot_is_sent_to_who_does_not_answer():
    """A dead node is not worth a transfer."""
    node = compacted()
    progress = node.raft.role.progress[3]
    progress.match_index = 0
    progress.become_probe(1)
    progress.contact_tick = node.raft.role.tick - 20
    assert of(InstallSnapshot, node.tick(2)) == []


# §7, Figure 13: receiving


def test_a_snapshot_of_an_old_term_is_refused():
    """Figure 13, 1: a deposed leader's snapshot is rejected, and it learns the newer term (F65)."""
    node = One((1,), term=5)
    [reply] = node.offered(2, meta(9, 4), term=4)
    assert isinstance(reply, AppendReply) and reply.rejected and reply.term == 5
    assert node.snapshot is None


def test_a_snapshot_replaces_a_log_that_lacks_its_last_entry():
    """Figure 13, 7: discard the entire log; 8: reset the state machine."""
    node = One((1, 1), term=1)
    node.offered(2, meta(9, 1, chain=77))
    assert (node.snapshot.index, node.raft.installing.index) == (9, 9)
    [reply] = install(node)
    assert (reply.match_index, node.raft.log.start.index, node.raft.commit_index) == (9, 9, 9)
    assert (node.raft.log.start.chain, node.raft.applied_index) == (77, 9)


def test_a_conflicting_entry_at_the_snapshots_index_empties_the_log():
    """Figure 13, 7; hashicorp/raft#697: a conflicting entry *at* the last included index, and all behind it (F63)."""
    node = One((1, 1, 1, 1), term=1)
    node.offered(2, meta(3, 2, chain=77), term=2)
    install(node)
    assert (node.raft.log.start.index, node.raft.log.last_index) == (3, 3)
    [reply] = node.hear(2, term=2, prev=(3, 2), terms=(2,))
    assert not reply.rejected
    assert (node.raft.durable_index, node.truncated) == (4, None)


def test_behind_an_installed_snapshot_nothing_is_cut_off_that_is_not_on_disk():
    """The disk's log ends at the snapshot now, wherever it ended before (F63)."""
    node = One((1, 1, 1, 1, 1, 1), term=1)
    node.offered(2, meta(3, 2, chain=77), term=2)
    install(node)
    assert node.raft.durable_index == 3
    node.raft.step(AppendEntries(2, 1, 2, 3, 2, 77, 4, 3, 0, entries_of((2,), 4, 77)))
    node.raft.step(AppendEntries(3, 1, 3, 3, 2, 77, 4, 3, 0, entries_of((3,), 4, 77)))
    node.take()
    assert ([(entry.index, entry.term) for entry in node.appended], node.truncated) == ([(4, 3)], None)


def test_a_snapshot_whose_last_entry_is_in_the_log_keeps_what_follows():
    """Figure 13, 6: retain the log behind it; here nothing is installed at all, as the entries are there (F64)."""
    node = One((1, 1, 1, 1), term=1)
    [reply] = node.offered(2, snapshot_of(node, 3))
    assert (node.snapshot, node.raft.commit_index, node.raft.log.last_index) == (None, 3, 4)
    assert reply.match_index == 3


def test_an_equal_entry_with_another_chain_at_the_snapshots_index_is_a_violation():
    """The snapshot's chain stands for the whole log before it; a difference cannot be (F61)."""
    node = One((1, 1, 1), term=1)
    with pytest.raises(SafetyViolation, match="chain value"):
        node.offered(2, meta(3, 1, chain=4711))


def test_a_snapshot_older_than_what_is_committed_is_ignored():
    """§7: it must never take the state back (F62)."""
    node = One((1, 1, 1), term=1)
    node.hear(2, term=1, commit=3)
    [reply] = node.offered(2, meta(2, 1))
    assert (node.snapshot, node.raft.applied_index, reply.match_index) == (None, 3, 3)


def test_a_snapshot_brings_its_membership():
    """§7, §6: it replaces whatever the purged log said (F52, openraft#1808)."""
    node = One((1,), node_id=2, term=1)
    node.offered(1, meta(9, 1, voters=(1, 3), learners=(2,)))
    install(node)
    assert (node.raft.membership.describe(), node.role) == ("voters 1 3 learners 2", "Learner")


def test_nothing_is_appended_while_a_snapshot_is_installed():
    """The log is about to be replaced; the leader is answered, so that it knows who is alive (F60)."""
    node = One((1,), term=1)
    node.offered(2, meta(9, 1))
    [reply] = node.hear(2, term=1, prev=(1, 1), terms=(1,))
    assert (reply.match_index, node.raft.log.last_index) == (0, 1)
    node.raft.campaign()
    assert node.role == "Follower", "nor does it campaign"


def test_a_failed_install_leaves_everything_as_it_was():
    """The next attempt finds the same log."""
    node = One((1, 1), term=1)
    node.offered(2, meta(9, 1))
    install(node, ok=False)
    assert (node.raft.log.last_index, node.raft.installing) == (2, None)
    node.offered(2, meta(9, 1))
    assert node.raft.installing is not None


def test_a_second_snapshot_during_an_install_is_ignored():
    """Installs do not race each other (Zeebe #14671)."""
    node = One((1,), term=1)
    node.offered(2, meta(9, 1))
    node.offered(2, meta(12, 1))
    assert node.raft.installing.index == 9


def lost_state():
    """A follower whose log begins behind 4 and whose state is gone."""
    node = compacted()
    from raftkv.core.raft import Raft

    node.raft = Raft(
        node_id=1, config=node.raft.config, draw=lambda n: 0, hard_state=node.hard_states[-1], log=node.raft.log
    )
    return node


def test_a_node_that_lost_its_state_asks_for_a_snapshot_and_does_not_lead():
    """Its log and vote count, its state does not: it cannot serve before a snapshot has come."""
    node = lost_state()
    assert node.raft.wants_snapshot
    node.raft.campaign()
    assert node.role == "Follower"
    [reply] = of(AppendReply, node.hear(2, term=2, prev=(6, 1)))
    assert (reply.wants_snapshot, reply.conflict_index) == (True, 6)


def installing():
    """A follower that puts a snapshot of its leader in the place of its state."""
    node = One((1, 1), term=1)
    node.offered(2, meta(9, 1))
    return node


@pytest.mark.parametrize("voter", [lost_state, installing])
def test_a_voter_that_may_not_campaign_knows_of_no_leader_after_long_silence(voter):
    """It would name the one that it once heard for ever, and have reads wait for that one's answer for ever, where any
    other voter asks for votes."""
    node = voter()
    node.hear(2, term=2, prev=(6, 1))
    node.tick(2 * 10 - 1)
    node.raft.read(7)
    node.take()
    assert (node.role, node.raft.leader) == ("Follower", 2)
    node.tick()
    assert (node.role, node.raft.leader, node.dropped) == ("Follower", None, [])
    node.tick(10)
    assert (node.raft.leader, node.dropped) == (None, [7])
    node.hear(2, term=2, prev=(6, 1))
    assert node.raft.leader == 2


def test_a_leader_sends_a_snapshot_to_who_asks_for_one():
    """Although its log would do: once, and one that reaches far enough; if there is none, one is wanted."""
    node = One().lead().settle(2, 3)
    node.holds(3, 1, wants_snapshot=True, conflict_index=1)
    assert node.raft.snapshot_wanted
    node.raft.snapshot_taken(snapshot_of(node))
    assert not node.raft.snapshot_wanted
    sent = of(InstallSnapshot, [*node.tick(2), *node.tick(2)])
    assert [(m.to, m.snapshot.index) for m in sent] == [(3, 1)]


def asking(node, wanted=1):
    """Follower 3 asks for a snapshot, until the leader sends one."""
    node.holds(3, 1, wants_snapshot=True, conflict_index=wanted)
    return [m.snapshot.index for m in of(InstallSnapshot, node.tick(2))]


def with_snapshot():
    """A leader of three that has a snapshot of its first entry, and the whole log."""
    node = One().lead().settle(2, 3)
    node.raft.snapshot_taken(snapshot_of(node))
    return node


def test_who_asks_gets_another_snapshot_when_the_transfer_has_failed():
    """Nothing else will end its asking; while the transfer goes on, it is not begun again."""
    node = with_snapshot()
    node.holds(3, 1, wants_snapshot=True, conflict_index=1)
    assert node.raft.role.progress[3].sending is not None
    assert asking(node) == []
    node.raft.snapshot_sent(3, False)
    assert asking(node) == [1]


def test_who_asks_no_more_is_offered_no_snapshot():
    """It has a state again; and when that is lost once more, it may ask once more."""
    node = with_snapshot()
    progress = node.raft.role.progress[3]
    node.holds(3, 1, wants_snapshot=True, conflict_index=1)
    node.holds(3, 1)
    assert (progress.wanted_index, progress.sending) == (None, None)
    assert of(InstallSnapshot, node.tick(4)) == []
    assert len(of(InstallSnapshot, node.holds(3, 1, wants_snapshot=True, conflict_index=1))) == 1


def test_the_matching_tail_survives_the_snapshot_of_a_lost_state():
    """Figure 13, 6: durable, acknowledged entries behind it stay (F64)."""
    node = lost_state()
    node.hear(2, term=2, prev=(6, 1), terms=(2, 2))
    taken = SnapshotMeta(7, 2, node.raft.log.chain(7), 0, node.raft.membership)
    node.offered(2, taken)
    assert node.raft.pending.snapshot_keeps_log is False or node.snapshot is not None
    install(node)
    assert (node.raft.log.start.index, node.raft.log.last_index, node.raft.durable_index) == (7, 8, 8)


# §8, thesis §6.4: reads


def test_a_read_waits_for_a_round_of_heartbeats():
    """§8: the leader exchanges heartbeats with a majority before it answers (F72)."""
    node = One().lead().settle(2, 3)
    node.raft.read(7)
    beats = of(AppendEntries, node.take())
    assert {m.to for m in beats} == {2, 3}
    assert node.reads == {}
    node.holds(2, 1, round=beats[0].round)
    assert node.reads == {7: 1}


def test_each_read_is_answered_with_its_own_round():
    """One that came later waits for its own; nobody waits for those that come after him."""
    node = One().lead().settle(2, 3)
    rounds = []
    for token in (7, 8):
        node.raft.read(token)
        node.take()
        rounds.append(node.raft.role.round)
    assert rounds[0] < rounds[1]
    node.holds(2, 1, round=rounds[0])
    assert node.reads == {7: 1}
    node.holds(2, 1, round=rounds[1])
    assert node.reads == {7: 1, 8: 1}


def test_an_answer_to_an_earlier_round_confirms_nothing():
    """Thesis §6.4: the round must have begun after the read arrived."""
    node = One().lead().settle(2, 3)
    node.tick(2)
    before = node.raft.role.round
    node.raft.read(7)
    node.take()
    node.holds(2, 1, round=before)
    node.holds(3, 1, round=before)
    assert node.reads == {}
    node.holds(3, 1, round=before + 1)
    assert node.reads == {7: 1}


def test_a_read_waits_for_the_terms_first_commit():
    """§8: a new leader may not know which entries are committed until its no-op is (F71)."""
    node = One((1, 1), term=1).lead()
    node.raft.read(7)
    node.take()
    node.tick(2)
    node.holds(2, 2, round=node.raft.role.round)
    assert node.reads == {}
    node.holds(2, 3, round=node.raft.role.round)
    node.holds(2, 3, round=node.raft.role.round)
    assert node.reads == {7: 3}


def test_the_reads_of_one_turn_share_a_round():
    """Thesis §6.4: one round for any number of reads."""
    node = One().lead().settle(2, 3)
    for token in (1, 2, 3):
        node.raft.read(token)
    assert len(of(AppendEntries, node.take())) == 2
    node.holds(2, 1, round=node.raft.role.round)
    assert node.reads == {1: 1, 2: 1, 3: 1}


def test_a_read_sees_every_commit_before_it():
    """Linearizability: its index is the commit index when it was asked, or later."""
    node = One().lead().settle(2, 3)
    node.propose("x")
    node.settle(2)
    node.raft.read(7)
    node.take()
    node.holds(3, 2, round=node.raft.role.round)
    assert node.reads == {7: 2}


def test_a_cluster_of_one_answers_by_itself():
    """Its own round is a majority."""
    node = One(voters=(1,)).lead()
    node.raft.read(7)
    node.take()
    assert node.reads == {7: 1}


def test_a_joint_membership_confirms_reads_with_both_majorities():
    """§6: every decision of a joint membership needs both (F56)."""
    node = One(voters=(1, 2, 3), learners=(4, 5)).lead()
    node.tick(2)
    for other in (2, 3, 4, 5):
        node.holds(other, 1, round=node.raft.role.round)
    from raftkv.model import Membership

    node.raft.change_membership(Membership.of((1, 4, 5), (2, 3)))
    node.take()
    node.raft.read(7)
    node.take()
    number = node.raft.role.round
    node.holds(2, 1, round=number)
    assert node.reads == {}
    node.holds(4, 1, round=number)
    assert 7 in node.reads


def test_reads_are_dropped_with_leadership():
    """Nobody will confirm them; they changed nothing, so the caller may ask elsewhere."""
    node = One().lead().settle(2, 3)
    node.raft.read(7)
    node.take()
    node.hear(2, term=5, prev=(0, 0))
    assert (node.reads, node.dropped) == ({}, [7])


def test_a_follower_asks_the_leader():
    """Thesis §6.4: followers can serve linearizable reads by asking for the read index."""
    node = One(term=1)
    with pytest.raises(NotLeader):
        node.raft.read(7)
    node.hear(2, term=1, prev=(0, 0))
    node.raft.read(7)
    [ask] = of(ReadIndex, node.take())
    assert (ask.to, ask.token) == (2, 7)
    node.step(ReadIndexReply(2, 1, 1, 7, 4))
    assert node.reads == {7: 4}


def test_the_leader_answers_a_followers_read_after_its_round():
    """Thesis §6.4: in the same way as its own."""
    node = One().lead().settle(2, 3)
    node.forward(3, 99)
    [reply] = of(ReadIndexReply, node.holds(2, 1, round=node.raft.role.round))
    assert (reply.to, reply.token, reply.index) == (3, 99, 1)


def test_who_is_no_leader_says_so():
    """The follower then drops the read instead of waiting."""
    node = One(term=1)
    [reply] = node.forward(3, 99)
    assert reply.index is None
    asking = One(term=1)
    asking.hear(2, term=1, prev=(0, 0))
    asking.raft.read(7)
    asking.take()
    asking.step(ReadIndexReply(2, 1, 1, 7, None))
    assert asking.dropped == [7]


def test_a_forwarded_read_that_gets_lost_is_dropped_after_a_while():
    """Question and answer may both get lost."""
    node = One(term=1, draw=lambda n: n - 1)
    node.hear(2, term=1, prev=(0, 0))
    node.raft.read(7)
    node.take()
    for _ in range(5):
        node.tick(2)
        node.hear(2, term=1, prev=(0, 0))
    assert node.dropped == [], "for an election time-out it may still come"
    node.tick(1)
    assert node.dropped == [7]


def test_waiting_reads_are_bounded():
    """F34: over the bound a read is refused."""
    node = One(pending_reads_max=2).lead()
    node.raft.read(1)
    node.raft.read(2)
    with pytest.raises(Busy):
        node.raft.read(3)
    [reply] = of(ReadIndexReply, node.forward(3, 99))
    assert (reply.to, reply.token, reply.index) == (3, 99, None), "a follower is told, and asks again later"


# Thesis §6.4.1: leases


def leased(**settings):
    """A leader that holds a lease."""
    node = One(lease_reads=True, clock_drift_max=0.2, **settings).lead().settle(2, 3)
    node.tick(2)
    node.holds(2, 1, round=node.raft.role.round)
    return node


def test_leases_are_off_by_default():
    """A wrong clock must not make a stale read; leases must be asked for."""
    assert RaftConfig().lease_reads is False
    with pytest.raises(ConfigError, match="check_quorum"):
        RaftConfig(lease_reads=True, check_quorum=False)


def test_within_a_lease_reads_are_answered_at_once():
    """Thesis §6.4.1: for an election time-out after a confirmed round nobody else can lead."""
    node = leased()
    node.raft.read(7)
    assert of(AppendEntries, node.take()) == []
    assert node.reads == {7: 1}


def test_a_lease_begins_with_the_first_round_that_a_quorum_confirmed():
    """That they took the no-op is not enough: it may have been long ago that they did."""
    node = One(lease_reads=True).lead().settle(2, 3)
    assert node.raft.commit_index == 1
    node.raft.read(7)
    node.take()
    assert node.reads == {}
    alone = One(voters=(1,), lease_reads=True).lead()
    alone.raft.read(7)
    assert alone.raft.pending.reads == [(7, 1)], "the only voter need not wait even for its own round"


def test_a_lease_ends_before_the_election_timeout_by_the_drift_of_clocks():
    """Thesis §6.4.1: election timeout / clock drift bound, counted from when the round was sent (F73)."""
    node = leased()
    node.tick(6)
    node.raft.read(1)
    node.take()
    assert 1 in node.reads
    node.tick(1)
    node.raft.read(2)
    node.take()
    assert 2 not in node.reads


@pytest.mark.parametrize("learners", [(), (2,)], ids=["alone", "with a silent learner"])
def test_the_only_voter_keeps_its_lease_and_no_list_of_rounds(learners):
    """It confirms its own rounds; nobody's answer is waited for, and what is remembered of them stays bounded."""
    node = One(voters=(1,), learners=learners, lease_reads=True)
    node.tick(40)
    assert node.role == "Leader"
    node.tick(2000)
    assert len(node.raft.role.round_ticks) <= 2
    node.raft.read(7)
    node.take()
    assert node.reads == {7: 1}


def test_a_leadership_transfer_ends_the_lease_for_good():
    """The target may campaign in spite of everybody's promise, whenever TimeoutNow reaches it."""
    node = leased()
    node.raft.transfer_leadership(2)
    node.take()
    node.raft.read(7)
    node.take()
    assert node.reads == {}


def test_with_leases_a_restarted_node_refuses_votes_for_an_election_timeout():
    """It may have promised that before it restarted (F72)."""
    node = One(lease_reads=True, term=1)
    assert node.asked(2, term=2) == []
    node.tick(9)
    assert node.asked(2, term=2) == []
    node.raft.promise_ticks = 0
    assert of(type(node.asked(2, term=2)[0]), node.sent)[0].granted


def test_with_leases_a_lost_connection_frees_nobody_from_its_promise():
    """A hint about a connection is no reason to break a promise."""
    node = One(lease_reads=True, term=1, draw=lambda n: n - 1)
    node.tick(10)
    node.hear(2, term=1, prev=(0, 0))
    node.raft.peer_lost(2)
    assert node.asked(3, term=2) == []


def test_with_leases_a_newer_term_frees_nobody_from_its_promise():
    """Who has just heard its leader does not vote, though a late answer has told it of a newer term (F73)."""
    node = One(lease_reads=True, term=1, draw=lambda n: n - 1)
    node.tick(10)
    node.hear(2, term=1, prev=(0, 0))
    node.tick(3)
    node.voted(3, granted=False, term=5)
    assert (node.raft.term, node.raft.leader) == (5, None)
    node.voted(3, granted=False, term=6)
    node.tick(6)
    assert node.asked(3, term=7) == []
    assert node.raft.vote is None
    node.tick(1)
    assert of(RequestVoteReply, node.asked(3, term=7))[0].granted
