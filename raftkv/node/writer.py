"""Makes each `Ready` durable: hard state and log, in order. All that wait are written together (group commit)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from raftkv import failpoints
from raftkv.core.messages import Message
from raftkv.model import HardState, Index
from raftkv.node.workers import Worker

if TYPE_CHECKING:
    from raftkv.log import Log, VoteFile, Write


BOUND_ENTRIES = 10_000
"""After so many entries at most, the vote file is told how far the log reaches. A start notices if an entry below that
is missing. One more write for so many entries costs next to nothing."""

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

    Invariants: batches are written one at a time and in order; a message is sent only when its `Ready` and all before
    it are durable.
    """

    def __init__(
        self,
        worker: Worker,
        log: Log,
        vote: VoteFile,
        *,
        on_durable: Callable[[int, list[Message]], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._worker = worker
        self._log = log
        self._vote = vote
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._queue: list[_Task] = []
        self._hard_state = vote.hard_state
        self._running: asyncio.Future[None] | None = None
        self._idle: list[asyncio.Future[None]] = []
        self._failed = False
        self.started_at: float | None = None
        """When the batch under way was given to the disk, in the loop's time; None when there is none."""
        self.batches = 0
        self.syncs_s = 0.0
        """How many seconds the disk has worked, for the metrics."""

    def enqueue(
        self,
        number: int,
        write: Write | None,
        truncate_from: Index | None,
        hard_state: HardState | None,
        messages: list[Message],
    ) -> None:
        """Queue one `Ready`. If it has messages only, they wait for what was queued before them."""
        self._queue.append(_Task(number, write, truncate_from, hard_state, messages))
        if self._running is None and not self._failed:
            self._start()

    @property
    def is_idle(self) -> bool:
        return self._running is None and not self._queue

    async def idle(self) -> None:
        """Wait until everything queued so far is durable."""
        if not self.is_idle and not self._failed:
            waiter = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter

    def _start(self) -> None:
        tasks, self._queue = self._queue, []
        self.started_at = asyncio.get_running_loop().time()
        self._running = self._worker.run(self._write, tasks)
        self._running.add_done_callback(lambda future: self._done(future, tasks))

    def _write(self, tasks: list[_Task]) -> None:
        """Runs on the worker's thread. The hard state is written first: no entry may have a newer term than that."""
        hard_state = next((task.hard_state for task in reversed(tasks) if task.hard_state is not None), None)
        cuts = [task.truncate_from for task in tasks if task.truncate_from is not None]
        bound = min([self._log.durable_index, *(cut - 1 for cut in cuts)])
        known = self._vote.durable_index
        if hard_state is not None or bound < known or bound >= known + BOUND_ENTRIES:
            # The bound is lowered before the log is cut; otherwise a start would take the cut for lost entries.
            self._hard_state = hard_state or self._hard_state
            self._vote.write(self._hard_state, bound)
            failpoints.reach("writer.after_vote")
        writes = [task.write for task in tasks if task.write is not None]
        if writes:
            self._log.write(writes)

    def _done(self, future: asyncio.Future[None], tasks: list[_Task]) -> None:
        self._running = None
        self.batches += 1
        if self.started_at is not None:
            self.syncs_s += asyncio.get_running_loop().time() - self.started_at
        self.started_at = None
        if future.cancelled():
            return
        if (error := future.exception()) is not None:
            self._failed = True  # it is not known any more what is on disk: retry nothing, acknowledge nothing
            self._on_failure(error)
            return
        if self._queue:
            self._start()
        failpoints.reach("writer.before_told")
        self._on_durable(tasks[-1].number, [message for task in tasks for message in task.messages])
        if self.is_idle:
            waiters, self._idle = self._idle, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
