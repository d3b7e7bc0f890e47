"""What suites make of what they measured: silences, goals, and which cases there are."""

from __future__ import annotations

import pytest

from benchmarks.report import OURS, Report
from benchmarks.suite import LOAD_COLUMNS, Run
from benchmarks.suites import SUITES, cpu, failover, goals, micro, scale, writes

MS = 1_000_000


def every(interval_ms: int, begin_ms: int, end_ms: int) -> list[int]:
    """Answers at even distances."""
    return [time * MS for time in range(begin_ms, end_ms, interval_ms)]


def test_the_silence_is_the_longest_gap_around_the_fault():
    """Gaps before the fault, and long after it, are somebody else's."""
    answered = [*every(2, 0, 1_000), *every(2, 1_400, 3_000), *every(2, 3_120, 9_000), *every(2, 9_900, 10_000)]
    assert failover.silence_ms(answered, 1_000 * MS) == pytest.approx(402)
    assert failover.silence_ms(answered, 3_000 * MS) == pytest.approx(122)
    assert failover.silence_ms(answered, 5_000 * MS) == pytest.approx(2)


def test_the_timeline_has_the_rate_before_and_nothing_in_the_gap():
    """500 answers a second, but for 400 ms after the fault."""
    answered = [*every(2, 0, 1_000), *every(2, 1_400, 6_000)]
    points = dict(failover.timeline(answered, [1_000 * MS]))
    quiet = [rate for since, rate in points.items() if 0.0 <= since < 0.39]
    busy = [rate for since, rate in points.items() if since < -0.03 or since > 0.5]
    assert set(quiet) == {0.0}
    assert all(rate == pytest.approx(500, abs=50) for rate in busy)


def report_of(ours: list[float], theirs: list[float]) -> Report:
    """Throughputs of a case, by repeat."""
    report = Run(repeats=len(ours)).report("writes", "Writes", LOAD_COLUMNS)
    for mine, its in zip(ours, theirs, strict=True):
        report.add("case", OURS, {"throughput": mine})
        report.add("case", "etcd", {"throughput": its})
    return report


def test_a_ratio_is_the_median_of_the_repeats_ratios():
    """A minute in which the machine was slow for both counts as what it was: no change of the ratio."""
    table = goals.Table(Run().report("goals", "Goals", goals.COLUMNS))
    goal = goals.Goal("times etcd's", 3)
    table.ratio(goal, report_of([400, 40, 390], [100, 10, 10]), "case", "etcd")
    row = table.report.row(goal.case)
    assert row.median("measured") == 4
    assert row.median("met") == 1


@pytest.mark.parametrize(
    ("at_least", "measured", "met"), [(True, 2.9, 0), (True, 3, 1), (False, 3, 1), (False, 3.1, 0)]
)
def test_a_goal_is_met_on_its_own_side(at_least, measured, met):
    """The limit itself is within."""
    table = goals.Table(Run().report("goals", "Goals", goals.COLUMNS))
    goal = goals.Goal("what", 3, at_least)
    table.enter(goal, measured)
    assert table.report.row(goal.case).median("met") == met


def test_a_goal_without_a_peer_is_neither_met_nor_missed():
    """It says so instead."""
    table = goals.Table(Run().report("goals", "Goals", goals.COLUMNS))
    goal = goals.Goal("times nobody's", 3)
    table.ratio(goal, report_of([1], [1]), "case", "nobody")
    assert table.report.row(goal.case).median("met") is None
    assert "nobody" in table.report.row(goal.case).note


def test_only_picks_cases_by_their_names():
    """For a look at one of them."""
    run = Run(only="64 ×")
    found = [shape.connections for _, each in writes.cases(run) for shape, _ in each]
    assert found
    assert set(found) == {64}


@pytest.mark.parametrize("quick", [True, False])
def test_every_suite_knows_how_long_it_is(quick):
    """The progress has an end, with and without peers."""
    for suite in SUITES.values():
        assert suite.steps(Run(quick=quick)) >= suite.steps(Run(quick=quick, peers=())) > 0


def test_cases_have_names_of_their_own():
    """Two cases of one name would be one row."""
    assert len({point.case for point in scale.points(Run())}) == len(scale.points(Run()))
    names = [writes.case_name(*each, nodes) for nodes, found in writes.cases(Run()) for each in found]
    assert len(set(names)) == len(names)


def test_parts_are_measured_by_themselves():
    """One part of each kind gives a rate."""
    for name in ("core: entries, batches of 100", "log: entries synced, batches of 1", "wire: requests made and read"):
        figures = micro.parts(Run(quick=True, only=name))[name]()
        assert figures["per_s"] > 0
        assert figures["us"] == pytest.approx(1e6 / figures["per_s"])


def costs_of(*per_loop: float, others: float = 0.0, etcd_us: float | None = None) -> Report:
    """What a case costs, by repeat, at two microseconds a loop."""
    report = Run().report("cpu", "CPU", cpu.COLUMNS)
    for each in per_loop:
        report.add("1 × 1", OURS, {"per_loop": each, "total_us": 2 * each, "others": others})
        if etcd_us is not None:
            report.add("1 × 1", "etcd", {"per_loop": 1.0, "total_us": etcd_us, "others": others})
    return report


def test_a_put_that_costs_much_more_than_it_did_is_named():
    """The cheapest repeats are compared; cases that are not kept, are not."""
    kept = costs_of(100.0, 130.0)
    assert cpu.within(kept, costs_of(400.0, 124.0)) == []
    assert cpu.within(kept, costs_of(126.0, 128.0)) == ["1 × 1: 126.00 loops a put, 1.26 times the 100.00 before"]
    assert cpu.within(Run().report("cpu", "CPU", cpu.COLUMNS), costs_of(500.0)) == []


def test_a_put_is_compared_with_etcds_where_both_runs_have_it():
    """Then a machine on which everything has become dearer is no step back, and one that is quicker hides none."""
    kept = costs_of(100.0, etcd_us=200.0)
    assert cpu.within(kept, costs_of(200.0, etcd_us=400.0)) == []
    assert cpu.within(kept, costs_of(90.0, etcd_us=100.0)) == [
        "1 × 1: 1.80 times etcd's a put, 1.80 times the 1.00 before"
    ]
    assert len(cpu.within(kept, costs_of(200.0))) == 1


def test_what_was_measured_beside_other_work_is_not_judged():
    """It costs more, whatever the code is."""
    kept = costs_of(100.0, etcd_us=200.0)
    assert cpu.within(kept, costs_of(900.0, others=0.3)) == []
    assert cpu.within(kept, costs_of(900.0, others=0.3, etcd_us=100.0)) == []


def test_the_kept_costs_are_of_all_shapes():
    """What CI compares with."""
    kept = Report.load(cpu.KEPT)
    assert {row.case for row in kept.rows if row.who == OURS} == {
        writes.case_name(shape, cpu.VALUE_BYTES, cpu.NODES) for shape in cpu.SHAPES
    }
    assert all(min(row.figures["per_loop"]) > 1 for row in kept.rows)
