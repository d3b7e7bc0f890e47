"""The guard of costs: by what a put is compared with what it cost, and where it is not."""

from __future__ import annotations

import pytest

from benchmarks.report import Report
from benchmarks.suite import Run
from benchmarks.suites.cpu import COLUMNS, ETCD, LOOPS, within

CASE = "64 × 1"


def report(*, us: float, loop_us: float, etcd_us: float | None = None, others: float = 0.1) -> Report:
    """One case, measured once."""
    found = Run(quick=True, peers=[]).report("cpu", "costs", COLUMNS)
    for who, cost in (("raftkv", us), ("etcd", etcd_us)):
        if cost is not None:
            figures = {"total_us": cost, "per_loop": cost / loop_us, "others": others}
            found.add(CASE, who, {**{column.name: 1.0 for column in COLUMNS}, **figures})
    return found


KEPT = report(us=500, loop_us=2.0, etcd_us=600)


@pytest.mark.parametrize(
    ("found", "unit"),
    [
        (report(us=600, loop_us=2.0), None),
        (report(us=700, loop_us=2.0), LOOPS),
        (report(us=700, loop_us=2.4), None),
        (report(us=700, loop_us=2.0, others=0.5), None),
        (report(us=300, loop_us=0.7), None),
        (report(us=3_000, loop_us=6.0), None),
        (report(us=300, loop_us=0.7, etcd_us=250), ETCD),
        (report(us=300, loop_us=0.7, etcd_us=300), None),
        (report(us=700, loop_us=2.0, etcd_us=700), None),
    ],
)
def test_a_put_is_judged_by_etcd_else_by_a_loop_that_is_as_quick_as_it_was(found, unit):
    """On another kind of machine a loop and a put are not quicker alike, so nothing is said there without etcd."""
    problems = within(KEPT, found)
    assert len(problems) == (unit is not None)
    assert unit is None or unit in problems[0]
