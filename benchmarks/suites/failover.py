"""Failover: the leader is killed, or falls silent, again and again under load on a timetable."""

from __future__ import annotations

import itertools
import signal
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks import plots
from benchmarks.latency import Latencies
from benchmarks.load.generator import run_load
from benchmarks.load.rhythm import NS
from benchmarks.load.spec import LoadResult, LoadSpec, Target
from benchmarks.peers import etcd
from benchmarks.peers.etcd import EtcdCluster
from benchmarks.peers.raftkv import RaftkvCluster
from benchmarks.report import OURS, Column, Report, Series
from benchmarks.suite import Run, Suite
from benchmarks.witness import Witness

TITLE = "Failover: time without any answer after the leader is gone, default settings, 3 nodes"
COLUMNS = [
    Column("p50_ms", "without answers p50 ms", "lower"),
    Column("p99_ms", "p99 ms", "lower"),
    Column("max_ms", "longest ms", "lower"),
    Column("faults", "faults"),
    Column("unanswered", "operations never answered", "lower"),
    Column("problems", "lost or applied twice", "lower"),
]
RATE = 500.0
CONNECTIONS = 16
DOWN_S = 1.0
SILENT_S = 4.0
"""How long the leader is away; when it is silent, longer than any client waits for it."""
BUCKET_S = 0.025
BEFORE_S, AFTER_S = 0.5, 3.0


class OurLeader:
    """raftkv's."""

    def __init__(self, cluster: RaftkvCluster) -> None:
        self._cluster = cluster
        self._node = cluster.leader()
        self._silently = False

    def find(self) -> None:
        """Whoever leads now; waits for it."""
        self._node = self._cluster.leader()

    def take_away(self, *, silently: bool) -> None:
        self._silently = silently
        self._node.signal(signal.SIGSTOP if silently else signal.SIGKILL)

    def bring_back(self) -> None:
        if self._silently:
            self._node.signal(signal.SIGCONT)
        else:
            self._node.kill()
            self._node.start()


class EtcdLeader:
    """etcd's."""

    def __init__(self, cluster: EtcdCluster) -> None:
        self._cluster = cluster
        self._at = cluster.leader()
        self._silently = False

    def find(self) -> None:
        """Whoever leads now; waits for it."""
        self._at = self._cluster.leader()

    def take_away(self, *, silently: bool) -> None:
        self._silently = silently
        process = self._cluster.processes[self._at]
        assert process is not None
        process.send_signal(signal.SIGSTOP if silently else signal.SIGKILL)

    def bring_back(self) -> None:
        process = self._cluster.processes[self._at]
        if self._silently and process is not None:
            process.send_signal(signal.SIGCONT)
        else:
            self._cluster.kill(self._at)
            self._cluster.start(self._at)


class Plan(msgspec.Struct, frozen=True):
    """One row of the table."""

    who: str
    silently: bool
    faults: int
    cycle_s: float

    @property
    def case(self) -> str:
        return "leader silent (SIGSTOP)" if self.silently else "leader killed (SIGKILL)"


def plans(run: Run) -> list[Plan]:
    """Ours often enough for a p99; etcd takes longer for each."""
    found = [Plan(OURS, False, 4 if run.quick else 30, 3.0), Plan(OURS, True, 2 if run.quick else 10, 6.0)]
    if "etcd" in run.peers and etcd.missing() is None:
        found += [Plan("etcd", False, 2 if run.quick else 8, 5.0), Plan("etcd", True, 1 if run.quick else 4, 6.0)]
    return [plan for plan in found if run.wants(f"{plan.case}: {plan.who}")]


class Found(msgspec.Struct):
    """What one plan came to."""

    figures: dict[str, float]
    silences_ms: list[float]
    latencies: Latencies
    timeline: list[tuple[float, float]]
    problems: list[str]


def measure(run: Run) -> Report:
    """Each plan on a cluster of its own."""
    report = run.report("failover", TITLE, COLUMNS)
    for plan in sorted(plans(run), key=lambda plan: plan.silently):
        run.step(f"{plan.case}: {plan.who}, {plan.faults} times")
        found = figures_of(run, plan)
        row = report.add(plan.case, plan.who, found.figures, found.latencies)
        row.group = plan.case
        row.figures["each_ms"] = found.silences_ms
        report.series.append(Series(plan.case, plan.who, found.timeline))
        report.notes += found.problems[:10]
    report.notes.append(
        f"load: {RATE:.0f} writes a second on a timetable over {CONNECTIONS} connections; raftkv's by its client "
        "library, etcd's by a client of ours that goes on to the next member when one fails, or says nothing for 2 s"
    )
    return report


def figures_of(run: Run, plan: Plan) -> Found:
    """Carry out a plan on a new cluster."""
    with RaftkvCluster(3) if plan.who == OURS else EtcdCluster(3) as cluster:
        taken, result, problems = torture(run, cluster, plan)
    silences = sorted(silence_ms(result.answered_ns, moment) for moment in taken)
    figures = {
        "p50_ms": statistics.median(silences),
        "p99_ms": silences[int(len(silences) * 0.99)],
        "max_ms": silences[-1],
        "faults": float(len(silences)),
        "unanswered": float(result.unanswered + sum(result.errors.values())),
    }
    if problems is not None:
        figures["problems"] = float(len(problems))
    return Found(figures, silences, result.histogram(), timeline(result.answered_ns, taken), problems or [])


def torture(
    run: Run, cluster: RaftkvCluster | EtcdCluster, plan: Plan
) -> tuple[list[int], LoadResult, list[str] | None]:
    """Load, and faults meanwhile: when the leader was taken, what the load saw, what is lost (None: not looked for)."""
    taken: list[int] = []
    ours = isinstance(cluster, RaftkvCluster)
    leader = OurLeader(cluster) if isinstance(cluster, RaftkvCluster) else EtcdLeader(cluster)
    addresses = cluster.processes.addresses if isinstance(cluster, RaftkvCluster) else cluster.clients
    witness = Witness(addresses) if ours else None

    def faults() -> None:
        if witness is not None:
            witness.start()
        time.sleep(1.0)
        for _ in range(plan.faults):
            begun = time.monotonic()
            leader.find()
            taken.append(time.perf_counter_ns())
            leader.take_away(silently=plan.silently)
            time.sleep(SILENT_S if plan.silently else DOWN_S)
            leader.bring_back()
            time.sleep(max(0.0, begun + plan.cycle_s - time.monotonic()))

    spec = LoadSpec(
        target=Target.LIBRARY if ours else Target.ETCD_FOLLOWING,
        addresses=list(addresses),
        connections=CONNECTIONS,
        outstanding=1_000,
        rate=RATE,
        warmup_s=1.0,
        seconds=plan.faults * (plan.cycle_s + 10),
        seed=run.seed,
        timeline=True,
    )
    result = run_load(spec, faults)
    return taken, result, witness.stop() if witness is not None else None


def silence_ms(answered_ns: Sequence[int], moment_ns: int) -> float:
    """The longest time without an answer that begins within two seconds of the moment, or holds it."""
    gaps = itertools.pairwise(sorted(answered_ns))
    found = (end - begin for begin, end in gaps if end >= moment_ns and begin <= moment_ns + 2 * NS)
    return max(found, default=0) / 1e6


def timeline(answered_ns: Sequence[int], moments_ns: Sequence[int]) -> list[tuple[float, float]]:
    """Answers a second by the time since the fault, on average over all faults."""
    buckets: Counter[int] = Counter()
    for moment in moments_ns:
        for answered in answered_ns:
            since = (answered - moment) / NS
            if -BEFORE_S <= since < AFTER_S:
                buckets[int((since + BEFORE_S) / BUCKET_S)] += 1
    scale = BUCKET_S * max(1, len(moments_ns))
    return [(at * BUCKET_S - BEFORE_S, buckets[at] / scale) for at in range(int((BEFORE_S + AFTER_S) / BUCKET_S))]


def draw(report: Report, directory: Path) -> list[Path]:
    """Answers over time, for each kind of fault."""
    labels = {row.case: ("seconds since the fault", "answers/s") for row in report.rows}
    return plots.series(report, directory, labels)


SUITE = Suite("failover", TITLE, measure, lambda run: len(plans(run)), draw)
