"""Recipes on real nodes whose leaders are killed: no job lost or done twice, no holder of a lock before the present."""

from __future__ import annotations

from pathlib import Path

from tests.campaign.large import CAMPAIGN
from tests.recipes.works import play


def test_jobs_and_locks_outlive_their_leaders(tmp_path: Path) -> None:
    """Leaders killed every three seconds for ten: each job is acknowledged once, whoever was paused with one is
    refused, and no lower token writes behind a higher one."""
    outcome = play(tmp_path, 10.0)
    assert outcome.problems() == []
    assert outcome.counts["leaders killed"] >= 2
    assert min(len(outcome.acked), len(outcome.effects), len(outcome.writes)) > 10
    assert outcome.counts["workers that came too late"] > 0


@CAMPAIGN
def test_jobs_and_locks_outlive_their_leaders_for_long(tmp_path: Path) -> None:
    """The same for a minute, in which stale tokens are tried, too."""
    outcome = play(tmp_path, 60.0)
    assert outcome.problems() == []
    assert outcome.counts["leaders killed"] >= 10
    assert outcome.counts["stale tokens refused"] > 0
