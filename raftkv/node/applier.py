"""Applies committed entries in order, a bounded batch at a time, and answers the commands and queries that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from raftkv import failpoints
from raftkv.config import MIB
from raftkv.durations import Durations
from raftkv.entry import Entry
from raftkv.errors import NodeStopped, RaftKVError, Unavailable
from raftkv.machine import SliceOver
from raftkv.model import Index
from raftkv.node.waiting import Commands, Queries, Query
from raftkv.node.workers import Worker, error_of

if TYPE_CHECKING:
    from raftkv.log import Log
    from raftkv.machine import Runner

ANSWERS_AT_ONCE = 32
"""How many queries are answered before the clock is read again; fewer while single queries take long."""
ANSWERS_SLICE_S = 0.002
"""How long queries are answered in one turn of the loop; writes and heartbeats wait behind them."""
ANSWERS_REST_S = 2 * ANSWERS_SLICE_S
"""The pause between two such turns while single queries take long, which leaves the loop to commands that wait."""

failpoints.declare(
    __name__,
    {
        "apply.before": "entries are committed and not applied",
        "apply.after": "entries are applied, and no client was told",
        "answer.after": "entries are applied, and clients were told",
    },
)


class AnswerClock(NamedTuple):
    """What time it is, for whoever answers."""

    seconds: Callable[[], float]
    """Since whenever."""
    present_ms: Callable[[], int]
    """For queries; 0 if it is not known here."""


class Applier:
    """Feeds committed entries to the state machine on the event loop's thread.

    Invariants: every entry up to `runner.applied.index` is applied exactly once and in order;
    `target` never goes back. Between two batches the loop does its other work.
    """

    def __init__(
        self,
        runner: Runner,
        log: Log,
        worker: Worker,
        commands: Commands,
        queries: Queries,
        *,
        batch_entries_max: int,
        on_applied: Callable[[Index], None],
        on_failure: Callable[[BaseException], None],
        clock: AnswerClock,
        go_on: Callable[[Query], None],
    ) -> None:
        """`go_on` takes queries that are not done within their slice of the loop."""
        self.runner = runner
        self._log = log
        self._worker = worker
        self._commands = commands
        self._queries = queries
        self._batch_max = batch_entries_max
        self._on_applied = on_applied
        self._on_failure = on_failure
        self._clock = clock
        self._go_on = go_on
        self._answering = False
        self._at_once = 8
        self.target: Index = runner.applied.index
        """The last committed entry that was handed in."""
        self._scheduled = False
        self._is_replaced = self._is_held = False
        self._paused = False
        """Either of the two."""
        self._stopped = False
        self.took = Durations()
        """How long each batch was applied."""

    def present_ms(self) -> int:
        """The time that queries are shown, where it is known; 0 elsewhere."""
        return self._clock.present_ms()

    @property
    def applied_index(self) -> Index:
        return self.runner.applied.index

    @property
    def lag(self) -> int:
        """How many committed entries wait to be applied."""
        return self.target - self.runner.applied.index

    def hand_in(self, last: Index) -> None:
        """Apply all entries up to `last`, which are committed and durable here."""
        self.target = last
        if not self._scheduled and not self._paused:
            # The first batch is applied at once, so that a single command does not wait for another turn of the loop.
            self._run()

    def pause(self) -> None:
        """Apply nothing until `resume`: the state is being replaced."""
        self._is_replaced = self._paused = True

    def resume(self, runner: Runner) -> None:
        """Go on with the state that `runner` has."""
        self.runner = runner
        self.target = max(self.target, runner.applied.index)
        self._is_replaced = False
        self._go_on_again()

    def hold(self) -> None:
        """Apply nothing and answer nobody until `release`: what is applied here may be wrong."""
        self._is_held = self._paused = True

    def release(self) -> None:
        """Go on. Nothing happens when nothing is held."""
        if self._is_held:
            self._is_held = False
            self._go_on_again()

    def _go_on_again(self) -> None:
        self._paused = self._is_replaced or self._is_held
        self._schedule()
        if not self._answering and not self._paused:
            self._answer_later()

    def stop(self) -> None:
        self._stopped = True

    def _schedule(self) -> None:
        if not self._scheduled and not self._paused and not self._stopped and self.lag > 0:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        if self._stopped or self._paused or self.lag <= 0:
            return
        first = self.runner.applied.index + 1
        last = min(self.target, first + self._batch_max - 1)
        entries = self._log.cached(first, last)
        if entries is not None:
            self._apply(entries)
            return
        self._scheduled = True
        self._worker.run(self._log.load, first, last, MIB).add_done_callback(self._loaded)

    def _loaded(self, future: asyncio.Future[list[Entry]]) -> None:
        self._scheduled = False
        error = error_of(future)
        if self._stopped or self._paused or future.cancelled():
            return
        if error is not None:
            self._on_failure(error)
        elif (entries := future.result())[0].index == self.runner.applied.index + 1:
            self._apply(entries)
        else:
            self._schedule()  # a snapshot was installed in the meantime

    def _apply(self, entries: Sequence[Entry]) -> None:
        try:
            failpoints.reach("apply.before")
            began = self._clock.seconds()
            outcomes = self.runner.apply(entries)
            self.took.note(self._clock.seconds() - began)
        except Exception as exc:  # noqa: BLE001 (whatever it is, going on would skip the entry)
            # Entries before the failing one may have been applied; their clients aren't told, because the node stops.
            self._on_failure(exc)
            return
        failpoints.reach("apply.after")
        self._commands.applied(entries, outcomes)
        failpoints.reach("answer.after")
        self._on_applied(self.runner.applied.index)
        self.answer_queries()
        self._schedule()

    def answer_queries(self) -> None:
        """Answer the queries whose index is applied, for a slice of time; the rest in later turns of the loop."""
        if self._stopped or self._paused or self._answering:
            return
        now = self._clock.seconds()
        ends = now + ANSWERS_SLICE_S
        while due := self._queries.due(self.runner.applied.index, self._at_once):
            for query in due:
                self._answer(query)
            began, now = now, self._clock.seconds()
            if now - began > ANSWERS_SLICE_S / 4:
                self._at_once = max(1, self._at_once // 2)
            elif self._at_once < ANSWERS_AT_ONCE:
                self._at_once *= 2
            if now >= ends:
                self._answer_later()
                return

    def _answer_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._answering = True
        if self._at_once <= 2 and self._commands:
            loop.call_later(ANSWERS_REST_S, self._answer_on)
        else:
            loop.call_soon(self._answer_on)

    def _answer_on(self) -> None:
        self._answering = False
        self.answer_queries()

    def answer_stale(self, query: Query) -> None:
        """Answer a stale query from whatever is applied, now or when its turn comes."""
        self._queries.add_due(query)
        self.answer_queries()

    def _answer(self, query: Query) -> None:
        """Answer a query from what is applied. If it meets damaged data, the node stops."""
        try:
            if query.instead is None:
                query.now_ms = self.runner.present_ms(self._clock.present_ms())
                result: bytes | RaftKVError = self.runner.query(query.payload, query.now_ms)
                query.told_time = self.runner.told_time
            else:
                result = query.instead()
        except SliceOver:
            query.is_long = True
            self._go_on(query)
            return
        except NodeStopped as exc:
            self._on_failure(exc)
            result = Unavailable(f"this node has stopped: {exc}")
        except RaftKVError as exc:
            result = exc
        query.done(self.runner.applied.index, result)
