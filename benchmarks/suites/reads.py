"""Reads: linearizable at the leader and through followers, stale, and mixed with writes on skewed keys."""

from __future__ import annotations

from contextlib import ExitStack

import msgspec

from benchmarks import plots
from benchmarks.load.generator import run_load
from benchmarks.load.spec import LoadSpec, Read
from benchmarks.report import Report
from benchmarks.suite import LOAD_COLUMNS, Cluster, Run, Suite

TITLE = "Reads: get, 16-byte keys, 1-KiB values, 3 nodes"
KEYS = 5_000
VALUE_BYTES = 1024
FILL_S = 3.0


class Kind(msgspec.Struct, frozen=True):
    """What is read, and where."""

    name: str
    leader: bool = True
    read: Read = Read.LINEARIZABLE
    reads: float = 1.0
    zipf: float = 0.0


LEADER = Kind("linearizable, leader")
KINDS = (
    LEADER,
    Kind("linearizable, followers", leader=False),
    Kind("stale, followers", leader=False, read=Read.STALE),
    Kind("90 % reads, 10 % writes, Zipf 0.99, leader", reads=0.9, zipf=0.99),
)
CONNECTIONS = (1, 64, 1_000)


def case_name(kind: Kind, connections: int) -> str:
    """As it stands in the table."""
    return f"{kind.name}: {connections} × 1"


def cases(run: Run) -> list[tuple[Kind, int]]:
    """The cases that the run wants."""
    found = [(kind, connections) for kind in KINDS for connections in ((64,) if run.quick else CONNECTIONS)]
    return [each for each in found if run.wants(case_name(*each))]


def spec_of(cluster: Cluster, kind: Kind, connections: int) -> LoadSpec:
    """The load of a case."""
    return LoadSpec(
        target=cluster.target,
        addresses=cluster.addresses(leader=kind.leader),
        connections=connections,
        value_bytes=VALUE_BYTES,
        keys=KEYS,
        reads=kind.reads,
        read=kind.read,
        zipf=kind.zipf,
    )


def fill(cluster: Cluster) -> None:
    """Write every key, so that reads find something."""
    spec = spec_of(cluster, msgspec.structs.replace(LEADER, reads=0.0), 8)
    found = run_load(msgspec.structs.replace(spec, in_order=True, outstanding=64, warmup_s=0.0, seconds=FILL_S))
    if found.operations < KEYS:
        raise ValueError(f"only {found.operations} of {KEYS} keys could be written beforehand")


def measure(run: Run) -> Report:
    """Measure the cases of this run, and enter them in its report."""
    return compare(run, cases(run))


def compare(run: Run, chosen: list[tuple[Kind, int]]) -> Report:
    """Ours and etcd in turn."""
    report = run.report("reads", TITLE, LOAD_COLUMNS)
    with ExitStack() as stack:
        clusters = run.clusters(report, 3)
        for cluster in clusters:
            stack.enter_context(cluster)
            fill(cluster)
        for repeat in range(run.repeats):
            for kind, connections in chosen:
                name = case_name(kind, connections)
                for cluster in clusters:
                    run.step(f"{name}: {cluster.name}, {repeat + 1} of {run.repeats}")
                    run.load(report, name, spec_of(cluster, kind, connections), cluster.name)
                    row = report.row(name, cluster.name)
                    row.x, row.group = connections, kind.name
    report.notes.append("etcd calls a stale read serializable; both answer it from what the asked node has applied")
    return report


def steps(run: Run) -> int:
    """With etcd, if it is wanted."""
    return run.repeats * len(cases(run)) * (1 + ("etcd" in run.peers))


SUITE = Suite("reads", TITLE, measure, steps, plots.load)
