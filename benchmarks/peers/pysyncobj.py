"""PySyncObj: nodes with a journal file, as its documentation has it, and with a journal that syncs.

Its journal is a mapped file that nobody syncs: what it acknowledges survives killed processes, but not a power
cut. `Syncing` makes the journal durable where Raft needs it: on a follower before it confirms entries, on the
leader before it counts itself; once for all entries that came meanwhile, which is the cheapest that is safe.

There is no network between its callers and it: the load runs inside of the leader's process. That spares it
what every other system here pays, and is said beside its figures.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import tempfile
import time
from array import array
from collections import Counter
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from pysyncobj import SyncObj as Original
from pysyncobj import SyncObjConf, replicated

from benchmarks.latency import Latencies
from benchmarks.load import keys
from benchmarks.load.rhythm import NS
from benchmarks.load.spec import LoadResult
from raftkv.processes.ports import free_ports

NOTE = "its load runs inside of the leader's process: no network between callers and it, and no sessions"
START_DEADLINE_S = 30.0
TICK_S = 0.005
SETTLE_S = 0.3


class SyncObj(Original):  # type: ignore[misc]
    """The original with a table of keys; the name matters, as methods with two underscores are overridden."""

    def __init__(self, own: str, others: list[str], conf: SyncObjConf, *, syncs: bool) -> None:
        self._syncs = syncs
        self._dirty_at = 0
        super().__init__(own, others, conf)
        self.table: dict[bytes, bytes] = {}

    @replicated  # type: ignore[untyped-decorator]
    def put(self, key: bytes, value: bytes) -> None:
        """Set a key."""
        self.table[key] = value

    def _sync(self) -> None:
        journal = self._SyncObj__raftLog
        offset = journal._FileJournal__currentOffset
        if self._syncs and offset != self._dirty_at:
            os.fdatasync(journal._FileJournal__journalFile._ResizableFile__f.fileno())
            self._dirty_at = offset

    def _onTick(self, timeToWait: float = 0.0) -> None:  # noqa: N802, N803 (its names)
        self._sync()  # what the leader counts as its own from here on is durable
        super()._onTick(timeToWait)

    def _SyncObj__sendNextNodeIdx(self, node: Any, **about: Any) -> None:  # noqa: N802 (its name)
        self._sync()  # what a follower confirms is durable
        Original._SyncObj__sendNextNodeIdx(self, node, **about)


class Order(msgspec.Struct, frozen=True):
    """What a node's process is to do: tell whether it leads, or (with seconds) make load."""

    outstanding: int = 0
    value_bytes: int = 0
    warmup_s: float = 0.0
    seconds: float = 0.0
    seed: int = 1


class PySyncObjCluster:
    """Node processes; as a context manager it leaves nothing behind."""

    def __init__(self, size: int = 3, *, syncs: bool, period_s: float | None = None) -> None:
        """`period_s` has it send what came every so often (`appendEntriesPeriod`); None: each command by itself."""
        self.name = "pysyncobj, syncing" if syncs else "pysyncobj, no fsync"
        self._directory = tempfile.TemporaryDirectory(prefix="pysyncobj-bench-")
        context = multiprocessing.get_context("spawn")
        addresses = [f"127.0.0.1:{port}" for port in free_ports(size)]
        self._pipes: list[Pipe] = []
        self._processes = []
        for at, own in enumerate(addresses):
            ours, theirs = context.Pipe()
            others = [each for each in addresses if each != own]
            journal = str(Path(self._directory.name) / f"journal{at}")
            arguments = (own, others, journal, syncs, period_s, theirs)
            self._pipes.append(ours)
            self._processes.append(context.Process(target=_serve, args=arguments, daemon=True))

    def __enter__(self) -> PySyncObjCluster:
        for process in self._processes:
            process.start()
        self._leader()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if process.pid is not None:
                process.kill()
                process.join()
        self._directory.cleanup()

    def _leader(self) -> Pipe:
        end = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < end:
            for pipe in self._pipes:
                pipe.send(Order())
                if pipe.poll(START_DEADLINE_S) and pipe.recv():
                    return pipe
            time.sleep(0.05)
        raise TimeoutError("PySyncObj has no leader in time")

    def load(self, outstanding: int, value_bytes: int, *, warmup_s: float, seconds: float, seed: int) -> LoadResult:
        """Closed-loop puts, so many under way; raises `TimeoutError` when it gets stuck."""
        pipe = self._leader()
        pipe.send(Order(outstanding, value_bytes, warmup_s, seconds, seed))
        if not pipe.poll(warmup_s + seconds + START_DEADLINE_S):
            raise TimeoutError("PySyncObj's load did not end in time")
        return msgspec.msgpack.decode(pipe.recv(), type=LoadResult)


def _serve(own: str, others: list[str], journal: str, syncs: bool, period_s: float | None, pipe: Pipe) -> None:
    """A node's process: ticks, and takes orders."""
    conf = SyncObjConf(
        autoTick=False,
        journalFile=journal,
        appendEntriesUseBatch=period_s is not None,
        **({} if period_s is None else {"appendEntriesPeriod": period_s}),
        commandsQueueSize=1_000_000,
        logCompactionMinEntries=1 << 40,  # it would stop everything while it copies its journal
        logCompactionMinTime=1 << 40,
    )
    complaints = _Complaints()
    logging.getLogger().addHandler(complaints)
    node = SyncObj(own, others, conf, syncs=syncs)
    while True:
        node.doTick(TICK_S)
        if pipe.poll():
            order: Order = pipe.recv()
            if order.seconds:
                pipe.send(msgspec.msgpack.encode(_Load(node, order, complaints.counts).run()))
            else:
                pipe.send(bool(node._isLeader() and node.isReady()))


class _Load:
    """Puts in a closed loop, from the process that ticks the node."""

    def __init__(self, node: SyncObj, order: Order, errors: Counter[str]) -> None:
        self._node = node
        self._order = order
        self._begin = time.perf_counter_ns() + round(order.warmup_s * NS)
        self._end = self._begin + round(order.seconds * NS)
        self._value = keys.value(order.value_bytes, order.seed)
        drawn = keys.operations(keys=100_000, zipf=0, reads=0, seed=order.seed)
        self._keys = (key for _, key in drawn)
        self._latencies = array("q")
        self._errors = errors

    def run(self) -> LoadResult:
        """Until the time is over, and then until nothing is under way."""
        for _ in range(self._order.outstanding):
            self._submit()
        while time.perf_counter_ns() < self._end:
            self._node.doTick(TICK_S)
        settled = self._end + round(SETTLE_S * NS)
        while time.perf_counter_ns() < settled:
            self._node.doTick(TICK_S)
        return LoadResult(
            operations=len(self._latencies),
            seconds=self._order.seconds,
            latencies=Latencies.of(self._latencies).to_text(),
            errors=dict(self._errors),
        )

    def _submit(self) -> None:
        began = time.perf_counter_ns()

        def answered(_result: object, error: int) -> None:
            now = time.perf_counter_ns()
            if self._begin <= now < self._end:
                if error:
                    self._errors[f"fail reason {error}"] += 1
                else:
                    self._latencies.append(now - began)
            if now < self._end:
                self._submit()

        self._node.put(next(self._keys), self._value, callback=answered)


class _Complaints(logging.Handler):
    """Counts what the node says is wrong, instead of printing it thousands of times."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """By the first words of the message as it is written in the source."""
        self.counts[" ".join(str(record.msg).split()[:4])] += 1


def measure(
    outstanding: int, value_bytes: int, *, syncs: bool, warmup_s: float, seconds: float, seed: int
) -> tuple[str, LoadResult]:
    """One closed-loop run on a new cluster: its name and what it saw.

    With its settings at their best for the load: one command at a time goes out at once, many in
    batches of a millisecond; its default of 100 ms would be slower in both.
    """
    with PySyncObjCluster(3, syncs=syncs, period_s=None if outstanding == 1 else 0.001) as cluster:
        return cluster.name, cluster.load(outstanding, value_bytes, warmup_s=warmup_s, seconds=seconds, seed=seed)
