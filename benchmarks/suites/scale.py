"""Scale: what writes cost as values, clusters, clients and the state grow."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import msgspec
import uvloop

from benchmarks import plots
from benchmarks.peers.raftkv import RaftkvCluster
from benchmarks.report import Report
from benchmarks.suite import LOAD_COLUMNS, Cluster, Run, Suite
from benchmarks.suites import snapshots
from benchmarks.suites.writes import Shape, spec_of

TITLE = "Scale: writes at 64 × 1 with 256-byte values and 3 nodes, but for what the case names"
SHAPE = Shape(64)
VALUE_BYTES = 256


class Point(msgspec.Struct, frozen=True):
    """One point of one axis."""

    axis: str
    x: float
    shape: Shape = SHAPE
    value_bytes: int = VALUE_BYTES
    nodes: int = 3
    state_mib: int = 0

    @property
    def case(self) -> str:
        return f"{self.axis}: {self.x:,.0f}"


def points(run: Run) -> list[Point]:
    """What this run measures. An HTTP/2 frame holds 16 KiB, so values stay below that."""
    quick = run.quick
    found = [Point("nodes", nodes, nodes=nodes) for nodes in ((1, 3) if quick else (1, 3, 5, 7))]
    found += [
        Point("value bytes", size, value_bytes=size) for size in ((16, 4096) if quick else (16, 256, 4096, 16_000))
    ]
    clients = (1, 256) if quick else (1, 4, 16, 64, 256, 1_000, 2_000)
    found += [Point("clients", count, shape=Shape(count)) for count in clients]
    found += [Point("state MiB", mib, state_mib=mib) for mib in ((0, 64) if quick else (0, 256, 1024))]
    return [point for point in found if run.wants(point.case)]


def measure(run: Run) -> Report:
    """A cluster for each size and state, ours and etcd's in turn on it."""
    report = run.report("scale", TITLE, LOAD_COLUMNS)
    kinds = {(point.nodes, point.state_mib): None for point in points(run)}
    for nodes, state_mib in kinds:
        with ExitStack() as stack:
            # A large state is about ours: etcd keeps a history of every key, which is another kind of state.
            clusters: list[Cluster] = [RaftkvCluster(nodes)] if state_mib else list(run.clusters(report, nodes))
            for cluster in clusters:
                stack.enter_context(cluster)
            if state_mib:
                uvloop.run(snapshots.fill(clusters[0].addresses(leader=True), state_mib))
            chosen = [point for point in points(run) if (point.nodes, point.state_mib) == (nodes, state_mib)]
            for repeat in range(run.repeats):
                for point in chosen:
                    for cluster in clusters:
                        run.step(f"{point.case}: {cluster.name}, {repeat + 1} of {run.repeats}")
                        run.load(report, point.case, spec_of(cluster, point.shape, point.value_bytes), cluster.name)
                        row = report.row(point.case, cluster.name)
                        row.x, row.group = point.x, point.axis
    report.rows.sort(key=lambda row: [point.case for point in points(run)].index(row.case))
    return report


def draw(report: Report, directory: Path) -> list[Path]:
    """Throughput along each axis."""
    return plots.load(report, directory, along_groups=True)


def steps(run: Run) -> int:
    """With etcd where it takes part."""
    return run.repeats * sum(1 + ("etcd" in run.peers and not point.state_mib) for point in points(run))


SUITE = Suite("scale", TITLE, measure, steps, draw)
