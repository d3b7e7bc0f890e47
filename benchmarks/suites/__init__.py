"""The suites, in the order in which they are listed."""

from __future__ import annotations

from benchmarks.suite import Suite
from benchmarks.suites import (
    application,
    cpu,
    failover,
    goals,
    micro,
    reads,
    scale,
    snapshots,
    start,
    steady,
    syncobj,
    writes,
)

_ALL = (writes, cpu, reads, failover, snapshots, start, steady, scale, application, syncobj, micro, goals)

SUITES: dict[str, Suite] = {module.SUITE.name: module.SUITE for module in _ALL}
