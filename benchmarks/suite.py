"""What a suite is, and what it is run with."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from benchmarks import machine
from benchmarks.load.generator import run_load
from benchmarks.load.spec import LoadResult, LoadSpec
from benchmarks.peers import etcd
from benchmarks.peers.etcd import EtcdCluster
from benchmarks.peers.raftkv import RaftkvCluster
from benchmarks.report import Column, Report, Row

LATENCY_COLUMNS = [
    Column("p50_ms", "p50 ms", "lower", 2),
    Column("p90_ms", "p90 ms", "lower", 2),
    Column("p99_ms", "p99 ms", "lower", 2),
    Column("p99.9_ms", "p99.9 ms", "lower", 1),
    Column("max_ms", "max ms", "lower", 0),
]
LOAD_COLUMNS = [Column("throughput", "operations/s", "higher"), *LATENCY_COLUMNS, Column("errors", "errors", "lower")]


Cluster: TypeAlias = RaftkvCluster | EtcdCluster
"""A cluster that load can be sent to, while its context lasts."""


class Run:
    """One invocation: how thorough it is, and who is told of its progress."""

    def __init__(
        self,
        *,
        quick: bool = False,
        repeats: int | None = None,
        seed: int = 1,
        only: str = "",
        peers: Sequence[str] = ("etcd", "pysyncobj"),
        seconds: float | None = None,
        step: Callable[[str], None] = lambda text: None,
        generators: int = 1,
    ) -> None:
        """`only` picks cases whose name has this text; `seconds` is the measured time of one repeat."""
        self.quick = quick
        self.thorough = not quick
        """Whether every case is measured beside every peer."""
        self.repeats = repeats if repeats is not None else 1 if quick else 3
        self.seed = seed
        self.only = only
        self.peers = frozenset(peers)
        self.seconds = seconds if seconds is not None else 2.0 if quick else 4.0
        self.warmup_s = self.seconds / 4
        self.generators = generators
        self.step = step
        """Called with what comes next, before each measurement."""

    def report(self, suite: str, title: str, columns: Sequence[Column]) -> Report:
        """An empty report of this run."""
        began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return Report(
            suite, title, machine.describe(), began, self.quick, self.repeats, self.seed, columns=list(columns)
        )

    def without_choice(self) -> Run:
        """The same run for a suite that picks cases and peers itself."""
        found = copy.copy(self)
        found.only, found.thorough = "", False
        return found

    def wants(self, case: str) -> bool:
        return self.only in case

    def clusters(self, report: Report, size: int, *, arguments: Sequence[str] = ()) -> list[Cluster]:
        """Ours and etcd, if it is wanted and installed; not started yet."""
        found: list[Cluster] = [RaftkvCluster(size, arguments=arguments)]
        if "etcd" in self.peers:
            command = etcd.missing()
            if command is None:
                found.append(EtcdCluster(size))
            elif (note := f"etcd is not installed and was left out; {command}") not in report.notes:
                report.notes.append(note)
        return found

    def load(self, report: Report, case: str, spec: LoadSpec, who: str) -> LoadResult:
        """Measure one repeat of a case, and enter it in the report."""
        spec = msgspec.structs.replace(
            spec,
            warmup_s=self.warmup_s,
            seconds=self.seconds,
            seed=self.seed,
            generators=min(self.generators, spec.connections),
        )
        result = run_load(spec)
        self.enter(report, case, who, result)
        return result

    def spend(self, spec: LoadSpec, seconds: float) -> LoadResult:
        """Do this load for so long, measured from its first operation on."""
        return run_load(msgspec.structs.replace(spec, warmup_s=0.0, seconds=seconds, seed=self.seed))

    def enter(self, report: Report, case: str, who: str, result: LoadResult) -> Row:
        """Enter one repeat of a case in the report."""
        latencies = result.histogram()
        figures = {
            "throughput": result.throughput,
            **latencies.figures(),
            "errors": float(sum(result.errors.values()) + result.unanswered),
            "generator_cpu": result.cpu_s / (result.seconds + self.warmup_s),
        }
        row = report.add(case, who, figures, latencies)
        if result.errors:
            row.note = ", ".join(f"{count} × {name}" for name, count in sorted(result.errors.items()))
        return row


class Suite(msgspec.Struct, frozen=True):
    """A set of measurements with one table."""

    name: str
    title: str
    run: Callable[[Run], Report]
    steps: Callable[[Run], int]
    """How many times it will call `Run.step`."""
    plots: Callable[[Report, Path], list[Path]] = lambda report, directory: []
    guard: Callable[[Report], list[str]] | None = None
    """What is worse by now than in the report that is kept of it, in words; None where no report is kept."""
