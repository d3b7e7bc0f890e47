"""When the next operation is sent: as soon as one is answered (closed loop), or when it is due (open loop).

A closed loop slows down with the system that it measures: while nothing is answered, nothing is asked, and
the operations that would have had to wait are missing from the percentiles (coordinated omission). An open
loop has a timetable. An operation's latency counts from the moment when it was due, also when it had to wait
in the generator for a connection that was busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from benchmarks.latency import Latencies
from benchmarks.load.spec import LoadResult, LoadSpec

NS = 1_000_000_000
RETRY_S = 0.01
"""After an error the connection waits that long, or a refusal would be measured as throughput."""
DRAIN_S = 5.0
"""How long an open loop waits for what is still under way when its time is over."""


Clock = Callable[[], int]
"""Nanoseconds; by default those of the system's monotonic clock, which is the same for all processes."""


class Connection(Protocol):
    """One connection to the system under load."""

    async def open(self) -> None:
        """Connect, and be ready to send."""

    def submit(self, reads: bool, key: bytes, due_ns: int) -> None:
        """Send an operation; the recorder that the connection was made with hears of its end."""

    async def close(self) -> None:
        """Disconnect; what is under way is dropped."""


class Listener(Protocol):
    """Who hears of the end of operations."""

    def answered(self, connection: Connection, due_ns: int) -> None:
        """The operation that was due then was done."""

    def failed(self, connection: Connection, error: str) -> None:
        """An operation was not done."""


class Recorder:
    """Notes every answer of the measured time, and has the rhythm send the next operation.

    Latencies are kept as plain numbers while the clock runs and become a histogram afterwards, as
    that costs more than the operation itself.
    """

    def __init__(self, *, by_due_time: bool, clock: Clock = time.perf_counter_ns) -> None:
        self._by_due_time = by_due_time
        self.clock = clock
        self._begin = self._end = 0
        self._due = array("q")
        self._answered = array("q")
        self._errors: Counter[str] = Counter()
        self.rhythm: ClosedLoop | OpenLoop | None = None

    def window(self, begin_ns: int, end_ns: int) -> None:
        """Count only operations of this time, which begins after the warm-up."""
        self._begin, self._end = begin_ns, end_ns

    def stop(self) -> None:
        """The measured time ends now, earlier than was said."""
        self._end = min(self._end, self.clock())

    def answered(self, connection: Connection, due_ns: int) -> None:
        """An operation was done."""
        now = self.clock()
        if self._begin <= (due_ns if self._by_due_time else now) < self._end:
            self._due.append(due_ns)
            self._answered.append(now)
        if self.rhythm is not None:
            self.rhythm.next(connection, now)

    def failed(self, connection: Connection, error: str) -> None:
        """An operation was not done."""
        if self._begin <= self.clock() < self._end:
            self._errors[error] += 1
        if self.rhythm is not None:
            asyncio.get_running_loop().call_later(RETRY_S, self._go_on, connection)

    def _go_on(self, connection: Connection) -> None:
        if self.rhythm is not None:
            self.rhythm.next(connection, self.clock())

    def result(self, *, cpu_s: float, unanswered: int, timeline: bool) -> LoadResult:
        """What was seen."""
        pairs = zip(self._due, self._answered, strict=True)
        return LoadResult(
            operations=len(self._due),
            seconds=max(0, self._end - self._begin) / NS,
            latencies=Latencies.of(answered - due for due, answered in pairs).to_text(),
            errors=dict(self._errors),
            unanswered=unanswered,
            cpu_s=cpu_s,
            due_ns=list(self._due) if timeline else [],
            answered_ns=list(self._answered) if timeline else [],
        )


class ClosedLoop:
    """Keeps `outstanding` operations under way on every connection."""

    def __init__(
        self, operations: Iterator[tuple[bool, bytes]], outstanding: int, clock: Clock = time.perf_counter_ns
    ) -> None:
        self._clock = clock
        self._operations = operations
        self._outstanding = outstanding
        self._end = 0
        self._stopped = asyncio.Event()
        self.unanswered = 0
        """Nothing is owed by a closed loop: what was not answered was not asked for at a given time."""

    async def run(self, connections: Sequence[Connection], end_ns: int) -> None:
        """From now to `end_ns` of the monotonic clock."""
        self._end = end_ns
        for connection in connections:
            for _ in range(self._outstanding):
                self.next(connection, self._clock())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), (end_ns - self._clock()) / NS)

    def stop(self) -> None:
        """End now."""
        self._end = 0
        self._stopped.set()

    def next(self, connection: Connection, now_ns: int) -> None:
        """The connection has room for one more."""
        if now_ns < self._end:
            connection.submit(*next(self._operations), now_ns)


class OpenLoop:
    """Sends operations at fixed times, over whichever connection has room; those that find none queue up."""

    def __init__(
        self,
        operations: Iterator[tuple[bool, bytes]],
        outstanding: int,
        rate: float,
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        self._clock = clock
        self._operations = operations
        self._outstanding = outstanding
        self._interval_ns = NS / rate
        self._free: deque[Connection] = deque()
        self._late: deque[int] = deque()
        self._under_way = 0
        self._end = 0
        self._all_answered = asyncio.Event()

    @property
    def unanswered(self) -> int:
        """Due, and not answered."""
        return len(self._late) + self._under_way

    async def run(self, connections: Sequence[Connection], end_ns: int) -> None:
        """From now to `end_ns` of the monotonic clock, and until all is answered."""
        for _ in range(self._outstanding):
            self._free.extend(connections)
        began = self._clock()
        self._end = end_ns
        sent = 0
        while (now := self._clock()) < self._end:
            while (due := began + round(sent * self._interval_ns)) <= now:
                sent += 1
                self._send(due)
            await asyncio.sleep(max(0, min(due, self._end) - self._clock()) / NS)
        self._all_answered.clear()
        if self.unanswered:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_answered.wait(), DRAIN_S)

    def stop(self) -> None:
        """Send nothing more that would be due from now on."""
        self._end = 0

    def _send(self, due_ns: int) -> None:
        if self._free:
            self._under_way += 1
            self._free.popleft().submit(*next(self._operations), due_ns)
        else:
            self._late.append(due_ns)

    def next(self, connection: Connection, now_ns: int) -> None:
        """The connection has room for one more; what is late goes first."""
        self._under_way -= 1
        self._free.append(connection)
        if self._late:
            self._send(self._late.popleft())
        elif not self._under_way:
            self._all_answered.set()


def rhythm_of(spec: LoadSpec, operations: Iterator[tuple[bool, bytes]]) -> ClosedLoop | OpenLoop:
    """As the spec asks for; a generator makes its share of the rate."""
    if spec.rate is None:
        return ClosedLoop(operations, spec.outstanding)
    return OpenLoop(operations, spec.outstanding, spec.rate / spec.generators)
