"""The kept ledger of campaigns: what is taken from the tools' own, and what the README says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.campaign.campaign import Campaign
from tests.campaign.ledger import (
    BEGIN,
    END,
    FAULTS,
    ChaosRun,
    NotToKeep,
    WorldsRun,
    add,
    kept_runs,
    tables,
    with_tables,
)
from tests.chaos.kills import LeaderKilled, NodesKilled
from tests.chaos.kinds import QUOTAS

ROOT = Path(__file__).parents[2]


def chaos_line(**more: Any) -> dict[str, Any]:
    """Of `tools/chaos`, as far as it is looked at."""
    line = {
        "ended": "2026-01-02T03:04:05Z",
        "version": "abc1234",
        "seed": 5,
        "seconds": 1260,
        "load_max": 3.5,
        "scenes": 30,
        "operations": 40_000,
        "losses": 0,
        "fired": {LeaderKilled.kind: 7, NodesKilled.kind: 8, "something else": 9},
        "unmet": {"pauses": [90, 100]},
        "failed": [],
    }
    return {**line, **more}


def worlds_line(first: int, worlds: int, **more: Any) -> dict[str, Any]:
    """Of `tools/soak`: what `Campaign.next_batch` says, and when and of which code."""
    batch = Campaign(first, 1.0, 1).next_batch()
    told = {"worlds": worlds, "virtual_s": 1800, "operations": 100, "ended": "2026-01-01T00:00:00Z"}
    return {"version": "abc1234", **batch, **told, **more}


def written(path: Path, *lines: dict[str, Any]) -> Path:
    """A ledger of these lines, one behind the other."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_readme_has_the_tables_of_the_kept_ledger() -> None:
    """Nobody writes them by hand: `tools/ledger` does."""
    readme = (ROOT / "README.md").read_text()
    assert with_tables(readme, kept_runs()) == readme, "run tools/ledger"


def test_runs_are_kept_once_and_batches_that_go_on_are_one(tmp_path: Path) -> None:
    """A line of chaos is kept short; worlds of one commit with consecutive seeds are one line."""
    kept = tmp_path / "kept.jsonl"
    told = [worlds_line(0, 3), worlds_line(3, 4, failed=[5]), worlds_line(7, 1, version="other"), chaos_line()]
    ledger = written(tmp_path / "ledger.jsonl", *told)
    new = add([ledger], kept)
    assert add([ledger], kept) == [] and kept_runs(kept) == new
    first, other, chaos = new
    assert isinstance(first, WorldsRun) and isinstance(other, WorldsRun) and isinstance(chaos, ChaosRun)
    assert (first.first, first.worlds, first.virtual_s, first.failed) == (0, 7, 3600, [5])
    assert (other.commit, other.first) == ("other", 7)
    assert chaos.faults == {**dict.fromkeys(FAULTS, 0), "kills": 15}
    assert chaos.owed == {"pauses": (90, 100)}
    longer = written(ledger, *told[:2], worlds_line(7, 2))
    assert [run.worlds for run in add([longer], kept) if isinstance(run, WorldsRun)] == [9]
    assert [run.worlds for run in kept_runs(kept) if isinstance(run, WorldsRun)] == [9, 1]


@pytest.mark.parametrize("version", ["abc1234-dirty", ""])
def test_a_run_of_no_commit_is_not_kept(tmp_path: Path, version: str) -> None:
    """What was run can't be looked at again; nothing else of that file is kept then."""
    ledger = written(tmp_path / "ledger.jsonl", chaos_line(), worlds_line(0, 1, version=version))
    with pytest.raises(NotToKeep, match="is of no commit: commit, run again"):
        add([ledger], tmp_path / "kept.jsonl")
    assert not (tmp_path / "kept.jsonl").exists()


def test_the_tables_add_up_by_commit(tmp_path: Path) -> None:
    """A row for each commit, and one for all of several; what is owed is by the last run, if it was asked for all."""
    later = chaos_line(version="def5678", unmet={}, failed=[1, 2], losses=3)
    some = chaos_line(version="xyz9999", unmet={}, only=["pause"])
    lines = [chaos_line(), chaos_line(seed=6), later, some, worlds_line(0, 3)]
    runs = add([written(tmp_path / "ledger.jsonl", *lines)], tmp_path / "kept.jsonl")
    text = tables(runs)
    assert (
        "| abc1234 | 2026-01-02 | 42 | 3.5 | 60 | 30 | " in text
        and "| 80,000 | 0 | 0 | 1 quota, most of pauses: 90 of 100 |" in text
    )
    assert "| 40,000 | 3 | 2 | nothing |" in text and "| 0 | 0 | not asked |" in text
    assert "| abc1234 | 2026-01-01 | 3 | 0.5 | 100 | 0 |" in text
    assert "| all | 2026-01-02 | 84 | 3.5 | 120 | 60 | " in text


def test_tables_take_the_place_of_the_old_ones() -> None:
    """And of nothing else; without a place for them, the reason is said."""
    old = f"before\n{BEGIN}whatever\n{END}after\n"
    assert with_tables(old, []) == f"before\n{BEGIN}{tables([])}{END}after\n"
    with pytest.raises(NotToKeep, match="no place for the tables"):
        with_tables("before\nafter\n", [])


def test_what_is_owed_in_great_numbers_is_in_the_tables() -> None:
    """A quota of a kind that is counted under its name counts the same faults there."""
    for quota in QUOTAS:
        if quota.name in FAULTS:
            assert {*FAULTS[quota.name]} == {*quota.kinds.values(), *quota.also}
    assert {"kills", "partitions", "pauses", "malformed frames", "foreign files"} <= {quota.name for quota in QUOTAS}


def test_what_was_not_kept_of_an_old_run_is_no_zero(tmp_path: Path) -> None:
    """A kind of fault that is counted only since then has a dash for it; all runs together have what is known."""
    (old,) = add([written(tmp_path / "ledger.jsonl", chaos_line())], tmp_path / "kept.jsonl")
    assert isinstance(old, ChaosRun)
    known = {name: count for name, count in old.faults.items() if name != "survivors recovered"}
    new = msgspec.structs.replace(old, commit="def5678", faults={**old.faults, "survivors recovered": 4})
    rows = tables([msgspec.structs.replace(old, faults=known), new]).splitlines()
    column = rows[3].split(" | ").index("survivors recovered")
    assert [row.split(" | ")[column] for row in rows[5:8]] == ["–", "4", "4"]
