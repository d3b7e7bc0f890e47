"""The board of known bugs is up to date; that the tests notice each of them is what `tools/mutants` shows."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BOARDS = {path.stem: tomllib.loads(path.read_text()) for path in sorted((ROOT / "tools" / "mutants.d").glob("*.toml"))}
MUTANTS = [(layer, mutant) for layer, board in BOARDS.items() for mutant in board["mutant"]]


@pytest.mark.parametrize(("layer", "mutant"), MUTANTS, ids=lambda each: each if isinstance(each, str) else each["name"])
def test_a_mutant_changes_the_code_as_it_is(layer, mutant):
    """Its text is there exactly once, what comes of it is still Python, and its tests exist."""
    text = (ROOT / mutant["file"]).read_text()
    assert text.count(mutant["old"]) == 1
    changed = text.replace(mutant["old"], mutant["new"])
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text)), "it changes nothing"
    for path in mutant.get("tests", BOARDS[layer].get("tests", [])):
        assert (ROOT / path).exists(), path
    assert mutant["faults"].startswith("F")


def test_every_layer_has_mutants_and_no_name_is_used_twice():
    """From the log to the clients, each layer has some; a name is what one asks for."""
    counts = Counter(layer for layer, _ in MUTANTS)
    layers = {
        "access",
        "core",
        "log",
        "recovery",
        "disk",
        "snapshot",
        "sessions",
        "tables",
        "schema",
        "versions",
        "upgrade",
        "timers",
        "expiring",
        "history",
        "node",
        "members",
        "client",
        "listener",
        "polls",
        "transport",
        "judging",
        "parts",
        "recipes",
        "lineages",
        "jobs",
    }
    assert set(counts) == layers
    assert min(counts.values()) >= 5
    assert len({mutant["name"] for _, mutant in MUTANTS}) == len(MUTANTS) >= 60
