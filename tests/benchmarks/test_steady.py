"""What the steady load says of memory, open files and disk over time."""

from __future__ import annotations

import os

import pytest

from benchmarks.suites import steady
from benchmarks.suites.steady import Used


def test_the_slope_is_that_of_what_was_seen():
    """By the hour, whatever goes up and down in between; nothing follows from one point."""
    assert steady.hourly([(0.0, 100.0), (30.0, 150.0), (60.0, 100.0)]) == pytest.approx(0)
    assert steady.hourly([(0.0, 100.0), (60.0, 101.0), (120.0, 102.0)]) == pytest.approx(60)
    assert steady.hourly([(5.0, 7.0)]) == 0


def test_the_warm_up_does_not_count():
    """What grows only then is flat; what grows behind it is seen at first, at last, and by the hour."""
    seen = [Used(float(at), min(100.0, 5.0 * at), 40.0, 10.0 + at) for at in range(100)]
    assert steady.flatness(seen, "memory") == {"memory_first": 100, "memory_last": 100, "memory_hourly": 0}
    disk = steady.flatness(seen, "disk")
    assert disk["disk_last"] - disk["disk_first"] == 60
    assert disk["disk_hourly"] == pytest.approx(3600)
    assert steady.span(seen, "disk") == "disk 30 to 109"


def test_a_file_with_two_names_takes_the_disk_once(tmp_path):
    """Snapshots share their files with the state."""
    (tmp_path / "state").mkdir()
    first = tmp_path / "state" / "a"
    first.write_bytes(bytes(100_000))
    alone = steady.disk_bytes(tmp_path)
    os.link(first, tmp_path / "b")
    assert 100_000 <= alone == steady.disk_bytes(tmp_path)


def test_a_process_is_asked_for_all_three(tmp_path):
    """Of this one: it has some memory and some open files, and an empty directory takes next to nothing."""
    found = steady.used(os.getpid(), tmp_path, 1.0)
    assert found.at_s == 1 and found.memory > 1 and found.descriptors > 2 and found.disk == 0
