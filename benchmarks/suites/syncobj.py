"""PySyncObj's programming model on raftkv, beside PySyncObj itself: the same program, nodes of three processes."""

from __future__ import annotations

from benchmarks import syncobj
from benchmarks.report import Column, Report
from benchmarks.suite import Run, Suite

TITLE = "SyncObj: replicated calls with 256 bytes, made in the leader's process"
COLUMNS = [
    Column("throughput", "calls/s", "higher"),
    Column("p50_ms", "median ms", "lower", 2),
    Column("errors", "errors", "lower"),
]
WHO = {
    "raftkv": "raftkv",
    "pysyncobj-synced": "pysyncobj, syncing",
    "pysyncobj-synced-nobatch": "pysyncobj, syncing, no batches",
    "pysyncobj": "pysyncobj, no fsync",
    "pysyncobj-nobatch": "pysyncobj, no fsync, no batches",
}


def rivals(run: Run) -> list[str]:
    """Who is measured."""
    return list(syncobj.RIVALS) if "pysyncobj" in run.peers else ["raftkv"]


def measure(run: Run) -> Report:
    """Each with a cluster of its own for each repeat, in turn."""
    report = run.report("syncobj", TITLE, COLUMNS)
    for repeat in range(run.repeats):
        for rival in rivals(run):
            run.step(f"{WHO[rival]}, {repeat + 1} of {run.repeats}")
            for outstanding, (rate, median_ms, failed) in syncobj.run(rival, run.seconds).items():
                figures = {"throughput": rate, "p50_ms": median_ms, "errors": float(failed)}
                row = report.add(f"{outstanding:,} outstanding", WHO[rival], figures)
                row.x = outstanding
    report.rows.sort(key=lambda row: row.x or 0)
    report.notes.append("without batches is PySyncObj's appendEntriesUseBatch=False; the better of the two counts")
    report.notes.append("without fsync, a power cut loses what it has acknowledged")
    return report


SUITE = Suite("syncobj", TITLE, measure, lambda run: run.repeats * len(rivals(run)))
