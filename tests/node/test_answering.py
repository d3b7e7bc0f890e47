"""How the loop is shared: a batch of entries a turn, queries for a slice of time, and nothing while the state is held
or replaced."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from types import SimpleNamespace

import pytest

from raftkv import failpoints
from raftkv.errors import DiskError, InvalidArgument, NodeStopped, Unavailable
from raftkv.machine import SliceOver
from raftkv.node.applier import ANSWERS_AT_ONCE, ANSWERS_REST_S, ANSWERS_SLICE_S, AnswerClock, Applier
from raftkv.node.waiting import Commands, Queries, Query
from raftkv.testing.world.loop import elapse
from tests.node.parts import Worker, tell


class Machine:
    """Notes the entries that it is given, and takes `cost_s` for a query; what it is asked it may raise."""

    told_time = False

    def __init__(self, node, index=0):
        self.node = node
        self.applied = SimpleNamespace(index=index)
        self.given, self.cost_s = [], 0.0

    def apply(self, entries):
        self.given += [entry.index for entry in entries]
        self.applied = SimpleNamespace(index=entries[-1].index)
        return ["done"] * len(entries)

    def present_ms(self, present_ms):
        return present_ms

    def query(self, payload, now_ms):
        self.node.now_s += self.cost_s
        if isinstance(payload, BaseException):
            raise payload
        return payload


class Node:
    """An applier that takes two entries at a time, and what is heard of it. Entries up to `cached` are in memory."""

    def __init__(self):
        self.now_s, self.looks = 0.0, []
        self.machine = Machine(self)
        self.worker = Worker(eager=False)
        self.cached = 1_000
        self.commands, self.queries = Commands(), Queries(1)
        self.failures, self.applied, self.long, self.answers = [], [], [], []
        self.applier = Applier(
            self.machine, SimpleNamespace(cached=self.find, load=self.load), self.worker, self.commands, self.queries,
            batch_entries_max=2, on_applied=self.applied.append, on_failure=self.failures.append,
            clock=AnswerClock(self.seconds, lambda: 0), go_on=self.long.append,
        )  # fmt: skip

    def seconds(self):
        """Read the clock; how many queries were answered by then is noted."""
        self.looks.append(len(self.answers))
        return self.now_s

    def find(self, first, last):
        return entries(first, last) if last <= self.cached else None

    def load(self, first, last, size):
        return entries(first, last)

    def ask(self, *payloads):
        """Queries that may be answered at any index; they are not answered yet."""
        for payload in payloads:
            self.queries.add_due(self.query(payload))

    def query(self, payload):
        """A query whose answer is noted."""
        return Query(payload, lambda index, result: self.answers.append((index, result)))


def entries(first, last):
    """Entries with nothing but an index, of term 1."""
    return [SimpleNamespace(index=index, term=1) for index in range(first, last + 1)]


def test_the_loop_has_its_turn_between_two_batches():
    """However many entries are committed at once, and however often it is told so."""

    async def story():
        node = Node()
        node.applier.hand_in(20)
        given = [len(node.machine.given)]
        for turn in range(9):
            node.applier.hand_in(20 + turn)
            node.applier.hold()
            node.applier.release()
            await elapse(0)
            given.append(len(node.machine.given))
        assert given == list(range(2, 22, 2))
        await elapse(1)
        assert node.machine.given == list(range(1, 29))

    tell(story)


def test_nothing_is_applied_while_the_state_is_held_or_replaced():
    """Both must be over, in whatever order; then it goes on by itself, with commands and queries."""

    async def story():
        for first, second in (("hold", "pause"), ("pause", "hold")):
            node = Node()
            getattr(node.applier, first)()
            node.applier.hand_in(3)
            getattr(node.applier, second)()
            node.ask(b"q")
            node.applier.answer_queries()
            await elapse(1)
            assert (node.machine.given, node.answers) == ([], [])
            over = {"hold": node.applier.release, "pause": lambda node=node: node.applier.resume(node.machine)}
            over[first]()
            await elapse(1)
            assert (node.machine.given, node.answers) == ([], [])
            over[second]()
            await elapse(1)
            assert (node.machine.given, node.answers) == ([1, 2, 3], [(2, b"q")])

    tell(story)


def test_a_query_is_answered_when_the_state_is_released_though_no_entry_comes():
    """It waited for the state, not for an entry."""

    async def story():
        for stop, go_on in (("hold", "release"), ("pause", "resume")):
            node = Node()
            getattr(node.applier, stop)()
            node.applier.answer_stale(node.query(b"q"))
            await elapse(1)
            assert node.answers == []
            getattr(node.applier, go_on)(*([node.machine] if go_on == "resume" else []))
            await elapse(1)
            assert node.answers == [(0, b"q")]

    tell(story)


def test_a_state_that_is_ahead_has_nothing_to_catch_up_with():
    """A snapshot took the place of entries that were never handed in here."""

    async def story():
        node = Node()
        node.applier.hand_in(2)
        node.applier.pause()
        node.applier.resume(Machine(node, 50))
        assert (node.applier.lag, node.applier.target) == (0, 50)

    tell(story)


@pytest.mark.parametrize("meanwhile", ["nothing", "stopped", "paused", "replaced by an older one"])
def test_old_entries_come_from_the_disk(meanwhile):
    """They are applied when they come, unless nothing may be applied any more, or others are next by then."""

    async def story():
        node = Node()
        node.cached = 0
        node.applier.hand_in(4)
        assert len(node.worker.queue) == 1
        if meanwhile == "stopped":
            node.applier.stop()
        elif meanwhile == "paused":
            node.applier.pause()
        node.worker.work()
        if meanwhile.startswith("replaced"):
            node.machine.applied = SimpleNamespace(index=-1)
        await elapse(1)
        assert node.machine.given == ([1, 2] if meanwhile == "nothing" else [])
        assert len(node.worker.queue) == (meanwhile in ("nothing", "replaced by an older one"))

    tell(story)


def test_a_log_that_cannot_be_read_stops_the_node():
    """What is committed has to be applied: there is no way around it."""

    async def story():
        node = Node()
        node.cached = 0
        node.applier.hand_in(2)
        node.worker.queue.popleft()[0].set_exception(DiskError("broken"))
        await elapse(1)
        assert [str(error) for error in node.failures] == ["broken"]

    tell(story)


def test_each_end_of_a_query_is_told():
    """Its result, the machine's error, or what has stopped the node; one that takes too long goes on elsewhere."""

    async def story():
        node = Node()
        stopped = NodeStopped("a page is damaged")
        node.ask(b"yes", InvalidArgument("no"), SliceOver(), stopped)
        node.applier.answer_queries()
        assert node.answers[0] == (0, b"yes")
        assert isinstance(node.answers[1][1], InvalidArgument)
        assert [query.is_long for query in node.long] == [True]
        assert isinstance(node.answers[2][1], Unavailable)
        assert node.failures == [stopped]

    tell(story)


def test_quick_queries_are_answered_many_at_once():
    """All within a slice of the loop; the clock is read now and then, and never less than once in so many."""

    async def story():
        node = Node()
        node.ask(*[b"q"] * 500)
        node.applier.answer_queries()
        assert len(node.answers) == 500
        steps = [after - before for before, after in pairwise(node.looks)]
        assert max(steps) == ANSWERS_AT_ONCE

    tell(story)


@pytest.mark.parametrize("writes", [False, True])
def test_slow_queries_leave_the_loop_to_others(writes):
    """After a slice the loop has its turn, and a rest while commands wait; nobody is answered meanwhile. The clock is
    read more and more often, so that the slices become short."""

    async def story():
        node = Node()
        node.machine.cost_s = 0.9 * ANSWERS_SLICE_S
        if writes:
            node.commands.add(100, 1, [lambda index, outcome: None])
        node.ask(*[b"q"] * 40)
        node.applier.answer_queries()
        answered = [len(node.answers)]
        node.applier.answer_queries()
        assert len(node.answers) == answered[0], "the slice is over"
        began = asyncio.get_running_loop().time()
        while len(node.answers) < 40:
            await elapse(0)
            answered.append(len(node.answers))
            if len(node.answers) == answered[-2]:
                await elapse(ANSWERS_REST_S / 4)
        steps = [step for step in (b - a for a, b in pairwise(answered)) if step]
        assert steps[-2:] == [2, 2]
        assert sorted(steps, reverse=True) == steps
        assert (asyncio.get_running_loop().time() - began > 5 * ANSWERS_REST_S) == writes

    tell(story)


def test_one_slice_of_queries_comes_in_each_rest_while_commands_wait():
    """Also when they are not so slow that the clock is read after each."""

    async def story():
        node = Node()
        node.machine.cost_s = 0.15 * ANSWERS_SLICE_S
        node.commands.add(100, 1, [lambda index, outcome: None])
        node.ask(*[b"q"] * 200)
        node.applier.answer_queries()
        answered = []
        for _ in range(20):
            await elapse(ANSWERS_REST_S)
            answered.append(len(node.answers))
        steps = [after - before for before, after in pairwise(answered)]
        assert set(steps[5:]) <= {7, 8}

    tell(story)


def test_a_stopped_node_answers_nobody():
    """Whoever waits is told by others that it has stopped."""

    async def story():
        node = Node()
        node.applier.stop()
        node.ask(b"q")
        node.applier.answer_queries()
        node.applier.hand_in(1)
        await elapse(1)
        assert (node.answers, node.machine.given) == ([], [])

    tell(story)


def test_the_failpoints_stand_on_the_side_of_the_change_that_they_name(monkeypatch):
    """Not applied; applied and not told; told."""

    async def story():
        node, told, found = Node(), [], []
        node.commands.add(1, 1, [lambda index, outcome: told.append(outcome)])
        monkeypatch.setattr(failpoints, "reach", lambda name: found.append((name, len(node.machine.given), len(told))))
        node.applier.hand_in(1)
        assert found == [("apply.before", 0, 0), ("apply.after", 1, 0), ("answer.after", 1, 1)]

    tell(story)
