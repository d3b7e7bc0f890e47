"""How patient faults and clients are with a machine that others use, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.slowness import CROWDED, SLOWNESS_MAX, running, slowness


@pytest.mark.parametrize(
    ("a_core", "times"), [(0.1, 1.0), (CROWDED, 1.0), (2 * CROWDED, 2.0), (100 * CROWDED, SLOWNESS_MAX)]
)
def test_patience_grows_with_the_load_of_others(monkeypatch: pytest.MonkeyPatch, a_core: float, times: float) -> None:
    """What a run's own scenes make is no reason for patience, and there is an end to it."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("os.getloadavg", lambda: (2 * a_core, 0.0, 0.0))
    assert slowness() == pytest.approx(times)


def test_what_runs_just_now_is_seen_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The load of the last minute would take seconds to show what has only just begun; who asks does not count."""
    place = tmp_path / "loadavg"
    place.write_text("0.21 0.30 0.25 9/310 4711\n")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("tests.chaos.slowness.LOADAVG", place)
    assert running() == 4.0
    monkeypatch.undo()
    assert running() >= 0.0
