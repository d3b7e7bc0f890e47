"""Queries that are not done within their slice of the event loop: few at once, beside it, each with an end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raftkv.config import Config
from raftkv.errors import Busy, NodeStopped, RaftKVError, TooMuchWork, Unavailable
from raftkv.machine import Interrupted
from raftkv.node.ports import Worker, error_of
from raftkv.node.views import Views
from raftkv.node.waiting import Query

if TYPE_CHECKING:
    from raftkv.machine import Runner
    from raftkv.state import StateView

PIECE_READS = 32
"""Reads of one go, some 0.1 ms; then the interpreter is left to everybody else."""
REST, REST_BUSY = 1, 9
"""How long, in goes, and when somebody else waits for this node; times the scans that run, so that all of them together
have half of the interpreter at most, and a tenth of it beside writes."""


class Cancelled(Interrupted):
    """Nobody waits for the query any more, or the node stops."""


class Scan:
    """One query beside the loop, on the state as it was when it began. `run` is the thread's, all else the loop's."""

    def __init__(
        self,
        query: Query,
        runner: Runner,
        config: Config,
        clock: Callable[[], float],
        rest: Callable[[float], None],
    ) -> None:
        """`rest` is told how long a go took, and comes back when there may be another."""
        self.query = query
        self.view: StateView = runner.store.view() if query.held is None else query.held.view
        self.index = self.view.applied.index
        self.stopped = False
        """Set by the loop: end as soon as possible."""
        self._runner = runner
        self._clock = clock
        self._rest = rest
        self._seconds_max = config.query_seconds_max
        self._reads_max = config.query_reads_max
        self._reads = 0
        deadline_s = query.deadline_s
        self._until = clock() + (self._seconds_max if deadline_s is None else min(self._seconds_max, deadline_s))
        self._since = clock()

    def run(self) -> bytes | RaftKVError:
        """The encoded result, or the error to answer with. Raises a `NodeStopped` for damage."""
        self._since = self._clock()
        try:
            return self._runner.query_view(self.view, self.query.payload, self._more)
        except Cancelled:
            return Unavailable("the query was given up: its client has gone, or the node's state is being replaced")
        except NodeStopped:
            raise
        except RaftKVError as exc:
            return exc

    def _more(self, position: bytes | None) -> int:
        """One go is over: see whether there may be another, and let others work first."""
        now = self._clock()
        if self.stopped or self.query.is_gone:
            raise Cancelled
        if self._reads >= self._reads_max:
            raise TooMuchWork(f"the query has read {self._reads} keys: query_reads_max allows no more", position)
        if now >= self._until:
            raise TooMuchWork(
                f"the query has read {self._reads} keys and is not done: query_seconds_max ({self._seconds_max:g} s) "
                "and its client's deadline give it no more time",
                position,
            )
        self._reads += PIECE_READS
        self._rest(now - self._since)
        self._since = self._clock()
        return PIECE_READS


class Scans:
    """Runs a few of them at once; some more wait, and all others are told that the node is busy.

    Invariants: every query that `begin` takes is answered once; a view is open exactly while its scan runs.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        config: Config,
        clock: Callable[[], float],
        pause: Callable[[float], None],
        runner: Callable[[], Runner],
        on_failure: Callable[[BaseException], None],
        others_wait: Callable[[], bool],
        views: Views,
    ) -> None:
        """`others_wait` tells, on any thread, whether somebody waits for this node to do something else."""
        self._free = list(workers)
        self._config = config
        self._clock = clock
        self._pause = pause
        self._runner = runner
        self._on_failure = on_failure
        self._others_wait = others_wait
        self._views = views
        self._waiting: deque[tuple[float, Query]] = deque()
        self._running: dict[asyncio.Future[bytes | RaftKVError], tuple[Scan, Worker]] = {}
        self._held = False
        self._stopped: RaftKVError | None = None
        self.begun = 0
        """Queries that went on beside the loop."""
        self.too_much = 0
        """Those of them that were ended because they read too much, or took too long."""
        self.refused = 0
        """Those that found no place."""

    def begin(self, query: Query) -> None:
        """Take a query that was not done within its slice; it is answered, whatever becomes of it."""
        if self._stopped is not None:
            query.done(0, self._stopped)
        elif len(self._waiting) >= self._config.query_scans_waiting_max:
            self._refuse(query)
        else:
            self._waiting.append((self._clock(), query))
            self._next()

    def _refuse(self, query: Query) -> None:
        self.refused += 1
        query.done(0, Busy(f"{len(self._running)} queries that read much run here, and {len(self._waiting)} wait"))

    def _next(self) -> None:
        while self._waiting and self._free and not self._held:
            since, query = self._waiting.popleft()
            if query.is_gone:
                query.done(0, Unavailable("its client has gone"))
            elif self._clock() - since >= self._config.query_seconds_max:
                self._refuse(query)  # whoever waits for it would soon take this node for dead
            else:
                self._start(query)

    def _start(self, query: Query) -> None:
        try:
            if query.held is not None:
                query.held.begin()
        except RaftKVError as exc:
            query.done(0, exc)
            return
        worker = self._free.pop()
        self.begun += 1
        scan = Scan(query, self._runner(), self._config, self._clock, self._rest)
        future = worker.run(scan.run)
        self._running[future] = scan, worker
        future.add_done_callback(self._ended)

    def _rest(self, took_s: float) -> None:
        """On a scan's thread, between two of its goes."""
        self._pause(took_s * (REST_BUSY if self._others_wait() else REST) * len(self._running))

    def _ended(self, future: asyncio.Future[bytes | RaftKVError]) -> None:
        scan, worker = self._running.pop(future)
        if scan.query.held is None:
            scan.view.close()
        else:
            scan.query.held.end(self._clock())
        self._free.append(worker)
        error = error_of(future)
        if error is not None:
            self._on_failure(error)
            scan.query.done(0, Unavailable(f"this node has stopped: {error}"))
        elif not future.cancelled():
            result = future.result()
            self.too_much += isinstance(result, TooMuchWork)
            scan.query.done(0 if isinstance(result, RaftKVError) else scan.index, result)
        self._next()

    async def hold(self) -> None:
        """End what runs, wait for it, and begin nothing until `resume`: the store is about to be closed."""
        self._held = True
        for scan, _ in self._running.values():
            scan.stopped = True
        if self._running:
            await asyncio.wait(list(self._running))
            await asyncio.sleep(0)  # the views are closed by callbacks of the same turn
        self._views.close_all()

    def resume(self) -> None:
        """Go on with what waits."""
        self._held = False
        self._next()

    def stop(self, error: RaftKVError) -> None:
        """The node stops: whoever waits gets `error`, what runs ends soon."""
        self._stopped = error
        self._held = True
        waiting, self._waiting = self._waiting, deque()
        for _, query in waiting:
            query.done(0, error)
        for scan, _ in self._running.values():
            scan.stopped = True

    @property
    def running(self) -> int:
        """How many run now."""
        return len(self._running)
