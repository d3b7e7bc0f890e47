"""Queries that are not done within their slice of the event loop: they go on in threads, few at once, with limits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raftkv.config import Config
from raftkv.errors import Busy, NodeStopped, RaftKVError, TooMuchWork, Unavailable
from raftkv.machine import Interrupted
from raftkv.node.views import Views
from raftkv.node.waiting import Query
from raftkv.node.workers import Worker, error_of

if TYPE_CHECKING:
    from raftkv.machine import Runner
    from raftkv.state import StateView

PIECE_READS = 32
"""Keys that a scan reads in one go, in some 0.1 ms; then it pauses, and leaves the interpreter to other threads."""
REST, REST_BUSY = 1, 9
"""How long a scan pauses: so many times as long as its last go took, times the scans that run. `REST_BUSY` counts while
other requests wait. So all scans together have at most half of the interpreter's time, and a tenth beside writes."""


class Cancelled(Interrupted):
    """The query's client has gone, or the scan was told to stop."""


class Scan:
    """One query that goes on in a thread, on the state as it was when the scan began.

    `run` and what it calls belong to the thread, all else to the loop.
    """

    def __init__(
        self,
        query: Query,
        runner: Runner,
        config: Config,
        clock: Callable[[], float],
        rest: Callable[[float], None],
        waited_s: float,
    ) -> None:
        """`rest` gets the seconds that a go took, and blocks until the next go may begin. Of the client's deadline,
        `waited_s` are over."""
        self.query = query
        self.view: StateView = runner.store.view() if query.held is None else query.held.view
        self.index = self.view.applied.index
        self.stopped = False
        """Set by the loop to make the scan end as soon as possible."""
        self._runner = runner
        self._clock = clock
        self._rest = rest
        self._seconds_max = config.query_seconds_max
        self._reads_max = config.query_reads_max
        self._reads = 0
        left_s = self._seconds_max if query.deadline_s is None else query.deadline_s - waited_s
        self._until = clock() + min(self._seconds_max, left_s)
        self._since = clock()

    def run(self) -> bytes | RaftKVError:
        """Run the query; returns the encoded result, or the error to answer with. Raises `NodeStopped` for damage."""
        self._since = self._clock()
        try:
            if self.query.beside is not None:
                return self.query.beside(self.view)
            return self._runner.query_view(self.view, self.query.payload, self._more, self.query.now_ms)
        except Cancelled:
            return Unavailable("the query was given up: its client has gone, or the node's state is being replaced")
        except NodeStopped:
            raise
        except RaftKVError as exc:
            return exc

    def _more(self, position: bytes | None) -> int:
        """A go is over: pause, then return how many keys the next one may read. Raises when there may be no more."""
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
    """Runs a few scans at once and lets a few more wait; all others get `Busy`.

    Invariants: every query that `begin` takes is answered once; a scan's own view is open exactly while it runs.
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
        """`others_wait` says whether other requests wait for this node; it is called on any thread."""
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
        """How many scans were begun, since the start."""
        self.too_much = 0
        """How many of them were ended because they read too much or took too long."""
        self.refused = 0
        """How many queries got `Busy` instead."""

    def begin(self, query: Query) -> None:
        """Take a query that was not done within its slice. It is answered in any case."""
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
            elif (waited_s := self._clock() - since) >= self._patience_s(query):
                self._refuse(query)
            else:
                self._start(query, waited_s)

    def _patience_s(self, query: Query) -> float:
        """How long a query may wait: then its client would soon take this node for dead, or has given up."""
        longest_s = self._config.query_seconds_max
        return longest_s if query.deadline_s is None else min(longest_s, query.deadline_s)

    def _start(self, query: Query, waited_s: float) -> None:
        try:
            if query.held is not None:
                query.held.begin()
        except RaftKVError as exc:
            query.done(0, exc)
            return
        worker = self._free.pop()
        self.begun += 1
        scan = Scan(query, self._runner(), self._config, self._clock, self._rest, waited_s)
        future = worker.run(scan.run)
        self._running[future] = scan, worker
        future.add_done_callback(self._ended)

    def _rest(self, took_s: float) -> None:
        """Pause, on a scan's thread, after a go that took `took_s`."""
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
        """End all scans, wait for their ends, and begin none until `resume`: the store is about to be closed."""
        self._held = True
        for scan, _ in self._running.values():
            scan.stopped = True
        if self._running:
            await asyncio.wait(list(self._running))
            await asyncio.sleep(0)  # the views are closed by callbacks of the same turn
        self._views.close_all()

    def resume(self) -> None:
        """Begin the queries that wait."""
        self._held = False
        self._next()

    def stop(self, error: RaftKVError) -> None:
        """The node stops: queries that wait get `error`, and scans that run end soon."""
        self._stopped = error
        self._held = True
        waiting, self._waiting = self._waiting, deque()
        for _, query in waiting:
            query.done(0, error)
        for scan, _ in self._running.values():
            scan.stopped = True

    @property
    def running(self) -> int:
        """How many scans run now."""
        return len(self._running)
