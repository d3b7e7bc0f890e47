"""One suite from end to end, with a real node and a load generator in a process of its own."""

from __future__ import annotations

from benchmarks.load.spec import LoadSpec, Target
from benchmarks.peers.raftkv import RaftkvCluster
from benchmarks.report import Report
from benchmarks.suite import LOAD_COLUMNS, Run


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
