"""How long commands and queries take, by method: what runs on the event loop holds up everything else there."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable

import msgspec

from raftkv.machine.methods import Method

BOUNDS_S = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)
"""Upper bounds of what is counted together. There are as many counters as methods times these, whatever is called."""

FAST_S = BOUNDS_S[0]

SLOW_S = 0.1
"""A run that takes longer is slow: heartbeats wait for a command meanwhile, and so does every other client."""


class MethodTime(msgspec.Struct, kw_only=True):
    """What the runs of one command or query took on one node since its start; replayed entries are counted again."""

    kind: str
    """command or query."""
    line: str
    """Where it is written: "file:line"."""
    runs: int = 0
    raised: int = 0
    """How many of them ended with an exception of its own."""
    slow: int = 0
    """How many of them took more than `SLOW_S`."""
    seconds: float = 0.0
    """All runs together. A query that reads much pauses on purpose; its pauses count."""
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    """How many took up to each of `BOUNDS_S`, and more than the one before; the last: more than all."""


class _Tally:
    """What the runs of one method took; not a `MethodTime`, as this is on the way of every command."""

    __slots__ = ("counts", "method", "raised", "seconds", "slow")

    def __init__(self, method: Method) -> None:
        self.method = method
        self.seconds = 0.0
        self.raised = self.slow = 0
        self.counts = [0] * (len(BOUNDS_S) + 1)

    def add_to(self, time: MethodTime) -> None:
        time.runs += sum(self.counts)
        time.raised += self.raised
        time.slow += self.slow
        time.seconds += self.seconds
        time.counts = [one + other for one, other in zip(time.counts, self.counts, strict=True)]


class MethodTimes:
    """Counts runs on the event loop's thread, one after the other, and those of other threads apart from them."""

    def __init__(self, clock: Callable[[], float], on_slow: Callable[[Method, float], None]) -> None:
        """`clock` gives seconds. `on_slow` is called with each run that took more than `SLOW_S`, on its thread."""
        self.clock = clock
        self._on_slow = on_slow
        self._since = 0.0
        self._here: dict[str, _Tally] = {}
        self._lock = threading.Lock()
        self._beside: dict[str, _Tally] = {}

    def begin(self) -> None:
        """On the loop's thread: the next run begins now. When it ends, the one behind it begins: a single look at the
        clock is all that a command has to pay."""
        self._since = self.clock()

    def ran(self, method: Method, raised: bool) -> None:
        """On the loop's thread: `method` has run, and has `raised` an error of its own or not."""
        now = self.clock()
        seconds, self._since = now - self._since, now
        tally = self._here.get(method.name)
        if tally is None:
            tally = self._here[method.name] = _Tally(method)
        tally.seconds += seconds
        if raised:
            tally.raised += 1
        if seconds <= FAST_S:
            tally.counts[0] += 1
        else:
            self._took_longer(tally, seconds)

    def ran_beside(self, method: Method, raised: bool, began: float) -> None:
        """On any other thread: `method` has run since the clock showed `began`."""
        seconds = self.clock() - began
        with self._lock:
            tally = self._beside.get(method.name)
            if tally is None:
                tally = self._beside[method.name] = _Tally(method)
            tally.seconds += seconds
            tally.raised += raised
            self._took_longer(tally, seconds)

    def _took_longer(self, tally: _Tally, seconds: float) -> None:
        tally.counts[bisect_left(BOUNDS_S, seconds)] += 1
        if seconds > SLOW_S:
            tally.slow += 1
            self._on_slow(tally.method, seconds)

    def so_far(self) -> dict[str, MethodTime]:
        """By the names of the methods that have run. On the loop's thread."""
        times: dict[str, MethodTime] = {}
        with self._lock:
            for name, tally in (*self._here.items(), *self._beside.items()):
                time = times.setdefault(name, MethodTime(kind=tally.method.kind, line=tally.method.line))
                tally.add_to(time)
        return times
