"""The golden scenarios: every script runs, holds what it expects, and prints what it printed before."""

from __future__ import annotations

import pytest

from tests.core.harness.goldens import FOLDER, run

SCRIPTS = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scenario(path):
    """The script's opening comment says what it shows."""
    text = path.read_text()
    assert text.startswith("# "), "a script opens with its story"
    assert "expect" in text or "refused" in text or "violation" in text, "a script must demand something"
    assert run(text, path.name) == text, "the trace has changed: tools/goldens rewrites it, if you can explain why"


def test_there_are_enough_scenarios():
    """At least sixty, so that none is lost unnoticed."""
    assert len(SCRIPTS) >= 60
