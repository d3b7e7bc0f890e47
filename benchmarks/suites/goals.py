"""The goals for speed, measured in one run: what was reached beside what was to be reached."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import msgspec
import uvloop

from benchmarks.load.generator import LoadFailed
from benchmarks.load.spec import Target
from benchmarks.machines import CALLS
from benchmarks.peers.raftkv import RaftkvCluster, rss_mib
from benchmarks.report import OURS, Column, Report
from benchmarks.suite import LOAD_COLUMNS, Run, Suite
from benchmarks.suites import application, failover, reads, snapshots, writes
from benchmarks.suites.writes import Shape

TITLE = "Goals: measured in one run, medians; fsync, linearizable, sessions, full checks"
COLUMNS = [
    Column("measured", "measured", digits=2),
    Column("limit", "goal", digits=2),
    Column("met", "met", "higher", words=("no", "yes")),
]
VALUE_BYTES = 1024
NODES = 3
SETTLE_S = 3.0


class Goal(msgspec.Struct, frozen=True):
    """One line of the table: `name` says in which unit; `at_least` whether more is better."""

    name: str
    limit: float
    at_least: bool = True

    @property
    def case(self) -> str:
        return f"{self.name} {'≥' if self.at_least else '≤'} {self.limit:g}"


class Table:
    """Enters what was measured beside the goals."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def enter(self, goal: Goal, measured: float | None, note: str = "") -> None:
        """A goal and what was reached; None when there is nothing to compare with."""
        row = self.report.row(goal.case)
        row.figures["limit"] = [goal.limit]
        row.note = note
        if measured is not None:
            met = measured >= goal.limit if goal.at_least else measured <= goal.limit
            row.figures |= {"measured": [measured], "met": [float(met)]}
        else:
            row.note = row.note or "nobody to compare with"

    def ratio(self, goal: Goal, found: Report, case: str, peer: str, column: str = "throughput") -> None:
        """Ours by the peer's, as the median over the repeats, each of which measured both in turn."""
        ours, theirs = found.find(case, OURS), found.find(case, peer)
        if ours is None or theirs is None:
            self.enter(goal, None)
            return
        pairs = zip(ours.figures[column], theirs.figures[column], strict=True)
        ratio = statistics.median(mine / its for mine, its in pairs if its)
        self.enter(goal, ratio, f"{ours.median(column):,.2f} to {theirs.median(column):,.2f} ({peer})")


def measure_writes(run: Run, table: Table) -> None:
    """Beside etcd and PySyncObj."""
    shapes = {name: Shape(*shape) for name, shape in SHAPES.items()}
    found = run.report("writes", writes.TITLE, LOAD_COLUMNS)
    writes.compare(run, found, NODES, [(shape, VALUE_BYTES) for shape in shapes.values()])
    names = {name: writes.case_name(shape, VALUE_BYTES, NODES) for name, shape in shapes.items()}
    saturated = Goal("writes, 1,000 × 1, 1 KiB: times etcd's", 6)
    table.ratio(saturated, found, names["saturated"], "etcd")
    if writes.measures_itself(run):
        beside_its_own(saturated, table, found, names["saturated"], writes.etcd_by_itself(run, found))
    table.ratio(Goal("writes, 64 × 1, 1 KiB: times etcd's", 4), found, names["64"], "etcd")
    table.ratio(Goal("writes, 64 × 1: p99 by etcd's", 1, False), found, names["64"], "etcd", "p99_ms")
    pipelined = found.find(names["pipelined"], OURS)
    theirs = found.find(names["pipelined"], "etcd")
    note = f"etcd: {theirs.median('throughput'):,.0f}" if theirs is not None else ""
    reached = pipelined.median("throughput") if pipelined is not None else None
    table.enter(Goal("writes, 8 × 200, 1 KiB: a second", 30_000), reached, note)
    table.ratio(Goal("writes, 1 × 1, 1 KiB: p50 by etcd's", 1, False), found, names["one"], "etcd", "p50_ms")
    for who, limit in (("pysyncobj, syncing", 10), ("pysyncobj, no fsync", 1)):
        table.ratio(Goal(f"writes, 64 outstanding: times {who}", limit), found, names["64"], who)
    table.report.notes += found.notes


def beside_its_own(goal: Goal, table: Table, found: Report, case: str, its_own: float) -> None:
    """etcd's best figure counts: that of its own benchmark, where it is the better one."""
    ours, theirs = found.row(case).median("throughput"), found.row(case, "etcd").median("throughput")
    if ours is not None and theirs is not None and its_own > theirs:
        table.enter(goal, ours / its_own, f"{ours:,.0f} to {its_own:,.0f} ({writes.ITSELF})")
    else:
        table.report.notes.append(f"{writes.ITSELF} reached {its_own:,.0f} writes/s")


SHAPES = {"saturated": (1_000, 1), "64": (64, 1), "pipelined": (8, 200), "one": (1, 1)}


def measure_reads(run: Run, table: Table) -> None:
    """Linearizable, at the leader."""
    found = reads.compare(run, [(reads.LEADER, 64)])
    case = reads.case_name(reads.LEADER, 64)
    table.ratio(Goal("linearizable reads, 64 × 1: times etcd's", 3), found, case, "etcd")


def measure_failover(run: Run, table: Table) -> None:
    """Our own only: the limits are absolute."""
    plans = [plan for plan in failover.plans(run) if plan.who == OURS]
    for plan in plans:
        run.step(f"{plan.case}, {plan.faults} times")
        figures = failover.figures_of(run, plan).figures
        note = f"{plan.faults} faults, longest {figures['max_ms']:.0f} ms; lost or twice: {figures['problems']:.0f}"
        if plan.silently:
            table.enter(Goal("leader falls silent: ms without answers, p99", 1_500, False), figures["p99_ms"], note)
        else:
            table.enter(Goal("leader killed: ms without answers, p50", 150, False), figures["p50_ms"], note)
            table.enter(Goal("leader killed: ms without answers, p99", 400, False), figures["p99_ms"], note)


def measure_snapshots(run: Run, table: Table) -> None:
    """Installing on a brand-new node, without and with the default limit of the transfer."""
    mib = 128 if run.quick else 1024
    for limit, rate_mib in (("no limit", 0), ("default limit", None)):
        run.step(f"snapshot of {mib} MiB installed, {limit}")
        figures, _ = snapshots.install(run, mib, rate_mib)
        note = f"{figures['mib_s']:.0f} MiB/s, a plain copy {figures['copy_mib_s']:.0f} MiB/s"
        table.enter(Goal(f"snapshot install, {mib} MiB, {limit}: % of a plain copy", 60), figures["of_copy"], note)
        note = f"{figures['before_ms']:.1f} ms before, {figures['during_ms']:.1f} ms during"
        table.enter(Goal(f"… {limit}: write p99 during it, times", 2, False), figures["times"], note)


def measure_memory(run: Run, table: Table) -> None:
    """Of whole processes, the largest of three, idle and with much state."""
    mib = 128 if run.quick else 1024
    with RaftkvCluster(3) as cluster:
        run.step("memory, idle")
        time.sleep(SETTLE_S)
        table.enter(Goal("memory of a node, idle: MiB", 80, False), max(map(rss_mib, cluster.pids())))
        run.step(f"memory, {mib} MiB of state")
        uvloop.run(snapshots.fill(cluster.processes.addresses, mib))
        time.sleep(SETTLE_S)
        table.enter(Goal(f"memory of a node, {mib} MiB of state: MiB", 300, False), max(map(rss_mib, cluster.pids())))


def measure_application(run: Run, table: Table) -> None:
    """Typed commands against puts."""
    found = application.compare(run, [(64, 1, Target.RAFTKV)])
    case = application.case_name(64, 1, Target.RAFTKV)
    for name in ("shop-enter", "shop-place"):
        row = found.row(case, application.WHAT[name])
        table.enter(Goal(f"{application.WHAT[name]}: % of puts", 70), row.median("share"))


PARTS: dict[str, Callable[[Run, Table], None]] = {
    "writes": measure_writes,
    "reads": measure_reads,
    "failover": measure_failover,
    "snapshots": measure_snapshots,
    "memory": measure_memory,
    "application": measure_application,
}


def measure(run: Run) -> Report:
    """Part after part; `--only` picks one."""
    report = run.report("goals", TITLE, COLUMNS)
    table = Table(report)
    for name, part in PARTS.items():
        if run.only in name:
            try:
                part(run.without_choice(), table)
            except (LoadFailed, TimeoutError, ValueError) as exc:
                report.notes.append(f"{name} could not be measured to the end: {exc}")
    return report


def steps(run: Run) -> int:
    """About as many as there will be."""
    etcd = "etcd" in run.peers
    per_part = {
        "writes": run.repeats * (len(SHAPES) * (1 + etcd) + 2 * ("pysyncobj" in run.peers))
        + writes.measures_itself(run),
        "reads": run.repeats * (1 + etcd),
        "failover": 2,
        "snapshots": 2,
        "memory": 2,
        "application": run.repeats * len(CALLS),
    }
    return sum(count for name, count in per_part.items() if run.only in name)


SUITE = Suite("goals", TITLE, measure, steps)
