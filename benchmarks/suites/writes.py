"""Writes: throughput and latency as connections grow, for two sizes of values and of clusters."""

from __future__ import annotations

from contextlib import ExitStack

import msgspec

from benchmarks import plots
from benchmarks.load.spec import LoadSpec
from benchmarks.peers import etcd, pysyncobj
from benchmarks.peers.etcd import EtcdCluster
from benchmarks.report import Report
from benchmarks.suite import LOAD_COLUMNS, Cluster, Run, Suite

TITLE = "Writes: put, 16-byte keys, fsync before each answer, sessions on"


class Shape(msgspec.Struct, frozen=True):
    """How many connections, and how many operations each has under way."""

    connections: int
    outstanding: int = 1

    @property
    def name(self) -> str:
        return f"{self.connections} × {self.outstanding}"

    @property
    def clients(self) -> int:
        return self.connections * self.outstanding


SHAPES = (Shape(1), Shape(8), Shape(64), Shape(256), Shape(1_000), Shape(8, 200))
QUICK_SHAPES = (Shape(1), Shape(64), Shape(1_000), Shape(8, 200))
ITSELF = "etcdctl check perf --load=xl"
PYSYNCOBJ_NODES = 3
ETCD_NOTE = (
    "etcd by gRPC to its leader, from a generator of our own that speaks the least HTTP/2 that a call needs "
    "(its JSON gateway and general gRPC libraries cost more); etcd's puts have no exactly-once sessions"
)
PYSYNCOBJ_NOTE = f"pysyncobj: {pysyncobj.NOTE}; without fsync, a power cut loses what it acknowledged"


def case_name(shape: Shape, value_bytes: int, nodes: int) -> str:
    """As it stands in the table."""
    return f"{shape.name}, {value_bytes} B, {nodes} nodes"


def cases(run: Run) -> list[tuple[int, list[tuple[Shape, int]]]]:
    """By size of the cluster: shapes and sizes of values."""
    if run.quick:
        plan = [(3, [(shape, 1024) for shape in QUICK_SHAPES])]
    else:
        plan = [
            (3, [(shape, size) for size in (256, 1024) for shape in SHAPES]),
            (5, [(shape, 1024) for shape in (Shape(1), Shape(64), Shape(1_000))]),
        ]
    return [(nodes, [each for each in found if run.wants(case_name(*each, nodes))]) for nodes, found in plan]


def measure(run: Run) -> Report:
    """Ours and the peers in turn, case by case, repeat by repeat."""
    report = run.report("writes", TITLE, LOAD_COLUMNS)
    for nodes, found in cases(run):
        if found:
            compare(run, report, nodes, found)
    if measures_itself(run):
        etcd_by_itself(run, report)
    return report


def measures_itself(run: Run) -> bool:
    """Whether etcd's own benchmark is run as well."""
    return not run.quick and "etcd" in run.peers and etcd.missing() is None and run.wants(ITSELF)


def etcd_by_itself(run: Run, report: Report) -> float:
    """etcd's own benchmark, once: a minute of at most 15,000 writes a second from 1,000 clients, 1 KiB each."""
    run.step(ITSELF)
    with EtcdCluster(3) as cluster:
        writes_s = cluster.own_benchmark()
    report.add(ITSELF, EtcdCluster.name, {"throughput": writes_s})
    return writes_s


def compare(run: Run, report: Report, nodes: int, shapes: list[tuple[Shape, int]]) -> None:
    """Measure these shapes, each with values of so many bytes, on clusters of that size."""
    with ExitStack() as stack:
        clusters = run.clusters(report, nodes)
        for cluster in clusters:
            stack.enter_context(cluster)
        for repeat in range(run.repeats):
            for shape, value_bytes in shapes:
                name = case_name(shape, value_bytes, nodes)
                for cluster in clusters:
                    run.step(f"{name}: {cluster.name}, {repeat + 1} of {run.repeats}")
                    run.load(report, name, spec_of(cluster, shape, value_bytes), cluster.name)
                if nodes == PYSYNCOBJ_NODES and wants_pysyncobj(run, shape):
                    beside_pysyncobj(run, report, name, shape, value_bytes)
                for row in report.rows:
                    if row.case == name:
                        row.x, row.group = shape.clients, f"{value_bytes} B, {nodes} nodes"
    for who, note in ((EtcdCluster.name, ETCD_NOTE), ("pysyncobj", PYSYNCOBJ_NOTE)):
        if note not in report.notes and any(row.who.startswith(who) for row in report.rows):
            report.notes.append(note)


def spec_of(cluster: Cluster, shape: Shape, value_bytes: int) -> LoadSpec:
    """Puts to the leader."""
    return LoadSpec(
        target=cluster.target,
        addresses=cluster.addresses(leader=True),
        connections=shape.connections,
        outstanding=shape.outstanding,
        value_bytes=value_bytes,
    )


def wants_pysyncobj(run: Run, shape: Shape) -> bool:
    """Whether to measure it with this shape."""
    return "pysyncobj" in run.peers and (shape.clients == 64 or run.thorough)


def beside_pysyncobj(run: Run, report: Report, case: str, shape: Shape, value_bytes: int) -> None:
    """One repeat without fsync and one with, each on a cluster that is there only for it."""
    for syncs in (False, True):
        run.step(f"{case}: pysyncobj, {'syncing' if syncs else 'no fsync'}")
        who, result = pysyncobj.measure(
            shape.clients, value_bytes, syncs=syncs, warmup_s=run.warmup_s, seconds=run.seconds, seed=run.seed
        )
        run.enter(report, case, who, result)


def steps(run: Run) -> int:
    """With the peers that are wanted."""
    total = 0
    for nodes, found in cases(run):
        for shape, _ in found:
            pysyncobjs = 2 * (nodes == PYSYNCOBJ_NODES and wants_pysyncobj(run, shape))
            total += run.repeats * (1 + ("etcd" in run.peers) + pysyncobjs)
    return total + measures_itself(run)


SUITE = Suite("writes", TITLE, measure, steps, plots.load)
