"""Percentiles are right, and survive being written down and added up."""

from __future__ import annotations

import math
import random

import pytest

from benchmarks.latency import HIGHEST_NS, LOWEST_NS, Latencies

MS = 1_000_000


def exact(values: list[int], percentile: float) -> int:
    """The smallest value that so many percent don't exceed, by sorting."""
    return sorted(values)[max(0, math.ceil(len(values) * percentile / 100) - 1)]


@pytest.mark.parametrize("percentile", [0.1, 50, 90, 99, 99.9, 100])
def test_percentiles_are_those_of_the_sorted_values(percentile):
    """Within the three digits that are kept, for values over five orders of magnitude."""
    chance = random.Random(1)
    values = [round(10 ** chance.uniform(5, 9)) for _ in range(5_000)]
    found = Latencies.of(values)
    assert found.percentile_ms(percentile) * MS == pytest.approx(exact(values, percentile), rel=0.002)


def test_percentiles_of_known_values():
    """1 to 1,000 ms: the 99th percentile is 990 ms, not 1,000."""
    found = Latencies.of(number * MS for number in range(1, 1_001))
    assert found.count == 1_000
    assert found.percentile_ms(50) == pytest.approx(500, rel=0.002)
    assert found.percentile_ms(99) == pytest.approx(990, rel=0.002)
    assert found.figures()["max_ms"] == pytest.approx(1_000, rel=0.002)


def test_adding_up_is_the_same_as_recording_together():
    """Two halves, one of them through its text form, make the whole."""
    chance = random.Random(2)
    values = [chance.randrange(1_000, 50 * MS) for _ in range(2_000)]
    first, second = Latencies.of(values[:700]), Latencies.of(values[700:])
    first.merge(Latencies.from_text(second.to_text()))
    assert first.figures() == Latencies.of(values).figures()
    assert first.count == len(values)


def test_what_is_out_of_range_counts_as_the_end_of_it():
    """A latency is never dropped for being too long."""
    found = Latencies.of([1, 10 * HIGHEST_NS])
    assert found.count == 2
    assert found.percentile_ms(50) == pytest.approx(LOWEST_NS / MS, abs=0.0005)
    assert found.percentile_ms(100) == pytest.approx(HIGHEST_NS / MS, rel=0.002)


def test_nothing_recorded_is_nothing():
    """No division by nothing, also after a round trip."""
    assert Latencies.from_text(Latencies().to_text()).count == 0
    assert Latencies.from_text("").percentile_ms(99) == 0.0
