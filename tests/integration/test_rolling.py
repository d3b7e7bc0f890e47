"""Two versions of an application, and two releases of raftkv, on real nodes: node by node, there and back (F85)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.formats.before import Missing
from tests.rolling.story import BRIEF, BRIEF_RELEASES, play


def test_an_application_is_upgraded_node_by_node_under_load(tmp_path: Path) -> None:
    """F85: no client sees an error, all nodes have one state, and what was acknowledged is there, as upgraded."""
    outcome = play(tmp_path, BRIEF, seed=1, jobs=300, within_s=180)
    assert outcome.problems == [], "\n".join(outcome.table())
    assert {*outcome.by_version} == {1, 2}
    assert outcome.refused, "no client tried what is of the second version before it was active"
    assert outcome.pieces > 20


def test_raftkv_is_upgraded_node_by_node_and_back(tmp_path: Path) -> None:
    """From the release before and back to it, with logs and snapshots of both that go both ways (F85)."""
    try:
        outcome = play(tmp_path, BRIEF_RELEASES, seed=1, jobs=300, within_s=180)
    except Missing as exc:
        pytest.skip(str(exc))
    assert outcome.problems == [], "\n".join(outcome.table())
    assert outcome.installed, "no node needed a snapshot of another"
    assert outcome.refused, "a later version of the application became active, which nobody installed"
