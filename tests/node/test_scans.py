"""Queries that read much go on beside the loop, few at a time, on one state, and each has an end (F79)."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import msgspec
import pytest

from raftkv.config import Config
from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import Busy, RaftKVError, Rejected, TooMuchWork, Unavailable
from raftkv.kv import KeyValue
from raftkv.kv.model import Page
from raftkv.machine import (
    NO_SESSION,
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
from raftkv.node.applier import ANSWERS_AT_ONCE, ANSWERS_REST_S, AnswerClock, Applier
from raftkv.node.scans import REST, REST_BUSY, Scans
from raftkv.node.views import Views
from raftkv.node.waiting import Commands, Queries, Query
from raftkv.node.workers import ThreadWorker, Worker
from raftkv.state import Applied, MemoryStore
from raftkv.state.rocks import RocksStates
from raftkv.testing.world.loop import SimLoop, elapse


class Rows(StateMachine):
    """Rows, and queries over all of them."""

    rows = Table(int, int)

    @command
    def fill(self, count: int) -> None:
        for key in range(count):
            self.rows[key] = key

    @query
    def total(self) -> int:
        return sum(value for _, value in self.rows.items())

    @query
    def stubborn(self) -> int:
        """Takes whatever happens for its own error, and goes on."""
        found = 0
        for _ in range(10):
            try:
                found += len(list(self.rows.items()))
            except BaseException:  # noqa: BLE001 (that is what this test is about)
                found -= 1
        return found


def payload(machine: type[StateMachine], name: str, *args: Any) -> bytes:
    """A query as clients send it."""
    return encode_query(name, machine.methods[name].encode_args(args, {}))


def runner_of(machine: type[StateMachine], *commands: tuple[Any, ...]) -> Runner:
    """Runs `machine` in memory, and has applied these commands: a name and arguments each."""
    runner = Runner(machine, MemoryStore.open(SimDisk(), "/state"))
    for name, *args in commands:
        apply(runner, name, *args)
    return runner


def apply(runner: Runner, name: str, *args: Any) -> None:
    """Apply a command, as an entry of its own."""
    encoded = encode_command(NO_SESSION, 0, 0, name, runner.machine.methods[name].encode_args(args, {}))
    runner.apply([make_entry(runner.applied.index + 1, 1, 0, EntryKind.COMMAND, encoded, GENESIS_CHAIN)])


class HeldWorker(Worker):
    """Does nothing before it is told to."""

    def __init__(self) -> None:
        self.held: list[tuple[asyncio.Future[Any], Any]] = []

    def run(self, work: Any, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.held.append((future, lambda: work(*args, **kwargs)))
        return future

    def do(self) -> None:
        """The oldest piece."""
        future, work = self.held.pop(0)
        future.set_result(work())

    async def close(self) -> None:
        """Nothing is there to wait for."""


class Stage:
    """Scans of a machine with some rows, on workers that are held, with a clock that is set."""

    def __init__(self, rows: int = 500, **settings: Any) -> None:
        self.runner = runner_of(Rows, ("fill", rows))
        self.now = 0.0
        self.paused: list[float] = []
        self.failures: list[BaseException] = []
        self.answers: list[tuple[int, bytes | RaftKVError]] = []
        self.gone = False
        self.worker = HeldWorker()
        config = Config(**settings)
        self.busy = False
        self.scans = Scans(
            [self.worker],
            config,
            lambda: self.now,
            self.paused.append,
            lambda: self.runner,
            self.failures.append,
            lambda: self.busy,
            Views(config, lambda: self.now, lambda n: 6),
        )

    def query(self, name: str = "total", deadline_s: float | None = None) -> Query:
        return Query(
            payload(Rows, name), lambda index, got: self.answers.append((index, got)), deadline_s, lambda: self.gone
        )

    async def do(self) -> None:
        self.worker.do()
        await asyncio.sleep(0)


def run(story: Any) -> None:
    """Tell a story on a loop of its own."""
    asyncio.run(story)


def test_a_long_query_goes_on_beside_the_loop_at_the_index_at_which_it_began():
    """What is applied while it runs is not in its answer, and its answer says which index that was."""

    async def story() -> None:
        stage = Stage()
        stage.scans.begin(stage.query())
        apply(stage.runner, "fill", 600)
        await stage.do()
        ((index, result),) = stage.answers
        assert (index, msgspec.msgpack.decode(result)) == (1, sum(range(500)))
        assert stage.paused, "it left the interpreter to others now and then"

    run(story())


def test_scans_rest_the_longer_the_more_of_them_there_are_and_while_others_wait():
    """However many run, they have half of the interpreter at most, and a tenth of it while anybody waits."""

    async def story() -> None:
        stage, ticks = Stage(), itertools.count()
        stage.scans = Scans(
            [stage.worker, stage.worker],
            Config(),
            lambda: next(ticks) / 1000,
            stage.paused.append,
            lambda: stage.runner,
            stage.failures.append,
            lambda: stage.busy,
            Views(Config(), lambda: stage.now, lambda n: 6),
        )
        for _ in range(2):
            stage.scans.begin(stage.query())
        for stage.busy, rest in ((False, REST), (True, REST_BUSY)):
            await stage.do()
            assert {round(paused * 1000) for paused in stage.paused} == {2 * rest}
            stage.paused.clear()
            stage.scans.begin(stage.query())
        assert (REST >= 1, REST_BUSY >= 9) == (True, True)
        for _ in range(2):
            await stage.do()

    run(story())


def test_a_query_that_reads_too_much_ends_as_such():
    """F79: by the number of keys, by time, by its client's deadline: `TooMuchWork`, which names the setting."""

    async def story() -> None:
        few = Stage(query_reads_max=200)
        few.scans.begin(few.query())
        await few.do()
        assert isinstance(few.answers[0][1], TooMuchWork)
        assert "query_reads_max" in str(few.answers[0][1])
        slow = Stage()
        for deadline_s in (None, 0.5):
            slow.scans.begin(slow.query(deadline_s=deadline_s))
            slow.now += 0.6 if deadline_s else 2.0
            await slow.do()
        assert [type(answer) for _, answer in slow.answers] == [TooMuchWork, TooMuchWork]
        assert (few.scans.too_much, slow.scans.too_much) == (1, 2)

    run(story())


def test_a_query_whose_client_has_gone_is_given_up():
    """Whether it runs or waits; no query can hold on to its place by catching everything."""

    async def story() -> None:
        stage = Stage()
        for _ in range(2):
            stage.scans.begin(stage.query("stubborn"))
        stage.gone = True
        await stage.do()
        assert [type(answer) for _, answer in stage.answers] == [Unavailable, Unavailable]
        assert not stage.worker.held

    run(story())


def test_a_query_that_waits_counts_its_deadline_from_its_arrival():
    """One that has waited for all of it is not begun any more; one that has waited for half runs for the other half."""

    async def story() -> None:
        stage = Stage()
        for deadline_s in (None, 0.5, 1.0):
            stage.scans.begin(stage.query(deadline_s=deadline_s))
        stage.now += 0.6
        await stage.do()
        first, second = (answer for _, answer in stage.answers)
        assert isinstance(first, bytes) and isinstance(second, Busy)
        stage.now += 0.5
        await stage.do()
        assert isinstance(stage.answers[2][1], TooMuchWork)
        assert not stage.worker.held

    run(story())


def test_few_run_some_wait_and_the_others_hear_that_the_node_is_busy():
    """Also those that have waited for so long that their client would soon go elsewhere."""

    async def story() -> None:
        stage = Stage(query_scans_waiting_max=1)
        for _ in range(3):
            stage.scans.begin(stage.query())
        assert [type(answer) for _, answer in stage.answers] == [Busy]
        assert len(stage.worker.held) == 1
        stage.now += 5
        await stage.do()
        assert [type(answer) for _, answer in stage.answers] == [Busy, TooMuchWork, Busy]

    run(story())


def test_a_store_is_closed_only_when_nobody_reads_it(tmp_path):
    """`hold` waits for what runs, so that RocksDB lets go of its lock; what waits goes on with the next store."""

    async def story() -> None:
        stage = Stage()
        worker = ThreadWorker("scan")
        store = RocksStates().open(str(tmp_path / "s"))
        stage.runner = Runner(Rows, store)
        rows = {Rows.rows.prefix + Rows.rows.keys.encode(key): msgspec.msgpack.encode(key) for key in range(5_000)}
        store.write(rows, Applied(1, 1))
        stage.scans = Scans(
            [worker],
            Config(),
            time.monotonic,
            lambda seconds: None,
            lambda: stage.runner,
            stage.failures.append,
            lambda: False,
            Views(Config(), time.monotonic, lambda n: 6),
        )
        for _ in range(2):
            stage.scans.begin(stage.query("stubborn"))
        await stage.scans.hold()
        store.close()
        RocksStates().open(str(tmp_path / "s")).close()
        stage.runner = runner_of(Rows)
        stage.scans.resume()
        await stage.scans.hold()
        stage.scans.resume()
        assert [type(answer) for _, answer in stage.answers] == [Unavailable, bytes]
        assert not stage.failures
        await worker.close()

    run(story())


def test_a_stop_answers_whoever_waits():
    """With the reason; what still runs is told to end."""

    async def story() -> None:
        stage = Stage()
        for _ in range(2):
            stage.scans.begin(stage.query())
        stage.scans.stop(Unavailable("the node was asked to stop"))
        assert len(stage.answers) == 1
        stage.scans.begin(stage.query())
        await stage.do()
        assert [type(answer) for _, answer in stage.answers] == [Unavailable] * 3

    run(story())


def test_a_slice_on_the_loop_is_bounded_whatever_the_query_catches():
    """`SliceOver` comes out of a query that catches everything; one that stays within its slice is answered."""
    store = runner_of(Rows, ("fill", 100)).store
    runner = Runner(Rows, store, slice_reads=50)
    for name in ("total", "stubborn"):
        with pytest.raises(SliceOver):
            runner.query(payload(Rows, name))
    assert Runner(Rows, store, slice_reads=100).query(payload(Rows, "total"))


def test_a_query_may_make_do_with_what_it_has_read():
    """A page of the key-value machine ends early, honestly: together such pages are all that there is."""
    puts = [("put", b"%03d" % number, b"") for number in range(300)]
    deletes = [("delete", b"%03d" % number) for number in range(40, 120)]
    runner = runner_of(KeyValue, *puts, *deletes)
    expected = [b"%03d" % number for number in range(300) if not 40 <= number < 120]

    def more(position: bytes | None) -> int:
        asked.append(position)
        if len(asked) > 3:
            raise TooMuchWork("enough", position)
        return 10

    for reverse in (False, True):
        keys: list[bytes] = []
        start, end, pages = b"", None, 0
        while start is not None and (pages == 0 or not reverse or end is not None):
            asked: list[bytes | None] = []
            view = runner.store.view()
            result = runner.query_view(view, payload(KeyValue, "range", start, end, 1000, reverse), more)
            page = msgspec.msgpack.decode(result, type=Page)
            keys += [item.key for item in page.items]
            pages += 1
            start, end = (b"", page.next) if reverse else (page.next, None)
        assert keys == sorted(expected, reverse=reverse)
        assert pages > 8


def test_a_query_that_reads_a_single_key_too_many_says_so():
    """Where there is no place to go on from, there is no page."""
    runner = runner_of(KeyValue)

    def more(position: bytes | None) -> int:
        raise TooMuchWork("enough", position)

    with pytest.raises(TooMuchWork) as error:
        runner.query_view(runner.store.view(), payload(KeyValue, "get", b"a"), more)
    assert error.value.position is None
    assert not isinstance(error.value, Rejected)


class Answering:
    """An applier with queries whose turn has come, on a clock that each look at it puts forward."""

    def __init__(self, queries: int, step_s: float) -> None:
        self.waiting, self.commands = Queries(1), Commands()
        self.answers: list[int] = []
        self._now, self._step_s = 0.0, step_s
        self.applier = Applier(
            runner_of(Rows),
            None,  # type: ignore[arg-type]  # nothing is applied
            HeldWorker(),
            self.commands,
            self.waiting,
            batch_entries_max=2,
            on_applied=lambda index: None,
            on_failure=lambda error: None,
            clock=AnswerClock(self._clock, lambda: 0),
            go_on=lambda query: None,
        )
        for number in range(queries):
            self.waiting.add(self.query(number))
        if (token := self.waiting.next_batch()) is not None:
            self.waiting.confirmed(token, 0)

    def _clock(self) -> float:
        self._now += self._step_s
        return self._now

    def query(self, number: int) -> Query:
        return Query(payload(Rows, "total"), lambda index, got: self.answers.append(number))


def test_one_turn_of_the_loop_answers_only_so_many_queries():
    """However many are due, and fewer the longer they take; the others get turns of their own, each once."""

    async def story() -> None:
        stage = Answering(3 * ANSWERS_AT_ONCE + 1, step_s=1.0)
        turns = []
        stage.applier.answer_queries()
        while stage.waiting.count:
            turns.append(len(stage.answers))
            await asyncio.sleep(0)
        at_once = [now - before for before, now in zip([0, *turns], turns, strict=False)]
        assert at_once == sorted(at_once, reverse=True)
        assert (at_once[0] <= ANSWERS_AT_ONCE, at_once[-1]) == (True, 1)
        assert sorted(stage.answers) == list(range(3 * ANSWERS_AT_ONCE + 1))

    run(story())


def test_queries_that_take_long_each_leave_the_loop_to_commands_that_wait():
    """Between two turns there is time for others, though somebody asks for more answers meanwhile; short ones go on."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        for step_s, rests in ((1.0, True), (0.0, False)):
            stage = Answering(40, step_s)
            stage.commands.add(1, 1, [lambda index, outcome: None])
            began = loop.time()
            while stage.waiting.count:
                stage.applier.answer_queries()
                await elapse(ANSWERS_REST_S / 4)
            assert (loop.time() - began > 20 * ANSWERS_REST_S) == rests

    SimLoop().run(story())


def test_a_stale_query_waits_for_its_turn_and_for_a_state_that_is_being_replaced():
    """It has no turn of its own that would keep the loop; while there is no state nobody is answered."""

    async def story() -> None:
        stage = Answering(0, step_s=1.0)
        for number in range(3):
            stage.applier.answer_stale(stage.query(number))
        assert stage.answers == [0]
        stage.applier.pause()
        await elapse(1.0)
        assert stage.answers == [0]
        stage.applier.resume(stage.applier.runner)
        await elapse(1.0)
        assert stage.answers == [0, 1, 2]

    SimLoop().run(story())
