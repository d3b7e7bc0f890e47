"""Log time: what a leader stamps entries by, whatever its own clock and those of others show (F82)."""

from __future__ import annotations

import pytest

from raftkv.core import clocks
from raftkv.core.log import LogView
from raftkv.core.messages import AppendReply, RequestVoteReply
from raftkv.core.raft import Raft
from raftkv.entry import make_entry
from raftkv.errors import Busy, NotLeader, SafetyViolation
from raftkv.model import EntryKind, HardState
from tests.core.one import One

NOW = 1_800_000_000_000
"""When the tests' time begins; a wall clock that is right shows it, and what has passed since."""
BOUND = 10_000
HOUR = 3_600_000
YEARS = 10 * 365 * 24 * HOUR
BEAT = 75


class Timed(One):
    """A core whose own wall clock and those of the others are wrong by `wrong[node]` milliseconds.

    `passed` is the true time since the start, and what monotonic clocks show. Who is `mute` does not answer.
    """

    def __init__(self, voters=(1, 2, 3), mute=(), log_ms=None, **wrong):
        super().__init__(voters=voters)
        self.passed = 0
        self.mute = {*mute}
        self.wrong = {voter: wrong.get(f"n{voter}", 0) for voter in voters}
        self.silent_clocks = set()
        if log_ms is not None:
            entry = make_entry(1, 1, log_ms, EntryKind.COMMAND, b"x", 0)
            self.log = [entry]
            view = LogView(membership=self.raft.membership)
            view.extend(self.log)
            self.raft = Raft(
                node_id=1, config=self.raft.config, draw=lambda n: 0, hard_state=HardState(1, None), log=view
            )

    def shown(self, node):
        """What its wall clock shows."""
        return 0 if node in self.silent_clocks else NOW + self.passed + self.wrong[node]

    def look(self):
        self.raft.observe(NOW + self.passed + self.wrong[1], self.passed)

    @property
    def others(self):
        return [voter for voter in self.wrong if voter not in {1, *self.mute}]

    def elect(self):
        """Win with the votes of those that answer; returns the time of the term's first entry."""
        self.look()
        self.raft.campaign()
        self.take()
        for voter in self.others:
            if self.role == "PreCandidate":
                self.voted(voter, pre_vote=True)
        for voter in self.others:
            if self.role == "Candidate":
                self.step(RequestVoteReply(voter, 1, self.raft.term, True, False, self.shown(voter)))
        assert self.role == "Leader", self.raft.describe()
        self.answer()
        return self.log[-1].time_ms - NOW

    def answer(self):
        """The others hold everything, and say what their clocks show."""
        for voter in self.others:
            role = self.raft.role
            reply = AppendReply(
                voter, 1, self.raft.term, role.round, self.raft.log.last_index, now_ms=self.shown(voter)
            )
            self.step(reply)

    def beats(self, count=1, ms=BEAT):
        """Let heartbeats go by, `ms` apart."""
        for _ in range(count):
            self.passed += ms
            for _ in range(self.raft.config.heartbeat_ticks):
                self.raft.tick(NOW + self.passed + self.wrong[1], self.passed)
            self.take()
            self.answer()
        return self

    def put(self):
        """Append a command; returns its time, as milliseconds ahead of the true time."""
        self.raft.propose([b"x"], NOW + self.passed + self.wrong[1], self.passed)
        self.take()
        self.answer()
        return self.log[-1].time_ms - NOW - self.passed

    def reset(self):
        """As `raftkv clock reset`; returns the entry's time, as milliseconds ahead of the true time."""
        self.look()
        self.raft.reset_clock()
        self.take()
        self.answer()
        return self.log[-1].time_ms - NOW - self.passed

    @property
    def doubt(self):
        return self.raft.role.clock.doubt


@pytest.mark.parametrize("voters", [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4, 5)])
def test_a_leader_whose_clock_is_right_stamps_by_it(voters):
    """Clocks that agree are used as they are, to the millisecond."""
    node = Timed(voters, n1=7)
    assert node.elect() == 7
    assert [node.beats().put() for _ in range(5)] == [7] * 5
    assert node.doubt is None
    assert node.raft.clock_doubts == 0


@pytest.mark.parametrize("wrong", [YEARS, HOUR, BOUND + 1, -BOUND - 1, -HOUR, -YEARS])
def test_a_new_leader_whose_clock_is_wrong_from_its_start_stamps_by_the_others(wrong):
    """Its very first entry, too: the voters told their clocks with their votes (F82). By the one vote that it needs the
    median may still be its own clock, so that a clock that is behind is found out when the third one has answered."""
    node = Timed(n1=wrong)
    node.passed = HOUR
    assert node.elect() - HOUR == min(wrong, 0)
    assert [node.beats().put() for _ in range(3)] == [0] * 3
    assert node.doubt.ahead_ms == wrong
    assert node.doubt.has_majority


@pytest.mark.parametrize("wrong", [BOUND, -BOUND, 0, 1])
def test_up_to_the_bound_a_clock_is_trusted(wrong):
    """The bound itself is allowed."""
    node = Timed(n1=wrong)
    assert node.elect() == wrong
    assert node.beats().put() == wrong
    assert node.doubt is None


@pytest.mark.parametrize(("apart", "agree"), [(BOUND, True), (BOUND + 1, False)])
def test_two_clocks_agree_up_to_the_bound(apart, agree):
    """The bound itself is allowed between the values that the median may have, too."""
    node = Timed((1, 2), n2=apart)
    node.elect()
    node.beats()
    assert node.raft.role.clock.has_majority is agree


def test_clocks_that_agree_are_compared_at_heartbeats_only():
    """Not at each entry: that would cost more than the entry itself."""
    node = Timed()
    node.elect()
    node.beats(100)
    view = node.raft.role.clock
    node.passed += 10
    node.put()
    assert node.raft.role.clock is view


@pytest.mark.parametrize(("silence", "counts"), [(5_000, True), (5_001, False)])
def test_what_a_voter_told_counts_for_five_seconds(silence, counts):
    """Clocks drift, and may have been set meanwhile."""
    node = Timed()
    node.elect()
    node.beats()
    node.passed += silence
    node.look()
    assert (clocks.offset_of(node.raft, node.raft.role, 2) is not None) is counts


@pytest.mark.parametrize("jump", [YEARS, -YEARS])
def test_a_clock_that_jumps_for_a_second_leaves_nothing_behind(jump):
    """The case of the field: ten years for one second (F82). It is noticed at the first entry, before any heartbeat."""
    node = Timed()
    node.elect()
    node.beats(10)
    node.wrong[1] = jump
    assert node.put() == 0
    node.beats(13)
    assert (node.doubt.ahead_ms, node.raft.clock_doubts) == (jump, 1)
    assert node.put() == 0
    node.wrong[1] = 0
    assert node.put() == 0
    node.beats()
    assert node.doubt is None
    assert node.raft.clock_doubts == 1


def test_a_jump_between_two_heartbeats_is_seen_when_something_was_stamped_meanwhile():
    """It is over before the clocks are compared again, and is counted and told of all the same (F82)."""
    node = Timed()
    node.elect()
    node.beats(10)
    node.wrong[1] = YEARS
    assert node.put() == 0
    assert (node.raft.clock_doubts, node.raft.last_clock_doubt.ahead_ms) == (1, YEARS)
    node.wrong[1] = 0
    node.beats()
    assert node.doubt is None
    assert node.raft.clock_doubts == 1


def test_what_was_heard_before_a_pause_counts_no_more():
    """A process that was stopped goes by its monotonic clock until it has heard the others again (F82)."""
    node = Timed()
    node.elect()
    node.beats(10)
    assert node.raft.role.clock.has_majority
    node.passed += 60_000
    node.wrong[1] = HOUR
    node.mute = {2, 3}
    assert abs(node.put()) <= 60
    assert not node.raft.role.clock.has_majority


@pytest.mark.parametrize("rate", [0.5, 0.9, 1.1, 2.0])
def test_a_clock_that_runs_fast_or_slow_is_followed_no_further_than_the_bound(rate):
    """What it gains or loses grows slowly, and is never more than the bound (F82)."""
    node = Timed()
    node.elect()
    ahead = []
    for _ in range(300):
        node.wrong[1] = round(node.passed * (rate - 1))
        ahead.append(node.beats(ms=10 * BEAT).put())
    assert max(abs(ms) for ms in ahead) <= BOUND + 10 * BEAT
    assert max(abs(ms) for ms in ahead) > BOUND / 2
    assert node.doubt is not None
    assert ahead[-1] == 0


@pytest.mark.parametrize("wrong", [{"n2": YEARS}, {"n3": -YEARS}, {"n2": YEARS, "n3": -YEARS}])
def test_followers_that_are_wrong_do_not_move_a_leader_that_is_right(wrong):
    """One of three is a minority; and two that are wrong to both sides leave the median where it is."""
    node = Timed(**wrong)
    assert node.elect() == 0
    assert node.beats(5).put() == 0
    assert node.doubt is None


def test_of_five_clocks_two_may_be_wrong():
    """The median of five stays right with two wrong ones, the leader's among them."""
    node = Timed((1, 2, 3, 4, 5), n1=YEARS, n2=YEARS)
    assert node.elect() == 0
    assert node.beats(5).put() == 0
    assert node.doubt.ahead_ms == YEARS


def test_all_clocks_may_be_set_together():
    """Everybody was wrong and is set right: log time goes on with them, or waits for them."""
    node = Timed(n1=-HOUR, n2=-HOUR, n3=-HOUR)
    assert node.elect() == -HOUR
    node.wrong = dict.fromkeys(node.wrong, 0)
    assert node.beats(2).put() == 0
    node.wrong = dict.fromkeys(node.wrong, -HOUR)
    before = node.put() + node.passed
    assert node.beats(2).put() == before - node.passed
    assert node.doubt is None


def test_a_learners_clock_does_not_count():
    """Only voters do: a learner may be anything."""
    node = Timed((1, 2, 3))
    node.elect()
    node.raft.role.progress[2].clock_offset_ms = None
    node.mute = {2, 3}
    assert node.beats(2).put() == 0


@pytest.mark.parametrize("jump", [YEARS, HOUR, -HOUR])
def test_one_voter_is_bound_by_its_monotonic_clock(jump):
    """There is nobody to ask; but no clock gains an hour in a second."""
    node = Timed((1,))
    assert node.elect() == 0
    node.beats(10)
    node.wrong[1] = jump
    assert node.put() == 0
    node.beats(10)
    assert abs(node.put()) <= 1
    assert not node.doubt.has_majority
    assert abs(node.doubt.ahead_ms - jump) <= 1
    node.wrong[1] = 0
    node.beats()
    assert node.doubt is None


def test_one_voters_clock_may_be_steered_for_ever():
    """NTP slews by half a thousandth: that is followed, and never doubted."""
    node = Timed((1,))
    node.elect()
    for _ in range(200):
        node.beats(ms=600_000)
        node.wrong[1] = round(node.passed * 0.0005)
        assert abs(node.put() - node.wrong[1]) <= 600
    assert node.wrong[1] > 5 * BOUND
    assert node.raft.clock_doubts == 0


@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_one_voters_clock_that_runs_fast_or_slow_is_bounded(rate):
    """Ten seconds ahead, then no faster than it could be steered."""
    node = Timed((1,))
    node.elect()
    for _ in range(200):
        node.beats(ms=10 * BEAT)
        node.wrong[1] = round(node.passed * (rate - 1))
        assert abs(node.put()) <= BOUND + 10 * BEAT + node.passed / 1_000
    assert node.doubt is not None


def test_two_that_differ_do_not_go_by_the_later():
    """Who of the two is right can't be known: log time begins with the earlier and goes on by the monotonic clock."""
    node = Timed((1, 2), n1=YEARS)
    assert node.elect() == 0
    assert abs(node.beats(20).put()) <= 2
    assert not node.doubt.has_majority


def test_two_that_agreed_go_on_by_the_monotonic_clock_when_one_jumps():
    """Whichever of them it is, log time goes on as before."""
    for jumped in (1, 2):
        node = Timed((1, 2))
        node.elect()
        node.beats(3)
        node.wrong[jumped] = HOUR
        node.beats(10)
        assert abs(node.put()) <= 1
        node.wrong[jumped] = -HOUR
        node.beats(10)
        assert abs(node.put()) <= 2
        assert (node.doubt is not None) == (jumped == 1)


def test_with_one_of_three_silent_two_that_differ_prove_nothing():
    """The median may be anything between them: what a majority agreed on before goes on."""
    node = Timed()
    node.elect()
    node.beats(3)
    node.mute = {3}
    node.beats(80)
    node.wrong[2] = HOUR
    node.beats(3)
    assert abs(node.put()) <= 1
    node.wrong[1] = HOUR
    node.beats(3)
    assert node.put() == HOUR, "two of three agree"


@pytest.mark.parametrize("wrong", [YEARS, -YEARS])
def test_voters_of_an_older_version_tell_no_clocks(wrong):
    """Then a leader is bound by its own progress only."""
    node = Timed(n1=wrong)
    node.silent_clocks = {2, 3}
    assert node.elect() == wrong or wrong < 0
    node.beats(5)
    node.wrong[1] += HOUR
    assert node.put() <= max(wrong, 0)
    assert node.beats(2).doubt.ahead_ms == HOUR


def test_a_core_that_was_never_told_the_time_stamps_by_the_log():
    """0 is no time: nothing is compared with it."""
    node = One().lead().settle(2, 3)
    assert node.log[-1].time_ms == 0
    assert node.raft.role.clock is None


def test_log_time_that_is_ahead_stands_still_until_the_clocks_reach_it():
    """Old entries stay what they are; nothing is stamped later than the last of them before its time has come."""
    node = Timed(log_ms=NOW + 1_000)
    assert node.elect() == 1_000
    assert [node.put(), node.beats(4).put()] == [1_000, 700]
    assert node.beats(20).put() == 0


def test_a_reset_takes_log_time_back_to_what_the_clocks_say():
    """And from there it is monotone again."""
    node = Timed(log_ms=NOW + YEARS)
    assert node.elect() == YEARS
    assert node.beats().put() == YEARS - BEAT
    assert node.reset() == 0
    assert node.log[-1].kind == EntryKind.CLOCK
    node.wrong[1] = -500
    assert node.put() == 0
    assert node.beats(10).put() == -500


@pytest.mark.parametrize(("voters", "expected"), [((1, 2, 3), 0), ((1, 2), HOUR), ((1,), HOUR)])
def test_a_reset_takes_the_majoritys_word_and_where_there_is_none_the_leaders(voters, expected):
    """The operator says that clocks are right; of two that differ, the leader's is taken, now and from then on."""
    node = Timed(voters)
    node.elect()
    node.wrong[1] = HOUR
    node.beats(2)
    assert node.reset() == expected
    assert node.raft.role.clock.has_majority is (len(voters) == 3), "an operator's word makes no majority"
    assert node.beats(5).put() == expected
    assert (node.doubt is None) == (expected == HOUR)


def test_a_reset_takes_the_leaders_word_when_the_majority_has_fallen_silent():
    """What they said before is out of date, however well they agreed."""
    node = Timed()
    node.elect()
    node.beats(5)
    node.mute = {2, 3}
    node.passed += 6_000
    node.wrong[1] = HOUR
    assert node.reset() == HOUR
    assert not node.raft.role.clock.has_majority


def test_a_reset_is_the_leaders_and_not_while_it_hands_over():
    """As any proposal."""
    follower = One()
    with pytest.raises(NotLeader):
        follower.raft.reset_clock()
    node = Timed()
    node.elect()
    node.raft.transfer_leadership(2)
    with pytest.raises(Busy):
        node.raft.reset_clock()


def test_a_clock_before_the_epoch_is_no_time_of_an_entry():
    """A record's time has no sign."""
    node = Timed((1,), n1=-NOW - HOUR)
    node.elect()
    assert node.reset() + NOW + node.passed == 0
    node.wrong[1] = 0
    node.put()
    assert node.log[-1].time_ms == 0, "nor when it is the one that the entries go by, and the own clock is right"


def test_a_log_takes_an_earlier_time_from_a_reset_only():
    """Followers and restarted nodes check what they take; a reset that is cut off takes its time with it."""
    view = LogView()
    first = make_entry(1, 1, 5_000, EntryKind.COMMAND, b"", 0)
    view.extend([first])
    for kind in (EntryKind.NOOP, EntryKind.COMMAND, EntryKind.MEMBERSHIP):
        with pytest.raises(SafetyViolation, match="goes back behind"):
            view.extend([make_entry(2, 1, 4_000, kind, b"", first.chain)])
    view.extend([make_entry(2, 1, 4_000, EntryKind.CLOCK, b"", first.chain)])
    assert view.last_time_ms == 4_000
    view.truncate_from(2)
    assert view.last_time_ms == 5_000


def test_a_reset_that_was_compacted_leaves_its_time_as_the_logs_start():
    """A snapshot's log time is that of its index, a reset's too."""
    view = LogView()
    first = make_entry(1, 1, 5_000, EntryKind.COMMAND, b"", 0)
    view.extend([first, make_entry(2, 1, 4_000, EntryKind.CLOCK, b"", first.chain)])
    view.compact(2)
    assert (view.start.time_ms, view.last_time_ms) == (4_000, 4_000)


def test_followers_tell_their_clock_with_votes_and_with_answers_that_wait_for_no_disk():
    """What waited for a disk would be late by that, and is not told."""
    node = One()
    node.raft.observe(NOW, 5)
    [reply] = node.asked(candidate=2)
    assert (type(reply), reply.now_ms) == (RequestVoteReply, NOW)
    [reply] = node.hear(2, term=1, terms=(1,))
    assert (reply.match_index, reply.now_ms) == (1, 0)
    [reply] = node.hear(2, term=1)
    assert (reply.match_index, reply.now_ms) == (1, NOW)
