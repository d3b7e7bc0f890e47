"""Reports: saved, read again, compared; and what the command line lists."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from rich.console import Console

from benchmarks import machine
from benchmarks.__main__ import main
from benchmarks.latency import Latencies
from benchmarks.report import Column, Report, change, compare
from benchmarks.suites import SUITES

COLUMNS = [Column("throughput", "operations/s", "higher"), Column("p99_ms", "p99 ms", "lower", 2)]


def sample(factor: float = 1.0) -> Report:
    """Two systems, three repeats."""
    report = Report("writes", "Writes", machine.describe(), "2026-01-01T00:00:00+00:00", False, 3, 1, COLUMNS)
    for throughput in (100.0, 900.0, 200.0):
        report.add("1 × 1", "raftkv", {"throughput": throughput * factor, "p99_ms": 2.0}, Latencies.of([2_000_000]))
        report.add("1 × 1", "etcd", {"throughput": 50.0, "p99_ms": 4.0})
    return report


def shown(table) -> str:
    """As it is printed."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_a_report_is_the_same_after_it_was_saved(tmp_path):
    """Every figure of every repeat, the histograms, and the machine are in the file."""
    report = sample()
    assert Report.load(report.save(tmp_path)) == report
    assert Report.load(tmp_path / "writes.json").row("1 × 1").histogram().count == 3


def test_the_table_shows_medians_and_ratios():
    """200 is the median of 100, 900, 200, and four times what etcd has."""
    text = shown(sample().table())
    assert "200" in text
    assert "900" not in text
    assert "4.00×" in text


def test_a_comparison_names_each_change():
    """Half the throughput is worse; what did not change has no verdict."""
    text = shown(compare(sample(), sample(0.5)))
    assert "-50 % worse" in text
    assert "+0 %" in text


@pytest.mark.parametrize(
    ("better", "was", "now", "said"),
    [
        ("higher", 100, 120, "+20 % better"),
        ("lower", 100, 120, "+20 % worse"),
        ("lower", 100, 50, "-50 % better"),
        ("", 100, 120, "+20 %"),
        ("higher", 1_000, 1_001, "+0 %"),
        ("higher", 0, 5, ""),
    ],
)
def test_what_is_better_depends_on_the_column(better, was, now, said):
    """More throughput is better, more latency is worse, and a column may not care."""
    assert change(Column("x", "x", better), was, now) == said


def test_a_file_that_is_no_report_is_refused(tmp_path):
    """With its name in the message."""
    path = tmp_path / "other.json"
    path.write_text('{"suite": 1}')
    with pytest.raises(ValueError, match=r"other\.json"):
        Report.load(path)


def test_without_a_suite_the_suites_are_listed():
    """Every one of them, and nothing runs."""
    done = CliRunner().invoke(main, [])
    assert done.exit_code == 0
    assert all(name in done.output for name in SUITES)


def test_an_unknown_suite_is_refused():
    """With the names of those that there are."""
    done = CliRunner().invoke(main, ["everything"])
    assert done.exit_code == 2
    assert "writes" in done.output
