"""Clients that wait for another result: when their question is asked again, and what each of them is told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import xxhash

from raftkv.errors import Busy, InvalidArgument, NodeStopped, NotLeader, Unavailable
from raftkv.node.polls import AT_ONCE, LONG_S, NO_NEWS, PAUSE_S, REST, TIMED_S, Polls
from raftkv.testing.world.loop import elapse
from tests.node.parts import Body, tell

ONE, TWO = b"one", b"two"
WAIT_S = 60.0


def known(result):
    """What a client knows of a result."""
    return xxhash.xxh3_64_intdigest(result)


class Hall:
    """A node that has applied entries up to `applied_index`, and gives `result` to whoever asks."""

    def __init__(self, **config):
        self.body = Body({"node_id": 1, "is_leader": True, "leader": 1}, **config)
        self.body.world.clock = self.clock
        self.applied_index, self.result, self.cost_s = 5, ONE, 0.0
        self.traits = {}
        """What each query proves to be."""
        self.asked, self.first, self.beside = [], [], []
        """When something was asked again; the queries that wait for a leader's word; those beside the loop."""
        self.is_slow, self.late = False, []
        self.polls = Polls(
            self.body, SimpleNamespace(query=self.first.append), self, SimpleNamespace(begin=self._begin)
        )
        self.told = []
        self.spent = 0.0

    def clock(self):
        """The loop's time, and what asking took."""
        return asyncio.get_running_loop().time() + getattr(self, "spent", 0.0)

    def answer_stale(self, query):
        """Answer at once, or when the test says so if it `is_slow`."""
        self.asked.append((query.payload, round(asyncio.get_running_loop().time(), 3)))
        self.spent += self.cost_s
        if self.is_slow:
            self.late.append(query)
        else:
            self._answer(query)

    def _answer(self, query):
        for name, value in self.traits.items():
            setattr(query, name, value)
        query.done(self.applied_index, self.result)

    def _begin(self, query):
        self.beside.append((query.payload, round(asyncio.get_running_loop().time(), 3)))
        self._answer(query)

    def wait(self, name="a", *, payload=b"open?", knows=ONE, wait_s=WAIT_S, confirmed=True):
        """Have a client ask, and hear that it is as it knows."""
        poll = self.polls.ask(
            SimpleNamespace(payload=payload, done=None, told_time=False, is_long=False),
            known(knows) if knows is not None else None,
            lambda index, result: self.told.append((name, index, result)),
            wait_s,
        )
        if confirmed:
            self._answer(self.first.pop())
        return poll

    async def apply(self, result=None):
        """Apply an entry, which may have made the result another one."""
        self.applied_index += 1
        self.result = result or self.result
        self.polls.look()
        await elapse(0)
        await elapse(0)


def test_who_knows_the_result_waits_for_another_one():
    """And is told it with where it was read, as soon as an entry has changed it; once."""

    async def story():
        hall = Hall()
        hall.wait()
        await elapse(1)
        assert hall.told == [] and hall.asked == [] and len(hall.polls) == 1, "nothing was applied"
        await hall.apply()
        assert hall.told == [] and len(hall.asked) == 1
        await elapse(1)
        await hall.apply(TWO)
        assert hall.told == [("a", 7, TWO)] and len(hall.polls) == 0
        await elapse(WAIT_S)
        assert len(hall.told) == 1 and len(hall.asked) == 2

    tell(story)


@pytest.mark.parametrize("knows", [None, TWO])
def test_who_knows_another_result_or_none_is_told_at_once(knows):
    """It need not wait for anything to be applied."""

    async def story():
        hall = Hall()
        hall.wait(knows=knows)
        assert hall.told == [("a", 5, ONE)] and len(hall.polls) == 0

    tell(story)


def test_what_went_wrong_is_told_at_once():
    """Not to one who has heard that it is as it knows."""

    async def story():
        hall, error = Hall(), Unavailable("no such door")
        hall.wait("a")
        hall.result = error
        hall.wait("b", payload=b"other?")
        assert hall.told == [("b", 5, error)]

    tell(story)


def test_a_question_is_asked_once_for_all_that_wait():
    """Who knows what it is by then waits on; who comes later knows that one."""

    async def story():
        hall = Hall()
        hall.wait("a")
        hall.wait("b")
        gone = hall.wait("c")
        gone.cancel()
        await elapse(1)
        await hall.apply(TWO)
        assert len(hall.asked) == 1 and hall.told == [("a", 6, TWO), ("b", 6, TWO)]

    tell(story)


@pytest.mark.parametrize("goes_wrong", [False, True])
def test_nobody_is_told_what_was_before_the_state_that_they_have_seen(goes_wrong):
    """A question that takes its time may be answered from an older state than the one that a client who came meanwhile
    has heard of. What went wrong is for all."""

    async def story():
        hall = Hall()
        hall.wait("early")
        hall.is_slow = True
        await elapse(PAUSE_S)
        await hall.apply()
        hall.applied_index = 8
        hall.wait("late")
        result = InvalidArgument("no") if goes_wrong else TWO
        hall.late.pop().done(7, result)
        await elapse(0)
        assert hall.told == [("early", 7, result)] + goes_wrong * [("late", 7, result)]

    tell(story)


def test_nobody_is_asked_for_who_has_gone():
    """With the last client the question goes."""

    async def story():
        hall = Hall()
        first, second = hall.wait("a"), hall.wait("b")
        first.cancel()
        await elapse(1)
        await hall.apply()
        second.cancel()
        second.cancel()
        await elapse(1)
        await hall.apply(TWO)
        assert len(hall.asked) == 1 and hall.told == [] and len(hall.polls) == 0

    tell(story)


def test_when_the_time_is_over_there_is_no_news():
    """Which is worth something only after the first answer: before it, nobody knows."""

    async def story():
        hall = Hall()
        hall.wait("a", wait_s=3)
        hall.wait("b", wait_s=4, confirmed=False)
        await elapse(3.5)
        assert hall.told == [("a", 5, NO_NEWS)]
        await elapse(1)
        assert isinstance(hall.told[1][2], Unavailable) and len(hall.polls) == 0
        hall._answer(hall.first.pop())
        assert len(hall.told) == 2, "too late"

    tell(story)


def test_so_many_may_wait():
    """One more is busy; when one was told, there is room."""

    async def story():
        hall = Hall(polls_max=2)
        hall.wait("a")
        hall.wait("b")
        with pytest.raises(Busy, match=r"^2 requests wait here"):
            hall.wait("c")
        await elapse(1)
        await hall.apply(TWO)
        hall.wait("c", knows=TWO)
        assert len(hall.polls) == 1

    tell(story)


def test_a_question_has_a_pause_however_much_is_applied():
    """The last entry is not missed for it."""

    async def story():
        hall = Hall()
        hall.wait()
        await elapse(1)
        for _ in range(10):
            await hall.apply()
        assert len(hall.asked) == 1
        await elapse(PAUSE_S + 0.001)
        assert [at for _, at in hall.asked] == [1.0, 1.0 + PAUSE_S]
        await elapse(1)
        assert len(hall.asked) == 2

    tell(story)


@pytest.mark.parametrize(("trait", "pause_s"), [("told_time", TIMED_S), ("is_long", LONG_S)])
def test_time_alone_may_change_a_result_that_has_asked_for_it(trait, pause_s):
    """So it is asked again without anything being applied; what is long is asked beside the loop."""

    async def story():
        hall = Hall()
        hall.traits = {trait: True}
        hall.wait()
        await elapse(3 * pause_s + 0.01)
        asked = hall.beside if trait == "is_long" else hall.asked
        assert [at for _, at in asked] == [pause_s, 2 * pause_s, 3 * pause_s]
        hall.result = TWO
        await elapse(pause_s)
        assert [result for _, _, result in hall.told] == [TWO]

    tell(story)


@pytest.mark.parametrize("trait", ["told_time", "is_long"])
def test_elsewhere_than_at_the_leader_nobody_waits_for_time(trait):
    """There it stands still while nothing is applied."""

    async def story():
        hall = Hall()
        hall.body.raft.is_leader, hall.body.raft.leader = False, 2
        hall.traits = {trait: True}
        hall.wait()
        ((_, _, error),) = hall.told
        assert isinstance(error, NotLeader) and error.leader == 2

    tell(story)


def test_a_quarter_of_the_loops_time_goes_into_asking():
    """After it was asked, it is left alone for as many times as long as that took."""

    async def story():
        hall = Hall()
        hall.cost_s = 0.1
        for number in range(3):
            hall.wait(str(number), payload=b"%d?" % number)
        await elapse(1)
        await hall.apply()
        assert len(hall.asked) == 3
        await hall.apply()
        await elapse(REST * 0.3 - 0.01)
        assert len(hall.asked) == 3
        await elapse(0.02)
        assert len(hall.asked) == 6

    tell(story)


def test_so_many_are_asked_in_one_go():
    """The longest waiting first; the others when those have been answered."""

    async def story():
        hall = Hall()
        hall.is_slow = True
        for number in range(AT_ONCE + 5):
            hall.wait(str(number), payload=b"%d?" % number)
        await hall.apply()
        await elapse(1)
        assert [payload for payload, _ in hall.asked] == [b"%d?" % number for number in range(AT_ONCE)]
        for query in hall.late[:]:
            hall._answer(query)
        await elapse(1)
        assert len(hall.asked) == AT_ONCE + 5

    tell(story)


def test_a_busy_node_asks_later():
    """Nobody is told of that."""

    async def story():
        hall = Hall()
        hall.wait()
        hall.result = Busy("too much to do")
        await elapse(1)
        await hall.apply()
        hall.result = TWO
        await elapse(LONG_S - 0.01)
        assert hall.told == []
        await elapse(0.02)
        assert hall.told == [("a", 6, TWO)]

    tell(story)


def test_with_another_leader_all_ask_again_there():
    """What waits here may wait in vain."""

    async def story():
        hall = Hall()
        hall.wait("a")
        hall.wait("b", confirmed=False)
        hall.body.raft.leader = 3
        hall.polls.role_changed()
        await elapse(0)
        assert [(name, index, error.leader) for name, index, error in hall.told] == [("a", 0, 3), ("b", 0, 3)]
        assert len(hall.polls) == 0

    tell(story)


def test_a_node_that_stops_tells_all_and_asks_nothing_more():
    """Each gets the error."""

    async def story():
        hall, error = Hall(), NodeStopped("the disk is gone")
        hall.wait("a")
        hall.wait("b", confirmed=False)
        hall.applied_index += 1
        hall.polls.look()
        hall.polls.stop(error)
        await elapse(1)
        assert hall.told == [("a", 0, error), ("b", 0, error)] and hall.asked == []

    tell(story)
