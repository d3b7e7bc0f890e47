"""Saves a failure: a file with which it can be run again, and a diagram of its world."""

from __future__ import annotations

import os
import re
from pathlib import Path

from raftkv.machine import StateMachine
from raftkv.testing.judging.failure import CounterExample
from raftkv.testing.tracing.diagram import text_diagram
from raftkv.testing.tracing.page import html_diagram
from raftkv.testing.trying.budget import chosen
from raftkv.testing.trying.replay import replay_file
from raftkv.testing.trying.saved import save
from raftkv.testing.trying.script import Script

ROWS = 40
"""Of the diagram that a report shows; the page has all of it."""


def keep(error: CounterExample, script: Script, machine: type[StateMachine], model: type, key: str | None) -> None:
    """Save a failure under the name of the running test, and set `error.path`. Raises `OSError`."""
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.joinpath(".gitignore").write_text("*\n")
    save(path, error, script, machine, model, key)
    error.path = str(path)
    page = path.with_suffix(".html")
    page.unlink(missing_ok=True)  # that of an earlier failure
    if error.cause.needs_a_world:
        _draw(error, page)


def _draw(error: CounterExample, page: Path) -> None:
    assert error.path is not None
    played = replay_file(error.path)
    error.diagram = text_diagram(played.trace, until=played.at, rows=ROWS)
    drawn = html_diagram(
        played.trace, title=played.title, verdict=played.verdict, failed=played.failed, until=played.at
    )
    page.write_text(drawn, encoding="utf-8")
    error.page = str(page)


def _path() -> Path:
    """The file for a failure of the running test, which is the same every time."""
    name = os.environ.get("PYTEST_CURRENT_TEST", "fault_test").rpartition(" (")[0] or "fault_test"
    return Path(chosen.directory) / (re.sub(r"[^\w.-]+", "-", name.replace(".py::", "-")) + ".json")
