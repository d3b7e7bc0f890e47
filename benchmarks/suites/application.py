"""An application's typed commands against plain puts: what the state machine's API costs."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks import plots
from benchmarks.load.spec import LoadSpec, Target
from benchmarks.machines import CALLS
from benchmarks.peers.raftkv import RaftkvCluster
from benchmarks.report import Column, Report
from benchmarks.suite import LOAD_COLUMNS, Run, Suite

TITLE = "Application: typed commands against the bare key-value path, 256-byte values, 3 nodes"
WHAT = {
    "kv": "kv: put",
    "shop-enter": "typed: one table, as much work as a put",
    "shop-place": "typed: two tables, a check, a running total",
}
SHAPES = ((64, 1, Target.RAFTKV), (8, 200, Target.RAFTKV), (64, 1, Target.LIBRARY))


def case_name(connections: int, outstanding: int, target: Target) -> str:
    """As it stands in the table."""
    by = "the client library" if target is Target.LIBRARY else "the least client"
    return f"{connections} × {outstanding}, by {by}"


def cases(run: Run) -> list[tuple[int, int, Target]]:
    """The cases that the run wants."""
    return [shape for shape in SHAPES if run.wants(case_name(*shape))]


def measure(run: Run) -> Report:
    """Measure the cases of this run, and enter them in its report."""
    return compare(run, cases(run))


def compare(run: Run, chosen: list[tuple[int, int, Target]]) -> Report:
    """Two clusters, one for each machine, in turn."""
    columns = [*LOAD_COLUMNS, Column("share", "% of kv", "higher")]
    report = run.report("application", TITLE, columns)
    with ExitStack() as stack:
        clusters = {
            machine: stack.enter_context(RaftkvCluster(3, arguments=CALLS[name].served_as))
            for machine, name in (("KeyValue", "kv"), ("Shop", "shop-enter"))
        }
        for repeat in range(run.repeats):
            for shape in chosen:
                for name, what in WHAT.items():
                    run.step(f"{case_name(*shape)}: {what}, {repeat + 1} of {run.repeats}")
                    connections, outstanding, target = shape
                    cluster = clusters[CALLS[name].machine.__name__]
                    spec = LoadSpec(
                        target=target,
                        addresses=cluster.addresses(leader=True),
                        connections=connections,
                        outstanding=outstanding,
                        machine=name,
                    )
                    run.load(report, case_name(*shape), spec, what)
    _shares(report)
    return report


def _shares(report: Report) -> None:
    """Each repeat's throughput in percent of what puts reached in the same repeat."""
    for row in report.rows:
        bare = report.row(row.case, WHAT["kv"]).figures["throughput"]
        pairs = zip(row.figures["throughput"], bare, strict=True)
        row.figures["share"] = [100 * mine / theirs if theirs else 0.0 for mine, theirs in pairs]


def steps(run: Run) -> int:
    """Every case for every machine."""
    return run.repeats * len(cases(run)) * len(WHAT)


SUITE = Suite("application", TITLE, measure, steps, plots.load)
