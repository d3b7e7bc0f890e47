"""Entries in, outcomes out: batches, rejections, sessions, and what stops a node."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.disk.simulated import SimDisk
from raftkv.entry import Entry, make_entry
from raftkv.errors import DiskError, InvalidArgument, MachineFailed, Rejected, SafetyViolation, UnknownCommand
from raftkv.machine import (
    CLOSE_SESSION,
    NO_SESSION,
    OPEN_SESSION,
    LocalMachine,
    OutcomeKind,
    Runner,
    StateMachine,
    Table,
    command,
    encode_command,
    encode_query,
    query,
)
from raftkv.machine import sessions as sessions_module
from raftkv.model import EntryKind
from raftkv.state import MemoryStore

NONE = msgspec.msgpack.encode(())


class Counter(StateMachine):
    """Counts, and fails in all ways."""

    counts = Table(str, int)

    @command
    def add(self, name: str, amount: int) -> int:
        """Add; negative sums are refused after they were written."""
        self.counts[name] = self.counts.get(name, 0) + amount
        if self.counts[name] < 0:
            raise ValueError(f"{name} would be {self.counts[name]}")
        return self.counts[name]

    @command
    def fail(self, how: str) -> int:
        """Raise."""
        self.counts["fail"] = 1
        if how == "own":
            raise LookupError(f"{object()}")
        if how == "type":
            return "text"  # type: ignore[return-value]
        raise {"os": OSError("no network"), "memory": MemoryError(), "system": SystemError(), "disk": DiskError("x")}[
            how
        ]

    @command
    def tell(self) -> int:
        """Log time."""
        return self.now_ms

    @query
    def get(self, name: str) -> int:
        """A count."""
        if name == "os":
            raise OSError("no")
        return self.counts.get(name, 0)


class Chain:
    """Makes consecutive entries."""

    def __init__(self) -> None:
        self.index = self.chain = 0
        self.now_ms = 1_000

    def entry(self, payload: bytes, kind: int = EntryKind.COMMAND) -> Entry:
        self.index += 1
        entry = make_entry(self.index, 1, self.now_ms, kind, payload, self.chain)
        self.chain = entry.chain
        return entry

    def call(self, name: str, *args: Any, session: int = NO_SESSION, sequence: int = 0, acked: int = 0) -> Entry:
        return self.entry(encode_command(session, sequence, acked, name, msgspec.msgpack.encode(args)))


def runner(store=None, **settings):
    """A machine on a store in memory."""
    return Runner(Counter, store or MemoryStore.open(SimDisk(), "/s"), **settings)


def get(run, name):
    """A count, by a query."""
    return msgspec.msgpack.decode(run.query(encode_query("get", msgspec.msgpack.encode((name,)))))


def results(outcomes):
    """Kinds and decoded payloads."""
    return [each and (each.kind.name, each.payload and msgspec.msgpack.decode(each.payload)) for each in outcomes]


def test_a_range_is_applied_in_order_as_one_write():
    """Later commands see what earlier ones of the batch did; entries that are no commands have no outcome."""
    run, chain = runner(), Chain()
    batch = [chain.call("add", "a", 1), chain.entry(b"", EntryKind.NOOP), chain.call("add", "a", 2)]
    assert results(run.apply(batch)) == [("APPLIED", 1), None, ("APPLIED", 3)]
    assert run.applied.index == run.store.applied.index == 3
    assert get(run, "a") == 3


def test_a_rejected_command_has_no_effect():
    """Its writes are undone, those of its neighbours are not; no address of an object is in its text (F75)."""
    run, chain = runner(), Chain()
    outcomes = run.apply([chain.call("add", "a", 1), chain.call("add", "a", -5), chain.call("fail", "own")])
    assert results(outcomes) == [
        ("APPLIED", 1),
        ("REJECTED", ["ValueError", "a would be -4"]),
        ("REJECTED", ["LookupError", "<object object>"]),
    ]
    assert get(run, "a") == 1
    assert get(run, "fail") == 0


def test_a_result_of_another_type_is_a_rejection():
    """The annotation is a promise to the client; the command that breaks it has no effect."""
    run, chain = runner(), Chain()
    (outcome,) = run.apply([chain.call("fail", "type")])
    assert outcome.kind is OutcomeKind.REJECTED
    assert get(run, "fail") == 0


@pytest.mark.parametrize("how", ["os", "memory", "system"])
def test_an_error_that_is_not_the_commands_own_stops_before_it(how):
    """What may happen on one node and not on another is never taken for the command's answer (F75)."""
    run, chain = runner(), Chain()
    with pytest.raises(MachineFailed, match="fail in entry 2"):
        run.apply([chain.call("add", "a", 1), chain.call("fail", how), chain.call("add", "a", 1)])
    assert run.applied.index == run.store.applied.index == 1
    assert get(run, "a") == 1
    assert get(run, "fail") == 0


def test_a_failing_disk_stays_a_failing_disk():
    """Errors that stop the node keep their names."""
    run, chain = runner(), Chain()
    with pytest.raises(DiskError):
        run.apply([chain.call("fail", "disk")])
    assert run.applied.index == 0


def test_an_unknown_command_stops_before_it():
    """A node of an older version must not skip what the others applied; the text says what to do (F24)."""
    run, chain = runner(), Chain()
    with pytest.raises(UnknownCommand, match=r"'new'.*Start this node with the version"):
        run.apply([chain.call("add", "a", 1), chain.call("new")])
    assert run.applied.index == 1


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", msgspec.msgpack.encode([1]), encode_command(0, 0, 0, "add", b"\x91\x01")]
)
def test_an_entry_that_can_not_be_read_stops_before_it(payload):
    """It never should have got into the log; guessing would be worse."""
    run, chain = runner(), Chain()
    with pytest.raises(MachineFailed):
        run.apply([chain.entry(payload)])
    with pytest.raises(InvalidArgument):
        run.check(payload)
    assert run.applied.index == 0


def test_commands_are_checked_at_the_edge():
    """Only what the machine can run gets into the log."""
    run = runner()
    run.check(encode_command(0, 0, 0, "add", msgspec.msgpack.encode(("a", 1))))
    run.check(encode_command(0, 0, 0, OPEN_SESSION, NONE))
    for name, args in [("missing", ()), ("get", ("a",)), ("add", ("a",)), ("add", (1, 1))]:
        with pytest.raises(InvalidArgument):
            run.check(encode_command(0, 0, 0, name, msgspec.msgpack.encode(args)))


def test_queries_fail_by_themselves():
    """What a query raises is its caller's, and unknown ones are refused."""
    run = runner()
    with pytest.raises(Rejected, match="OSError"):
        get(run, "os")
    for name in ("missing", "add"):
        with pytest.raises(InvalidArgument):
            run.query(encode_query(name, msgspec.msgpack.encode(("a", 1))))


def test_entries_must_follow_each_other():
    """A gap would be a hole in the state."""
    run, chain = runner(), Chain()
    chain.call("add", "a", 1)
    with pytest.raises(SafetyViolation):
        run.apply([chain.call("add", "a", 1)])


def opened(**settings):
    """A runner with an open session, its chain, the session's id."""
    run, chain = runner(**settings), Chain()
    (outcome,) = run.apply([chain.call(OPEN_SESSION)])
    return run, chain, msgspec.msgpack.decode(outcome.payload)


def test_a_retry_gets_the_first_answer():
    """Applied once, however often it is in the log, in one batch or several; rejections likewise (F74)."""
    run, chain, session = opened()
    again = {"session": session, "sequence": 1}
    batch = [chain.call("add", "a", 1, **again), chain.call("add", "a", 1, **again)]
    assert results(run.apply(batch)) == [("APPLIED", 1)] * 2
    assert results(run.apply([chain.call("add", "a", 1, **again)])) == [("APPLIED", 1)]
    refused = {"session": session, "sequence": 2}
    first = results(run.apply([chain.call("add", "a", -9, **refused)]))
    run.apply([chain.call("add", "a", 100, session=session, sequence=3)])
    assert results(run.apply([chain.call("add", "a", -9, **refused)])) == first
    assert get(run, "a") == 101


def test_sequences_may_arrive_in_any_order():
    """Commands of one client that overtake each other are all applied."""
    run, chain, session = opened()
    batch = [chain.call("add", "a", 1, session=session, sequence=n) for n in (5, 2, 9, 2)]
    assert results(run.apply(batch)) == [("APPLIED", 1), ("APPLIED", 2), ("APPLIED", 3), ("APPLIED", 2)]


def test_what_the_client_acknowledged_is_forgotten_and_never_applied_again():
    """A copy that was held up in the network for long has no effect."""
    run, chain, session = opened()
    run.apply([chain.call("add", "a", 1, session=session, sequence=n) for n in (1, 2)])
    run.apply([chain.call("add", "a", 1, session=session, sequence=3, acked=3)])
    late = [chain.call("add", "a", 1, session=session, sequence=n) for n in (1, 2)]
    assert [outcome.kind for outcome in run.apply(late)] == [OutcomeKind.STALE_DUPLICATE] * 2
    assert get(run, "a") == 3
    assert sum(1 for _ in run.store.scan(b"\x01a", b"\x01b")) == 1


def test_an_unknown_session_applies_nothing():
    """Whoever was forgotten can't be given exactly-once, so nothing is done at all."""
    run, chain, session = opened()
    run.apply([chain.call(CLOSE_SESSION, session=session)])
    (outcome,) = run.apply([chain.call("add", "a", 1, session=session, sequence=1)])
    assert outcome.kind is OutcomeKind.SESSION_EXPIRED
    assert get(run, "a") == 0
    assert run.sessions == 0
    assert list(run.store.scan(b"\x01", b"\x02")) == []


def test_sessions_expire_by_the_logs_time():
    """An hour in which nothing is heard of a session, as the entries tell the time, ends it with all it left."""
    run, chain, session = opened(session_ttl_ms=1_000)
    run.apply([chain.call("add", "a", 1, session=session, sequence=1)])
    chain.now_ms += 999
    run.apply([chain.call("add", "a", 1, session=session, sequence=2)])
    chain.now_ms += 999
    run.apply([chain.call("add", "b", 1)])
    assert run.sessions == 1
    chain.now_ms += 1
    run.apply([chain.call("add", "b", 1)])
    assert run.sessions == 0
    assert list(run.store.scan(b"\x01", b"\x02")) == []


def test_a_reset_of_log_time_forgets_no_session_and_keeps_none_for_longer_than_its_time():
    """Whoever was heard of while log time was ahead has its whole time from the reset on; what it sent is not done
    twice; and it ends as any other, after a restart too (F82)."""
    store = MemoryStore.open(SimDisk(), "/s")
    run, chain = runner(store, session_ttl_ms=1_000), Chain()
    early, late = (msgspec.msgpack.decode(o.payload) for o in run.apply([chain.call(OPEN_SESSION) for _ in range(2)]))
    chain.now_ms += 900
    add = chain.call("add", "a", 1, session=late, sequence=1)
    chain.now_ms -= 500
    reset = chain.entry(b"", EntryKind.CLOCK)
    now = chain.call("tell")
    assert results(run.apply([add, reset, now])) == [("APPLIED", 1), None, ("APPLIED", 1_400)]
    assert run.sessions == 2
    again = runner(store, session_ttl_ms=1_000)
    chain.now_ms = 1_999
    (repeated,) = again.apply([chain.call("add", "a", 1, session=late, sequence=1)])
    assert results([repeated]) == [("APPLIED", 1)]
    assert get(again, "a") == 1
    assert again.sessions == 2
    chain.now_ms = 2_000
    again.apply([chain.call("add", "b", 1)])
    assert again.sessions == 1, f"session {early} was silent for a second; {late} was not"
    chain.now_ms = 2_999
    again.apply([chain.call("add", "b", 1)])
    assert again.sessions == 0


def test_a_reset_gives_who_was_heard_of_later_its_time_from_then_on():
    """A year ahead is not a year that a session stays (F82)."""
    run, chain = runner(session_ttl_ms=1_000), Chain()
    chain.now_ms += 1_000_000
    run.apply([chain.call(OPEN_SESSION)])
    chain.now_ms = 5_000
    run.apply([chain.entry(b"", EntryKind.CLOCK)])
    chain.now_ms = 5_999
    run.apply([chain.call("add", "a", 1)])
    assert run.sessions == 1
    chain.now_ms = 6_000
    run.apply([chain.call("add", "a", 1)])
    assert run.sessions == 0
    assert list(run.store.scan(b"\x01", b"\x02")) == []


def test_a_rejected_command_does_not_bring_an_expired_session_back():
    """What expires with an entry stays gone even when the entry's own command is undone."""
    run, chain, _ = opened(session_ttl_ms=1_000)
    chain.now_ms += 1_000
    run.apply([chain.call("add", "a", -1)])
    assert run.sessions == 0
    assert list(run.store.scan(b"\x01", b"\x02")) == []


def test_the_table_is_bounded_and_the_least_recently_used_goes():
    """One more than fits pushes out who was silent longest, whatever its age (F74)."""
    run, chain, first = opened(sessions_max=3)
    second, third = (msgspec.msgpack.decode(o.payload) for o in run.apply([chain.call(OPEN_SESSION) for _ in range(2)]))
    run.apply([chain.call("add", "a", 1, session=first, sequence=1)])
    run.apply([chain.call(OPEN_SESSION)])
    kinds = [
        run.apply([chain.call("add", "a", 1, session=session, sequence=2)])[0].kind
        for session in (first, second, third)
    ]
    assert kinds == [OutcomeKind.APPLIED, OutcomeKind.SESSION_EXPIRED, OutcomeKind.APPLIED]


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
@pytest.mark.parametrize("is_restarted", [False, True])
def test_sessions_go_in_the_order_of_their_last_use_even_if_the_node_was_started_in_between(order, is_restarted):
    """F74: a replica that was restarted forgets the same sessions as those that were not, by number and by time."""
    for settings_, pause_ms, name in (
        ({"sessions_max": 3}, 0, OPEN_SESSION),
        ({"session_ttl_ms": 4_000}, 1_000, "tell"),
    ):
        store = MemoryStore.open(SimDisk(), "/s")
        run, chain = runner(store, **settings_), Chain()
        sessions = [msgspec.msgpack.decode(run.apply([chain.call(OPEN_SESSION)])[0].payload) for _ in range(3)]
        for which in order:
            chain.now_ms += pause_ms
            run.apply([chain.call("add", "a", 1, session=sessions[which], sequence=1)])
        if is_restarted:
            run = runner(store, **settings_)
        chain.now_ms += pause_ms
        left = list(order)
        while left:
            left.pop(0)
            chain.now_ms += pause_ms
            run.apply([chain.call(name)])
            found = {int.from_bytes(place[-8:], "big") for place, _ in store.scan(b"\x01s", b"\x01t")}
            assert found & set(sessions) == {sessions[which] for which in left}


def test_answers_of_one_session_are_bounded(monkeypatch):
    """A client that never acknowledges loses its oldest answers, and is told so rather than applied twice."""
    monkeypatch.setattr(sessions_module, "ANSWERS_MAX", 4)
    run, chain, session = opened()
    run.apply([chain.call("add", "a", 1, session=session, sequence=n) for n in range(1, 8)])
    assert sum(1 for _ in run.store.scan(b"\x01a", b"\x01b")) == 4
    outcomes = run.apply([chain.call("add", "a", 1, session=session, sequence=n) for n in (1, 3, 4, 7)])
    assert [outcome.kind.name for outcome in outcomes] == ["STALE_DUPLICATE"] * 2 + ["APPLIED"] * 2
    assert get(run, "a") == 7


calls = st.one_of(
    st.tuples(st.just("add"), st.sampled_from("ab"), st.integers(-2, 3), st.integers(0, 2), st.integers(1, 4)),
    st.tuples(st.just("open")),
    st.tuples(st.just("close"), st.integers(0, 2)),
    st.tuples(st.just("wait"), st.integers(1, 700)),
)


def entries_of(script):
    """The log that a script makes; sessions are named by the order of their opening."""
    chain, opened_at, log = Chain(), [], []
    for step in script:
        if step[0] == "wait":
            chain.now_ms += step[1]
        elif step[0] == "open":
            log.append(chain.call(OPEN_SESSION))
            opened_at.append(log[-1].index)
        elif step[0] == "close":
            log.append(chain.call(CLOSE_SESSION, session=opened_at[step[1]] if step[1] < len(opened_at) else 77))
        else:
            _, name, amount, which, sequence = step
            session = opened_at[which] if which < len(opened_at) else NO_SESSION
            log.append(chain.call("add", name, amount, session=session, sequence=sequence, acked=sequence - 2))
    return log


@settings(max_examples=80, deadline=None)
@given(st.lists(calls, max_size=25), st.lists(st.integers(1, 5)), st.integers(0, 25))
def test_batches_and_restarts_change_nothing(script, sizes, crash_at):
    """However the log is cut into batches, wherever a node crashes and replays: one state, one digest, one outcome."""
    log = entries_of(script)
    settings_ = {"sessions_max": 2, "session_ttl_ms": 1_000}
    one = runner(**settings_)
    expected = [outcome for entry in log for outcome in one.apply([entry])]
    disk = SimDisk()
    other = runner(MemoryStore.open(disk, "/s"), **settings_)
    outcomes, at, sizes = [], 0, iter([*sizes, *[3] * 30])
    crashed = False
    while at < len(log):
        size = next(sizes)
        outcomes[at:] = other.apply(log[at : at + size])
        at = other.applied.index
        assert other.digest_at(at) == one.digest_at(at)
        if at % 4 == 0:
            other.store.flush()
        if at >= crash_at and not crashed:
            crashed = True
            other = runner(MemoryStore.open(disk, "/s"), **settings_)
            at = other.applied.index
    assert outcomes == expected
    assert other.applied == one.applied
    assert list(other.store.scan(b"\x01", None)) == list(one.store.scan(b"\x01", None))
    assert other.sessions == one.sessions


def test_old_digests_are_forgotten():
    """What was applied before this process began can't be compared; what will be, neither."""
    store = MemoryStore.open(SimDisk(), "/s")
    run, chain = runner(store), Chain()
    run.apply([chain.call("add", "a", 1) for _ in range(5)])
    digests = [run.digest_at(index) for index in range(7)]
    assert digests[0] == 0
    assert len(set(digests[:6])) == 6
    assert digests[6] is None
    later = runner(store)
    assert [later.digest_at(index) for index in range(7)] == [None] * 5 + [digests[5], None]


class Unspeakable(Exception):
    """An exception that can't be made into text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Rude(StateMachine):
    """Raises and returns what nobody expects."""

    lists = Table(str, list[str])

    @command
    def raise_it(self, what: str) -> str:
        """Raise."""
        raise {
            "surrogate": ValueError("\udc80"),
            "unspeakable": Unspeakable(),
            "cancelled": asyncio.CancelledError(),
            "exit": SystemExit(3),
            "long": ValueError("x" * 10_000_000),
        }[what]

    @command
    def return_much(self) -> bytes:
        """More than fits into an answer."""
        self.lists["much"] = []
        return bytes(9 << 20)

    @command
    def store_a_set(self) -> list[str]:
        """A set where a list belongs: msgpack would take it in whatever order it is."""
        names: Any = {f"name-{number}" for number in range(50)}
        self.lists["names"] = names
        return names


@pytest.mark.parametrize("what", ["surrogate", "unspeakable", "cancelled", "exit", "long"])
def test_whatever_a_command_raises_is_a_rejection(what):
    """Text that is none, text that can't be made, exceptions that end programs: rejected, bounded, and life goes on."""
    local: Any = LocalMachine(Rude)
    with pytest.raises(Rejected) as caught:
        local.raise_it(what)
    assert len(caught.value.message) <= 4096
    assert local.index == 1


def test_a_result_that_fits_no_answer_is_a_rejection():
    """Nobody could be told of it, so it has no effect."""
    local: Any = LocalMachine(Rude)
    with pytest.raises(Rejected, match="must be at most"):
        local.return_much()


def test_a_set_in_a_lists_place_is_sorted():
    """Its order differs from process to process, and must not get into the state."""
    local: Any = LocalMachine(Rude)
    assert local.store_a_set() == sorted(f"name-{number}" for number in range(50))


class Careless(StateMachine):
    """Answers the same on every node, and writes something else."""

    table = Table(str, int)
    written = 1

    @command
    def put(self) -> None:
        """Write a value that depends on this process."""
        self.table["key"] = Careless.written


def test_the_digest_is_of_what_was_written_not_of_answers_alone(monkeypatch):
    """F76: two replicas that answer alike and differ in their tables are found by the first entry that differs."""
    chain, found = Chain(), []
    entry = chain.call("put")
    for written in (1, 2):
        monkeypatch.setattr(Careless, "written", written)
        runner = Runner(Careless, MemoryStore.open(SimDisk(), "/state"))
        (outcome,) = runner.apply([entry])
        found.append((outcome, runner.applied.digest))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


UNREADABLE = {
    "no msgpack": b"\xc1",
    "text that is none": b"\xa1\xff",
    "arrays without end": b"\x91" * 60_000,
    "an endless array": b"\xdd\xff\xff\xff\xff",
}


@pytest.mark.parametrize("bytes_", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_a_stranger_sends_is_a_mistake_of_the_caller(bytes_: bytes) -> None:
    """In the place of a name or of arguments: `InvalidArgument`, not an error that would stop the node."""
    run, name, none = runner(), msgspec.msgpack.encode("add"), msgspec.msgpack.encode(())
    for payload in (bytes_, b"\x95\0\0\0" + bytes_ + none, b"\x95\0\0\0" + name + b"\x92" + bytes_ + b"\x01"):
        with pytest.raises(InvalidArgument):
            run.check(payload)
    name = msgspec.msgpack.encode("get")
    for payload in (bytes_, b"\x92" + bytes_ + none, b"\x92" + name + b"\x91" + bytes_):
        with pytest.raises(InvalidArgument):
            run.query(payload)
