"""Scheduled commands: in the order of their times, each once, within limits; what they raise, cancel and schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import InvalidArgument, MachineError, MachineFailed, Rejected, TooMuchWork
from raftkv.machine import (
    NO_SESSION,
    Due,
    Limits,
    LocalMachine,
    OutcomeKind,
    Runner,
    StateMachine,
    Table,
    TooManyTimers,
    Value,
    changed,
    command,
    encode_command,
    encode_due,
    every,
    query,
)
from raftkv.machine.local import START_MS
from raftkv.machine.timers import due_ms_of, record_in
from raftkv.model import GENESIS_CHAIN, EntryKind
from raftkv.state import TIMER_PREFIX, MemoryStore


class Alarms(StateMachine, limits=Limits(timers=50, change_bytes=20_000)):
    """Writes down what rang, and when."""

    rang = Table(int, tuple[str, int, float])
    count = Value(int, 0)

    @command
    def set(self, after_s: float, name: str) -> int:
        """One alarm; returns its handle."""
        return self.schedule(after_s, Alarms.ring, name)

    @command
    def set_at(self, at: datetime, name: str) -> int:
        """One alarm at a time of day."""
        return self.schedule(at, self.ring, name)

    @command
    def stop(self, handle: int) -> bool:
        """No alarm."""
        return self.cancel(handle)

    @command
    def swap(self, handle: int, after_s: float) -> None:
        """Another one, or none at all."""
        self.cancel(handle)
        self.schedule(after_s, Alarms.ring, "instead")
        raise ValueError("no")

    @command
    def ring(self, name: str) -> None:
        """It rings; some do more than that."""
        self.count += 1
        self.rang[self.count] = name, self.now_ms, self.random.random()
        kind, _, rest = name.partition(" ")
        if kind == "raise":
            raise ValueError(name)
        if kind == "break":
            raise OSError("not its own")
        if kind == "again":
            self.schedule(0, Alarms.ring, name)
        if kind == "stop":
            self.cancel(int(rest))

    @command
    def misuse(self, how: str) -> None:
        """Schedule what can't be."""
        calls = {
            "query": lambda: self.schedule(1, Alarms.all),
            "stranger": lambda: self.schedule(1, Other.ring, "x"),
            "text": lambda: self.schedule(1, "ring", "x"),
            "arguments": lambda: self.schedule(1, Alarms.ring, 7),
            "too few": lambda: self.schedule(1, Alarms.ring),
            "when": lambda: self.schedule("soon", Alarms.ring, "x"),
            "true": lambda: self.schedule(True, Alarms.ring, "x"),
            "naive": lambda: self.schedule(datetime(2030, 1, 1), Alarms.ring, "x"),
            "nan": lambda: self.schedule(float("nan"), Alarms.ring, "x"),
            "far": lambda: self.schedule(1e30, Alarms.ring, "x"),
            "endless": lambda: self.schedule(float("inf"), Alarms.ring, "x"),
            "handle": lambda: self.cancel("1"),
            "large": lambda: self.schedule(1, Alarms.ring, "x" * 30_000),
        }
        calls[how]()

    @query
    def all(self) -> list[tuple[str, int]]:
        """What rang."""
        return [(name, time_ms - START_MS) for _, (name, time_ms, _) in self.rang.items()]

    @query
    def dice(self) -> list[float]:
        """What was drawn."""
        return [drawn for _, (_, _, drawn) in self.rang.items()]

    @query
    def peek(self, how: str) -> int:
        """May not do that."""
        return self.schedule(1, Alarms.ring, "x") if how == "schedule" else self.cancel(1)


class Other(StateMachine):
    """Has a command of the same name."""

    @command
    def ring(self, name: str) -> None:
        """Nothing."""


def test_alarms_ring_in_the_order_of_their_times_at_their_times():
    """Not in the order in which they were set; equal times in that order."""
    local = LocalMachine(Alarms)
    for after_s, name in ((3, "c"), (1, "a"), (3, "d"), (2.5, "b")):
        local.set(after_s, name)
    assert local.timers == 4
    assert local.advance(0.999) == 0
    assert local.advance(0.001) == 1
    assert local.all() == [("a", 1_000)]
    assert local.advance(100) == 3
    assert local.all() == [("a", 1_000), ("b", 2_500), ("c", 3_000), ("d", 3_000)]
    assert (local.timers, local.advance(1_000)) == (0, 0)
    assert local._runner.store.get(TIMER_PREFIX) is not None
    assert len(list(local._runner.store.scan(TIMER_PREFIX, b"\x04"))) == 1, "nothing is left but the record"


def test_a_time_of_day_and_one_that_is_past():
    """A datetime is what it is in its time zone; what is past is due at once."""
    local = LocalMachine(Alarms)
    local.set_at(datetime.fromtimestamp(START_MS / 1000 + 7, tz=UTC), "seven")
    local.set_at(datetime(1999, 1, 1, tzinfo=UTC), "past")
    local.set(-5, "earlier")
    local.advance(10)
    assert local.all() == [("past", 0), ("earlier", 0), ("seven", 7_000)]


def test_a_handle_cancels_once():
    """Not again, not one that has run, not what never was; the others still ring."""
    local = LocalMachine(Alarms)
    handles = [local.set(at, str(at)) for at in (1, 2, 3)]
    assert [local.stop(handles[0]), local.stop(handles[0])] == [True, False]
    assert local._runner.next_due_ms == START_MS + 2_000
    local.advance(2)
    assert [local.stop(each) for each in (handles[1], 0, -1, 77, (1 << 64) - 1)] == [False] * 5
    assert local.stop(handles[2])
    assert (local.timers, local._runner.next_due_ms) == (0, None)
    local.advance(9)
    assert local.all() == [("2", 2_000)]


def test_what_a_command_has_scheduled_and_cancelled_is_undone_when_it_raises():
    """Like all else that it did."""
    local = LocalMachine(Alarms)
    handle = local.set(2, "first")
    with pytest.raises(Rejected, match="no"):
        local.swap(handle, 1)
    local.advance(3)
    assert local.all() == [("first", 2_000)]


def test_one_that_raises_is_undone_alone_and_does_not_come_again():
    """Those of the same entry before and behind it are not touched."""
    local = LocalMachine(Alarms)
    for name in ("a", "raise b", "c"):
        local.set(1, name)
    assert local.advance(1) == 3
    assert [each.outcome.kind for each in local.fired] == [
        OutcomeKind.APPLIED,
        OutcomeKind.REJECTED,
        OutcomeKind.APPLIED,
    ]
    assert local.all() == [("a", 1_000), ("c", 1_000)]
    assert local.advance(9) == 0


def test_one_cancels_another_that_is_due_in_the_same_entry():
    """It does not ring, whether it was the next or a later one."""
    local = LocalMachine(Alarms)
    for name in ("stop 2", "b", "stop 4", "d"):
        local.set(1, name)
    local.set(2, "e")
    assert local.advance(1) == 2
    assert local._runner.next_due_ms == START_MS + 2_000
    local.advance(1)
    assert [name for name, _ in local.all()] == ["stop 2", "stop 4", "e"]


def test_each_has_dice_of_its_own():
    """In one entry too; and other machines draw the same."""
    drawn = []
    for _ in range(2):
        local = LocalMachine(Alarms)
        for _ in range(3):
            local.set(1, "a")
        local.advance(1)
        drawn.append(local.dice())
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3


def test_what_is_scheduled_at_once_comes_with_the_next_entry():
    """So an entry has an end; a test is told of commands that never let time go on."""
    local = LocalMachine(Alarms)
    local.set(1, "again")
    with pytest.raises(TooMuchWork, match="without any delay"):
        local.advance(1)
    assert len({each.timer_id for each in local.fired}) == len(local.fired)


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("query", "TypeError", "is no command of Alarms"),
        ("stranger", "TypeError", "is no command of Alarms: schedule one like Alarms.ring"),
        ("text", "TypeError", "'ring' is no command of Alarms: schedule one like Alarms.expire"),
        ("arguments", "InvalidArgument", "Expected `str`, got `int`"),
        ("too few", "InvalidArgument", "missing a required argument"),
        ("when", "TypeError", "a datetime with a time zone, not 'soon'"),
        ("true", "TypeError", "not True"),
        ("naive", "ValueError", "give it a time zone"),
        ("nan", "ValueError", "nan seconds are no time: give a number of them"),
        ("endless", "ValueError", "inf seconds are no time"),
        ("far", "ValueError", "too far away"),
        ("handle", "TypeError", "a handle is what `schedule` has returned"),
        ("large", "TooLarge", "what a command changes"),
    ],
)
def test_misuse_is_refused_when_it_is_scheduled(how, error, text):
    """And not when it is due, where nobody would hear of it."""
    local = LocalMachine(Alarms)
    with pytest.raises(Rejected) as found:
        local.misuse(how)
    assert found.value.error_type == error
    assert text in str(found.value)
    assert local.timers == 0


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan"), float("inf")])
def test_time_does_not_go_back(seconds):
    """In a test neither, unless it says so; nothing has happened then."""
    local = LocalMachine(Alarms)
    local.set(0.5, "a")
    with pytest.raises(InvalidArgument, match="time goes on by 0 seconds or more, not by"):
        local.advance(seconds)
    assert (local.now_ms, local.timers) == (START_MS, 1)


@pytest.mark.parametrize("how", ["schedule", "cancel"])
def test_a_query_schedules_nothing(how):
    """It runs on one node only."""
    local = LocalMachine(Alarms)
    local.set(1, "a")
    with pytest.raises(Rejected, match="this is a query"):
        local.peek(how)


def test_so_many_timers_and_no_more():
    """The limit is the class's, and its error is one that a client can catch."""
    local = LocalMachine(Alarms)
    for _ in range(50):
        local.set(1, "a")
    with pytest.raises(TooManyTimers) as found:
        local.set(1, "a")
    assert found.value.limit == 50
    local.stop(1)
    local.set(1, "a")


@pytest.mark.parametrize("when", [0.1, 0.07, 1.1, 2.3, 4.35, 1e-9, timedelta(microseconds=1), 1.0005])
def test_a_time_is_never_rounded_down(when):
    """To a whole millisecond, never an earlier one, and never a whole one later."""
    span = when if isinstance(when, timedelta) else timedelta(seconds=when)
    due = timedelta(milliseconds=due_ms_of(when, 1_000) - 1_000)
    assert span <= due < span + timedelta(milliseconds=1)


class Sweeper(StateMachine):
    """Sweeps every ten seconds."""

    swept = Table(int, int)

    @command
    @every(10)
    def sweep(self) -> None:
        """Note when."""
        self.swept[self.now_ms - START_MS] = self.index

    @command
    def stop(self, handle: int) -> bool:
        """Try to end it."""
        return self.cancel(handle)

    @query
    def all(self) -> list[int]:
        """When."""
        return list(self.swept)


def test_what_repeats_does_so_from_the_beginning():
    """In its interval, and nobody can cancel it by a guess at its handle."""
    local = LocalMachine(Sweeper)
    assert not any(local.stop(handle) for handle in range(5))
    local.advance(35)
    assert local.all() == [10_000, 20_000, 30_000]


def test_missed_turns_are_one_turn():
    """After a long pause there is one, and the next one when it would have been."""
    local = LocalMachine(Sweeper)
    local.now_ms += 57_000
    assert local.advance(0) == 1
    local.advance(5)
    assert local.all() == [57_000, 60_000]


def test_a_reset_of_log_time_lets_what_repeats_go_on():
    """An interval later, and not when log time is where it was; what was scheduled once stays at its time."""

    class Both(Sweeper):
        """And once."""

        @command
        def later(self) -> None:
            """Once more."""
            self.schedule(101, Both.sweep)

    local = LocalMachine(Both)
    local.now_ms += 100_000
    local.advance(0)
    local.later()
    local.now_ms = START_MS
    entry = make_entry(local.index + 1, 1, local.now_ms, EntryKind.CLOCK, b"", local._chain)
    local._runner.apply([entry])
    local._chain = entry.chain
    assert local.timers == 2, "the turn that was to come before is not to come as well"
    local.advance(15)
    assert local.all() == [10_000, 100_000]
    local.advance(200)
    assert 201_000 in local.all()


class Both1(StateMachine):
    """The first version: sweeps, and does what goes with the version."""

    done = Table(int, str)

    @command
    @every(10)
    def sweep(self) -> None:
        """A turn."""
        self.done[self.now_ms - START_MS] = "sweep"

    @command(until=2)
    def old(self) -> None:
        """Gone in the second."""
        self.done[self.now_ms - START_MS] = "old"

    @command
    def plan(self, after_s: float) -> int:
        """Of the old one."""
        return self.schedule(after_s, Both1.old)

    @query
    def all(self) -> list[tuple[int, str]]:
        """What was done."""
        return list(self.done.items())


class Both2(Both1):
    """The second sweeps more often, and checks."""

    version = 2

    @command
    @every(3)
    def sweep(self) -> None:
        """A turn."""
        self.done[self.now_ms - START_MS] = "sweep"

    @command(since=2)
    @every(7)
    def check(self) -> None:
        """Another turn."""
        self.done[self.now_ms - START_MS] = "check"

    @command
    def plan(self, after_s: float) -> int:
        """Of the new one too."""
        new = self.schedule(after_s, Both2.check)
        return new if self.version > 1 else 1_000 * new + self.schedule(after_s, Both1.old)


Both1.__name__ = Both2.__name__ = "Both"


def test_a_version_brings_and_takes_what_repeats_and_drops_what_it_lacks():
    """Intervals are those of the active version, whatever the class says; timers of commands that are gone do nothing.

    What only a later version has can't be scheduled yet: a class of the active one would not even try.
    """
    local = LocalMachine(Both2, version=1, begun_by=Both1)
    assert 0 < local.plan(5) < 1_000
    local.plan(15)
    local.advance(12)
    assert local.all() == [(5_000, "old"), (10_000, "sweep")]
    local.upgrade()
    local.fired.clear()
    local.advance(8)
    assert local.all()[2:] == [(15_000, "sweep"), (18_000, "sweep"), (19_000, "check")]
    assert [each.name for each in local.fired if not each.is_known] == ["old"]
    assert local.timers == 2


def test_a_version_that_repeats_nothing_leaves_nothing_of_what_did():
    """Nothing is due any more, and the record of timers knows of no turns."""

    class First(StateMachine):
        @command
        @every(10)
        def sweep(self) -> None:
            """A turn."""

    class Second(StateMachine):
        version = 2

        @command(until=2)
        def sweep(self) -> None:
            """Gone."""

    First.__name__ = Second.__name__ = "Sweeping"
    local = LocalMachine(Second, version=1, begun_by=First)
    assert local.timers == 1
    local.upgrade()
    assert (local.timers, local._runner.next_due_ms) == (0, None)
    assert record_in(local._runner.store).repeats == {}


def test_another_interval_needs_another_version():
    """Nodes of one version would sweep at different times."""

    class Both(Both1):
        """The first version, but for the interval."""

        @command
        @every(11)
        def sweep(self) -> None:
            """A turn."""

    (found,) = changed(Both1.schema(), Both.schema())
    assert str(found).startswith("command sweep: was repeated every 10 s, is repeated every 11 s")
    assert Both1.fingerprint() != Both.fingerprint()


def test_wrong_declarations_name_the_line():
    """Something with arguments, a query, no command at all, an interval that is none."""
    with pytest.raises(MachineError, match=r"test_timers.py:\d+: command sweep: only a command without arguments"):

        class WithArguments(StateMachine):
            """Needs something."""

            @command
            @every(10)
            def sweep(self, name: str) -> None:
                """No."""

    with pytest.raises(MachineError, match=r"test_timers.py:\d+: sweep is to run by itself: mark it with @command"):

        class Unmarked(StateMachine):
            """Is no command."""

            @every(10)
            def sweep(self) -> None:
                """No."""

    with pytest.raises(MachineError, match=r"every\(0\): must be 0.1 to"):

        class Endless(StateMachine):
            """Has no time between."""

            @command
            @every(0)
            def sweep(self) -> None:
                """No."""


class Line:
    """A runner with entries of its own."""

    def __init__(self, machine=Alarms, store=None):
        self.store = store or MemoryStore.open(SimDisk(), "/state")
        self.fired = []
        self.runner = Runner(machine, self.store, on_fired=self.fired.append)
        self.index, self.chain = 0, GENESIS_CHAIN

    def entry(self, time_ms, kind, payload):
        """The next one."""
        self.index += 1
        made = make_entry(self.index, 1, time_ms, kind, payload, self.chain)
        self.chain = made.chain
        return made

    def call(self, time_ms, name, *args):
        """A command as an entry."""
        encoded = Alarms.methods[name].encode_args(args, {})
        return self.entry(time_ms, EntryKind.COMMAND, encode_command(NO_SESSION, 0, 0, name, encoded))

    def due(self, time_ms, count=10, change_bytes=1 << 20):
        """An entry that fires what is due."""
        return self.entry(time_ms, EntryKind.DUE, encode_due(Due(count, change_bytes)))


def test_an_entry_fires_so_many_and_changes_so_much():
    """The rest waits for the next, in its order."""
    line = Line()
    line.runner.apply([line.call(0, "set", at / 10, f"{at}") for at in range(10)])
    line.runner.apply([line.due(99_999, count=3)])
    assert [each.due_ms for each in line.fired] == [0, 100, 200]
    line.runner.apply([line.due(99_999, change_bytes=1)])
    assert len(line.fired) == 4
    line.runner.apply([line.due(450)])
    assert [each.due_ms for each in line.fired] == [0, 100, 200, 300, 400]
    assert (line.runner.next_due_ms, line.runner.timers) == (500, 5)
    line.runner.apply([line.due(499), line.due(99_999), line.due(99_999)])
    assert len(line.fired) == 10


def test_an_entry_fires_nothing_that_is_due_a_moment_later():
    """Though something is due at its time, were it the very first millisecond."""
    line = Line()
    line.runner.apply([line.call(0, "set", after_s, "a") for after_s in (0.0, 0.001, 0.003)])
    line.runner.apply([line.due(0)])
    assert [each.due_ms for each in line.fired] == [0]
    line.runner.apply([line.due(2)])
    assert [each.due_ms for each in line.fired] == [0, 1]


def test_behind_one_that_another_has_cancelled_in_the_same_entry_nothing_is_due():
    """The last of three: the one between them is still to come when it is cancelled."""
    line = Line()
    line.runner.apply([line.call(0, "set", 1.0, name) for name in ("stop 3", "a", "b")])
    line.runner.apply([line.due(1_000)])
    assert [each.timer_id for each in line.fired] == [1, 2]
    assert (line.runner.next_due_ms, line.runner.timers) == (None, 0)


def test_an_entry_that_fails_fires_nothing():
    """What was done before the failing one is not kept: a restart would do it again."""
    line, other = Line(), Line()
    for each in (line, other):
        each.runner.apply([each.call(0, "set", 1, name) for name in ("a", "break", "c")])
    with pytest.raises(MachineFailed, match="the command ring in entry 5 failed with OSError"):
        line.runner.apply([line.call(500, "set", 1, "d"), line.due(1_000)])
    other.runner.apply([other.call(500, "set", 1, "d")])
    assert dict(line.store.scan(b"", None)) == dict(other.store.scan(b"", None))
    with pytest.raises(MachineFailed, match="does not say how many"):
        Line().runner.apply([make_entry(1, 1, 0, EntryKind.DUE, b"?", GENESIS_CHAIN)])


calls = st.one_of(
    st.tuples(st.just("set"), st.integers(0, 6), st.sampled_from(["a", "raise", "stop 1", "stop 3"])),
    st.tuples(st.just("stop"), st.integers(1, 12)),
    st.tuples(st.just("swap"), st.integers(1, 12), st.integers(0, 6)),
    st.tuples(st.just("due"), st.integers(1, 4)),
    st.tuples(st.just("wait"), st.integers(1, 4)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(calls, max_size=25), st.lists(st.integers(1, 5), min_size=1, max_size=9))
def test_timers_are_what_a_list_of_them_would_be(steps, sizes):
    """However entries are batched; the record is right; what is in the state says all that there is to know."""
    line, naive = Line(), Naive()
    now, entries = 0, []
    for step in steps:
        name, *args = step
        if name == "wait":
            now += args[0] * 1_000
        elif name == "due":
            entries.append(line.due(now, count=args[0]))
            naive.due(now, args[0])
        else:
            entries.append(line.call(now, name, *args))
            getattr(naive, name)(now, *args)
    batches = iter(sizes * len(entries))
    while entries:
        size = next(batches)
        line.runner.apply(entries[:size])
        del entries[:size]
        line.runner = Runner(Alarms, line.store, on_fired=line.fired.append)
    assert [(each.due_ms, each.timer_id) for each in line.fired] == naive.fired
    record = record_in(line.store)
    assert (record.count, record.first) == (len(naive.waiting), min(naive.waiting, default=None))
    first = min(naive.waiting, default=(None, 0))[0]
    assert (line.runner.timers, line.runner.next_due_ms) == (len(naive.waiting), first)
    kept = sum(1 for _ in line.store.scan(TIMER_PREFIX + b"\0", b"\x04"))
    assert kept == 2 * len(naive.waiting)


class Naive:
    """The same, with a dictionary."""

    def __init__(self):
        self.waiting, self.fired, self.last = {}, [], 0

    def set(self, now, after_s, name):
        """An alarm."""
        if len(self.waiting) < 50:
            self.last += 1
            self.waiting[now + after_s * 1_000, self.last] = name

    def stop(self, now, handle):
        """No alarm."""
        self.waiting = {place: name for place, name in self.waiting.items() if place[1] != handle}

    def swap(self, now, handle, after_s):
        """It raises."""

    def due(self, now, count):
        """What is due is done, but for what was cancelled."""
        for place in sorted(place for place in self.waiting if place[0] <= now)[:count]:
            name = self.waiting.pop(place, None)
            if name is not None:
                self.fired.append(place)
                if name.startswith("stop"):
                    self.stop(now, int(name[5:]))
