"""An application with two versions on real nodes: node by node, back and forward again, with leaders killed (F85)."""

from __future__ import annotations

from pathlib import Path

from tests.rolling.story import BRIEF, play


def test_an_application_is_upgraded_node_by_node_under_load(tmp_path: Path) -> None:
    """F85: no client sees an error, all nodes have one state, and what was acknowledged is there, as upgraded."""
    outcome = play(tmp_path, BRIEF, seed=1, jobs=300, within_s=180)
    assert outcome.problems == [], "\n".join(outcome.table())
    assert {*outcome.by_version} == {1, 2}
    assert outcome.refused, "no client tried what is of the second version before it was active"
    assert outcome.pieces > 20
