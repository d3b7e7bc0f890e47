"""How long methods take is counted by method, on any thread."""

from __future__ import annotations

import threading

import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import Rejected
from raftkv.machine import (
    NO_SESSION,
    Method,
    MethodTimes,
    Runner,
    SliceOver,
    StateMachine,
    Table,
    command,
    encode_command,
    encode_query,
    query,
)
from raftkv.model import GENESIS_CHAIN, EntryKind
from raftkv.state import MemoryStore


class Clock:
    """Goes on when a method says so."""

    now = 0.0


class Slow(StateMachine):
    """Its methods take as long as they are told to."""

    rows = Table(int, int)

    @command
    def work(self, seconds: float) -> None:
        Clock.now += seconds
        self.rows[1] = 1

    @command
    def fail(self, seconds: float) -> None:
        Clock.now += seconds
        raise ValueError("no")

    @query
    def look(self, seconds: float) -> int:
        Clock.now += seconds
        return self.rows.get(1, 0)

    @query
    def refuse(self) -> None:
        raise ValueError("no")


class Stage:
    """A runner, and what was slow."""

    def __init__(self, slice_reads: int = 100) -> None:
        self.slow: list[tuple[str, float]] = []
        self.times = MethodTimes(lambda: Clock.now, self.met)
        store = MemoryStore.open(SimDisk(), "/state")
        self.runner = Runner(Slow, store, slice_reads=slice_reads, times=self.times)

    def met(self, method: Method, seconds: float) -> None:
        self.slow.append((method.name, round(seconds, 6)))

    def apply(self, name: str, *args: object) -> None:
        encoded = encode_command(NO_SESSION, 0, 0, name, Slow.methods[name].encode_args(args, {}))
        index = self.runner.applied.index + 1
        self.runner.apply([make_entry(index, 1, 0, EntryKind.COMMAND, encoded, GENESIS_CHAIN)])

    def ask(self, name: str, *args: object) -> None:
        self.runner.query(encode_query(name, Slow.methods[name].encode_args(args, {})))


def test_runs_are_counted_by_what_they_took():
    """A command, a query, and what they raise, each with the others that took about as long."""
    stage = Stage()
    for seconds in (0.0, 0.0004, 0.04, 2.0):
        stage.apply("work", seconds)
    stage.apply("fail", 0.02)
    stage.ask("look", 0.3)
    with pytest.raises(Rejected):
        stage.ask("refuse")
    times = stage.times.so_far()
    assert list(times) == ["work", "fail", "look", "refuse"]
    work, fail, look, refuse = times.values()
    assert (work.runs, work.raised, work.slow, round(work.seconds, 6)) == (4, 0, 1, 2.0404)
    assert sum(work.counts) == 4 and work.counts[0] == work.counts[1] == work.counts[-1] == 1
    assert (fail.raised, look.raised, refuse.raised) == (1, 0, 1)
    assert (work.kind, look.kind) == ("command", "query")
    assert "test_times.py:" in work.line


def test_slow_runs_are_told_of():
    """Each that took more than a tenth of a second, and no other."""
    stage = Stage()
    stage.apply("work", 0.09)
    stage.apply("work", 0.2)
    stage.apply("fail", 0.3)
    stage.ask("look", 0.4)
    assert stage.slow == [("work", 0.2), ("fail", 0.3), ("look", 0.4)]


def test_a_query_that_goes_on_elsewhere_is_counted_once():
    """It begins anew in a thread: what it did on the loop is no run."""
    stage = Stage(slice_reads=0)
    with pytest.raises(SliceOver):
        stage.ask("look", 0.4)
    assert stage.times.so_far() == {} and stage.slow == []


def test_no_run_is_lost_between_threads():
    """Scans run beside the loop, several at once."""
    times = MethodTimes(lambda: 0.0, lambda *_: None)
    method = Slow.methods["look"]

    def work() -> None:
        for _ in range(2_000):
            times.ran_beside(method, False, 0.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2_000):
        times.ran(method, False)
    for thread in threads:
        thread.join()
    assert times.so_far()["look"].runs == 10_000


def test_a_scan_is_counted_with_its_method():
    """A query that has read a view on another thread is a run as any other."""
    stage = Stage()
    args = Slow.methods["look"].encode_args((0.3,), {})
    stage.runner.query_view(stage.runner.store.view(), encode_query("look", args), lambda _: 100)
    stage.ask("look", 0.2)
    (look,) = stage.times.so_far().values()
    assert (look.runs, look.slow) == (2, 2)
    assert stage.slow == [("look", 0.3), ("look", 0.2)]
