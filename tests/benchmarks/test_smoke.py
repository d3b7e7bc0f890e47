"""One suite from end to end, with a real node and a load generator in a process of its own."""

from __future__ import annotations

import pytest

from benchmarks.load.generator import LoadFailed, run_load
from benchmarks.load.spec import LoadSpec, Read, Target
from benchmarks.peers.raftkv import RaftkvCluster, status
from benchmarks.report import Report
from benchmarks.suite import LOAD_COLUMNS, Run
from raftkv.processes.ports import free_ports


def test_a_node_is_measured_and_the_figures_are_saved(tmp_path):
    """Writes and reads are answered without an error, and the report has their figures."""
    run = Run(quick=True, seconds=0.2)
    report = run.report("smoke", "Smoke", LOAD_COLUMNS)
    with RaftkvCluster(1) as cluster:
        for reads in (0.0, 0.5):
            spec = LoadSpec(
                target=Target.RAFTKV,
                addresses=cluster.addresses(leader=True),
                connections=2,
                outstanding=3,
                reads=reads,
                keys=100,
            )
            result = run.load(report, f"{reads:.0%} reads", spec, "raftkv")
            assert result.operations > 0
            assert result.errors == {}
    found = Report.load(report.save(tmp_path))
    assert [row.case for row in found.rows] == ["0% reads", "50% reads"]
    assert all(row.histogram().count > 0 and row.median("errors") == 0 for row in found.rows)


def test_a_load_may_end_when_something_else_does():
    """With every answer's time, which may be more than a pipe takes at once."""
    called = []

    def meanwhile() -> None:
        called.append([status(cluster.processes.nodes[1]) for _ in range(50)])

    with RaftkvCluster(1) as cluster:
        spec = LoadSpec(
            target=Target.RAFTKV,
            addresses=cluster.addresses(leader=True),
            outstanding=100,
            reads=1.0,
            read=Read.STALE,
            warmup_s=0.0,
            seconds=100.0,
            timeline=True,
        )
        result = run_load(spec, meanwhile)
    assert len(called) == 1
    assert result.seconds < 100
    assert len(result.answered_ns) == len(result.due_ns) == result.operations > 0


def test_a_load_that_cannot_connect_says_so():
    """Instead of reporting no throughput."""
    (port,) = free_ports(1)
    with pytest.raises(LoadFailed, match="ConnectionRefused"):
        run_load(LoadSpec(target=Target.RAFTKV, addresses=[f"127.0.0.1:{port}"]))
