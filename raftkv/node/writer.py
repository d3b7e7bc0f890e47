"""Makes each `Ready` durable: hard state and log, in order. All that wait are written together (group commit)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from raftkv import failpoints
from raftkv.config import KIB
from raftkv.core.messages import Message
from raftkv.durations import Durations
from raftkv.model import HardState, Index
from raftkv.node.pace import DiskPace
from raftkv.node.workers import Worker

if TYPE_CHECKING:
    from raftkv.log import Log, VoteFile, Write


BOUND_ENTRIES = 10_000
"""After so many entries at most, the vote file is told how far the log reaches. A start notices if an entry below that
is missing. One more write for so many entries costs next to nothing."""

HERE_ENTRIES_MAX = 4
HERE_BYTES_MAX = 64 * KIB
"""What is written on the event loop's thread is no more than this."""

failpoints.declare(
    __name__,
    {
        "writer.after_vote": "the vote is durable, and the entries behind it are not",
        "writer.before_told": "all of a batch is durable, and the core does not know",
    },
)


class _Task(msgspec.Struct):
    """The write of one `Ready`, and the messages that wait for it."""

    number: int
    write: Write | None
    truncate_from: Index | None
    hard_state: HardState | None
    messages: list[Message]


class Writer:
    """Writes in batches: while the disk works on one, the next one piles up, and is then written with one sync.

    The worker's thread does it, so that the event loop goes on meanwhile. Only a few entries of a node that has little
    else to do are written on the loop's own thread, while the disk is quick: to hand them over and back takes about as
    long as to write them. Should the disk hang in just that moment, the loop hangs, which is for all others as if the
    process were paused: no heartbeat is sent, and no lease relied on, before it has counted the time that has passed.

    Invariants: batches are written one at a time and in order; a message is sent only when its `Ready` and all before
    it are durable.
    """

    def __init__(
        self,
        worker: Worker,
        log: Log,
        vote: VoteFile,
        *,
        clock: Callable[[], float],
        on_durable: Callable[[int, list[Message]], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """`clock` gives seconds, on any thread."""
        self._worker = worker
        self._log = log
        self._vote = vote
        self._clock = clock
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._queue: list[_Task] = []
        self._hard_state = vote.hard_state
        self._running: asyncio.Future[float] | None = None
        self._pace = DiskPace()
        self._is_due = False
        self._idle: list[asyncio.Future[None]] = []
        self._failed = False
        self.started_at: float | None = None
        """When the batch under way was given to the disk, in the loop's time; None when there is none."""
        self.batches = 0
        self.syncs_s = 0.0
        """How many seconds the disk has worked, for the metrics."""
        self.took = Durations()
        """How long it worked on each batch."""

    def enqueue(
        self,
        number: int,
        write: Write | None,
        truncate_from: Index | None,
        hard_state: HardState | None,
        messages: list[Message],
    ) -> None:
        """Queue one `Ready`. If it has messages only, they wait for what was queued before them.

        Its write begins now, or else when the turn ends (`end_turn`).
        """
        self._queue.append(_Task(number, write, truncate_from, hard_state, messages))
        if self._running is None and not self._failed and not self._may_write_here():
            self._start()

    def end_turn(self, *, has_sent: bool) -> None:
        """Do what was left for the end of the loop's turn; what that turn `has_sent` must leave the process first."""
        if not self._queue or self._running is not None or self._is_due:
            return
        if has_sent:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._write_what_is_due)
        else:
            self._write_here()

    def _write_what_is_due(self) -> None:
        self._is_due = False
        self._write_here()

    def _may_write_here(self) -> bool:
        """Whether all that waits is a few small entries, which the disk may be expected to take at once."""
        writes = [task.write.entries for task in self._queue if task.write is not None]
        return (
            sum(map(len, writes)) <= HERE_ENTRIES_MAX
            and self._pace.is_quick
            and self._worker.is_idle
            and all(task.hard_state is None and task.truncate_from is None for task in self._queue)
            and not self._is_bound_due(self._log.durable_index)
            and self._log.takes_at_once(
                sum([len(entry.record) for entries in writes for entry in entries]), HERE_BYTES_MAX
            )
        )

    def _write_here(self) -> None:
        if not self._queue or self._running is not None or self._failed:
            return
        if not self._may_write_here():
            self._start()
            return
        tasks, self._queue = self._queue, []
        began = self._clock()
        try:
            if not self._worker.run_here(self._write, tasks):
                return
        except Exception as exc:  # noqa: BLE001 (whatever it is, the disk's state is not known any more)
            self._fail(exc)
            return
        self._finished(tasks, self._clock() - began)

    @property
    def is_idle(self) -> bool:
        return self._running is None and not self._queue

    async def idle(self) -> None:
        """Wait until everything queued so far is durable, or will never be, as a write has failed."""
        if not self.is_idle and not self._failed:
            waiter = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter

    def _start(self) -> None:
        tasks, self._queue = self._queue, []
        self.started_at = asyncio.get_running_loop().time()
        self._running = self._worker.run(self._write_in_time, tasks)
        self._running.add_done_callback(lambda future: self._done(future, tasks))

    def _write_in_time(self, tasks: list[_Task]) -> float:
        """Runs on the worker's thread; how many seconds the disk took."""
        began = self._clock()
        self._write(tasks)
        return self._clock() - began

    def _write(self, tasks: list[_Task]) -> None:
        """Runs on the worker's thread, or in its stead. The hard state is written first: no entry may have a newer term
        than that."""
        hard_state = next((task.hard_state for task in reversed(tasks) if task.hard_state is not None), None)
        cuts = [task.truncate_from for task in tasks if task.truncate_from is not None]
        bound = min([self._log.durable_index, *(cut - 1 for cut in cuts)])
        if hard_state is not None or bound < self._vote.durable_index or self._is_bound_due(bound):
            # The bound is lowered before the log is cut; otherwise a start would take the cut for lost entries.
            self._hard_state = hard_state or self._hard_state
            self._vote.write(self._hard_state, bound)
            failpoints.reach("writer.after_vote")
        writes = [task.write for task in tasks if task.write is not None]
        if writes:
            self._log.write(writes)

    def _is_bound_due(self, bound: Index) -> bool:
        return bound >= self._vote.durable_index + BOUND_ENTRIES

    def _done(self, future: asyncio.Future[float], tasks: list[_Task]) -> None:
        self._running = None
        self.started_at = None
        if future.cancelled():
            return
        if (error := future.exception()) is not None:
            self._fail(error)
            return
        seconds = future.result()
        if self._queue:
            self._start()
        self._finished(tasks, seconds)

    def _fail(self, error: BaseException) -> None:
        self._failed = True  # it is not known any more what is on disk: retry nothing, acknowledge nothing
        self._on_failure(error)
        self._let_go()

    def _finished(self, tasks: list[_Task], seconds: float) -> None:
        self.batches += 1
        self.syncs_s += seconds
        self.took.note(seconds)
        self._pace.took(seconds)
        failpoints.reach("writer.before_told")
        self._on_durable(tasks[-1].number, [message for task in tasks for message in task.messages])
        if self.is_idle:
            self._let_go()

    def _let_go(self) -> None:
        """Whoever waits for the writer need not any longer."""
        waiters, self._idle = self._idle, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
