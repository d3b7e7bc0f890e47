"""Tables and sets against a `dict` and a `set`, however the log is cut, wherever a node crashes."""

from __future__ import annotations

from collections.abc import MutableMapping, MutableSet
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv import Rejected, TooManyRows
from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.machine import (
    NO_SESSION,
    Limits,
    LocalMachine,
    OutcomeKind,
    Runner,
    Set,
    StateMachine,
    Table,
    command,
    encode_command,
    query,
)
from raftkv.machine import view as view_module
from raftkv.machine.counts import read_counts
from raftkv.model import EntryKind
from raftkv.state import COUNTS_KEY, MemoryStore


class Job(msgspec.Struct):
    """A value with fields that are indexed."""

    state: str
    weight: int = 0


def changed(
    jobs: MutableMapping[int, Job], seen: MutableSet[str], name: str, key: int, state: str, weight: int
) -> Job | None:
    """A step that is written alike for a table and a `dict`, for a replicated set and a `set`."""
    match name:
        case "set":
            jobs[key] = Job(state, weight)
        case "delete":
            return jobs.pop(key, None)
        case "default":
            return jobs.setdefault(key, Job(state, weight))
        case "update":
            jobs.update({key: Job(state), key + 1: Job(state, weight)})
        case "clear":
            jobs.clear()
        case "add":
            seen.add(state * key)
        case "discard":
            seen.discard(state * key)
    return None


class Jobs(StateMachine, limits=Limits(change_bytes=600)):
    """Does to a table and a set what a script says."""

    jobs = Table(int, Job, index={"state": str, "weight": int})
    seen = Set(str)

    @command
    def run(self, steps: list[tuple[str, int, str, int]], fail: bool) -> list[Any]:
        """The steps, in one command; raises at the end if told to."""
        results = [self._step(*step) for step in steps]
        if fail:
            raise ValueError("told to")
        return results

    def _step(self, name: str, key: int, state: str, weight: int) -> Any:
        jobs, seen = self.jobs, self.seen
        match name:
            case "popitem":
                return jobs.popitem() if jobs else None
            case "pop":
                return seen.pop() if seen else None
            case "look":
                return [
                    *(len(jobs), bool(jobs), list(jobs), list(jobs.items()), list(reversed(jobs.keys()))),
                    *(list(jobs.by("state", state)), list(jobs.by("weight", start=weight, reverse=True, limit=2))),
                    *(len(seen), bool(seen), list(seen), state in seen, list(seen.prefix(state))),
                ]
        return changed(jobs, seen, name, key, state, weight)

    @query
    def look(self, state: str, weight: int) -> list[Any]:
        """The same in a query."""
        return list(self._step("look", 0, state, weight))

    @query
    def same(self, jobs: list[tuple[int, Job]], seen: list[str]) -> bool:
        """Whether all is as in these."""
        return self.jobs == dict(jobs) and self.seen == set(seen)


class Model:
    """What it is meant to be."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.seen: set[str] = set()

    def step(self, name: str, key: int, state: str, weight: int) -> Any:
        """One step."""
        jobs, seen = self.jobs, self.seen
        match name:
            case "popitem":
                return (max(jobs), jobs.pop(max(jobs))) if jobs else None
            case "pop":
                first = min(seen, default=None)
                seen.discard(first)  # type: ignore[arg-type]
                return first
            case "look":
                rows = sorted(jobs.items())
                heavy = sorted(((job.weight, key) for key, job in rows if job.weight >= weight), reverse=True)[:2]
                return [
                    *(len(jobs), bool(jobs), sorted(jobs), rows, sorted(jobs, reverse=True)),
                    *([row for row in rows if row[1].state == state], [(key, jobs[key]) for _, key in heavy]),
                    *(len(seen), bool(seen), sorted(seen), state in seen),
                    sorted(each for each in seen if each.startswith(state)),
                ]
        return changed(jobs, seen, name, key, state, weight)


names = ["set", "set", "set", "delete", "default", "update", "popitem", "clear", "add", "add", "discard", "pop", "look"]
steps = st.tuples(
    st.sampled_from(names), st.integers(-1, 3), st.sampled_from(["a", "b", "a\0", ""]), st.integers(-1, 300)
)
scripts = st.lists(st.tuples(st.lists(steps, max_size=6), st.booleans()), min_size=1, max_size=8)


def log_of(script: list[Any]) -> list[Any]:
    """An entry for each command."""
    entries: list[Any] = []
    for number, args in enumerate(script, 1):
        payload = encode_command(NO_SESSION, 0, 0, "run", msgspec.msgpack.encode(args))
        chain = entries[-1].chain if entries else 0
        entries.append(make_entry(number, 1, 1_000, EntryKind.COMMAND, payload, chain))
    return entries


def plain(value: Any) -> Any:
    """As it is once it was encoded."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))


@settings(max_examples=80, deadline=None)
@given(script=scripts, sizes=st.lists(st.integers(1, 4), max_size=8), crash_at=st.integers(0, 8))
def test_tables_and_sets_are_those_of_python(script, sizes, crash_at):
    """Results are a dict's and a set's; a failed command leaves nothing, nor does one that writes too much; however the
    log is cut into batches, and wherever a node crashes, indexes and counts are what the rows say."""
    log = log_of(script)
    disk, model, at, crashed = SimDisk(), Model(), 0, False
    run = Runner(Jobs, MemoryStore.open(disk, "/s"))
    states, batches = {0: ({}, set())}, iter([*sizes, *[3] * 8])
    while at < len(log):
        model.jobs, model.seen = dict(states[at][0]), set(states[at][1])
        for outcome, (each, fail) in zip(run.apply(log[at : at + next(batches)]), script[at:], strict=False):
            before = dict(model.jobs), set(model.seen)
            expected = [model.step(*step) for step in each]
            assert outcome is not None
            if outcome.kind is OutcomeKind.APPLIED:
                assert not fail
                assert msgspec.msgpack.decode(outcome.payload) == plain(expected)
            else:
                assert fail or b"TooLarge" in outcome.payload, outcome
                model.jobs, model.seen = before
            at += 1
            states[at] = dict(model.jobs), set(model.seen)
        assert list(run.out_of_step()) == []
        if at % 3 == 0:
            run.store.flush()
        if at >= crash_at and not crashed:
            crashed = True
            run = Runner(Jobs, MemoryStore.open(disk, "/s"))
            at = run.applied.index
    local = LocalMachine(Jobs)
    local._runner = run
    assert local.look("a", 2) == plain(model.step("look", 0, "a", 2))
    assert local.same(list(model.jobs.items()), sorted(model.seen))
    assert not local.same([*model.jobs.items(), (99, Job("x"))], sorted(model.seen))


def test_a_command_that_catches_what_is_too_large_leaves_nothing_half_done():
    """A row and what indexes have of it are one change."""

    class Careful(StateMachine, limits=Limits(change_bytes=120)):
        jobs = Table(int, Job, index={"state": str, "weight": int})

        @command
        def fill(self) -> int:
            for number in range(100):
                try:
                    self.jobs[number] = Job("x" * (1 + number % 3), number)
                except Rejected:
                    return len(self.jobs)
            raise AssertionError("all of that is less than the limit")

    local = LocalMachine(Careful)
    assert 0 < local.fill() < 100
    assert list(local._runner.out_of_step()) == []


class Plain(StateMachine):
    """One table and one set."""

    rows = Table(str, int)
    seen = Set(str)
    tags = Table(str, list[str])

    @command
    def do(self, what: str) -> Any:
        """Various things."""
        match what:
            case "fill":
                self.rows.update((f"{number:03}", number) for number in range(30))
            case "clear":
                self.rows.clear()
            case "piece":
                self.rows.clear(limit=7)
            case "missing":
                self.rows.pop("nothing")
            case "empty":
                self.rows.popitem()
            case "remove":
                self.seen.remove("nothing")
            case "views":
                keys, values, items = self.rows.keys(), self.rows.values(), self.rows.items()
                self.rows["b"], self.rows["a"] = 2, 1
                assert [list(each) for each in (keys, keys, values, items)] == [
                    ["a", "b"],
                    ["a", "b"],
                    [1, 2],
                    [("a", 1), ("b", 2)],
                ]
                assert len(keys) == len(values) == len(items) == 2
                assert 2 in values
                assert ("a", 1) in items
                assert ("a", 2) not in items
                self.seen.update(["z", "b", "y"])
                return [list(keys & {"b", "a"}), list(self.seen | {"x"}), list(self.seen - {"b"}), repr(self.rows)]
        return len(self.rows)

    @query
    def size(self) -> int:
        """The rows."""
        return len(self.rows)


def test_views_are_those_of_a_dict():
    """Keys, values and items may be iterated over again, have a size, and set operations are in order on every node."""
    found = LocalMachine(Plain).do("views")
    assert found[:3] == [["a", "b"], ["b", "x", "y", "z"], ["y", "z"]]
    assert found[3] == "<table rows of 2 rows>"


@pytest.mark.parametrize("what", ["missing", "empty", "remove"])
def test_what_is_missing_is_a_key_error(what):
    """As with a dict and a set."""
    with pytest.raises(Rejected, match="KeyError"):
        LocalMachine(Plain).do(what)


def test_a_large_table_is_cleared_in_pieces(monkeypatch):
    """More rows than a command deletes are refused by an error that says what to do; doing that goes well."""
    monkeypatch.setattr(view_module, "CLEARED_AT_ONCE", 20)
    local = LocalMachine(Plain)
    assert local.do("fill") == 30
    with pytest.raises(TooManyRows, match="in pieces") as caught:
        local.do("clear")
    assert (caught.value.rows, caught.value.limit) == (30, 20)
    assert [local.do("piece"), local.do("piece"), local.do("clear")] == [23, 16, 0]
    assert local.size() == 0


def test_rows_that_nobody_counted_are_counted_at_the_start():
    """A state without a record of its counts is counted once, and has it with the next batch."""
    local = LocalMachine(Plain)
    local.do("fill")
    store = local._runner.store
    store.write({COUNTS_KEY: None, Plain.rows.prefix + b"later": b"\1"}, store.applied)
    local._runner = Runner(Plain, store)
    assert local._runner.query(b"\x92\xa4size\x90") == msgspec.msgpack.encode(31)
    assert local.do("piece") == 24
    assert read_counts(store) == {"rows": 24}


def test_what_changes_no_count_writes_none():
    """Most commands set keys that are there: their batches are no larger than they were without counts."""
    local, written = LocalMachine(Plain), []
    local.do("fill")
    write = local._runner.store.write
    local._runner.store.write = lambda changes, applied: (written.append(set(changes)), write(changes, applied))
    local.do("fill")
    local.do("piece")
    assert [COUNTS_KEY in keys for keys in written] == [False, True]


def test_a_key_that_was_looked_for_before_the_last_batch_is_looked_for_again():
    """What a command has found missing may be there since then."""

    class Blind(StateMachine):
        rows = Table(str, int)

        @command
        def look(self) -> int:
            return self.rows.get("a", 0)

        @command
        def put(self) -> int:
            self.rows["a"] = 1
            return len(self.rows)

    local = LocalMachine(Blind)
    assert [local.look(), local.put(), local.put(), local.look(), local.put()] == [0, 1, 1, 1, 1]
