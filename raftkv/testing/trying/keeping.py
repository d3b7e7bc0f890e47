"""Saves a failure: a file with which it can be run again, and a picture of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from raftkv.machine import StateMachine
from raftkv.testing.judging.failure import CounterExample
from raftkv.testing.tracing.diagram import text_diagram
from raftkv.testing.tracing.page import html_diagram
from raftkv.testing.trying.budget import chosen
from raftkv.testing.trying.replay import Replay, replay_file, replayed
from raftkv.testing.trying.saved import save
from raftkv.testing.trying.script import Script
from raftkv.testing.world.cluster import SimCluster

ROWS = 40
"""Of the diagram that a report shows; the page has all of it."""


def keep(error: CounterExample, script: Script, machine: type[StateMachine], model: type, key: str | None) -> None:
    """Save a failure under the name of the running test, and set `error.path`. Raises `OSError`."""
    path = _made(_path())
    save(path, error, script, machine, model, key)
    error.path = str(path)
    page = path.with_suffix(".html")
    page.unlink(missing_ok=True)  # that of an earlier failure
    if error.cause.needs_a_world:
        _draw(error, page)
    elif error.picture is not None:
        _draw_sides(error, f"raftkv replay {path}", page)


def _draw(error: CounterExample, page: Path) -> None:
    assert error.path is not None
    _draw_world(error, replay_file(error.path), page)


def _draw_world(error: CounterExample, played: Replay, page: Path) -> None:
    error.diagram = text_diagram(played.trace, until=played.at, rows=ROWS)
    drawn = html_diagram(
        played.trace, title=played.title, verdict=played.verdict, failed=played.failed, until=played.at
    )
    page.write_text(drawn, encoding="utf-8")
    error.page = str(page)


def draw(error: CounterExample, title: str, run: Callable[[Callable[[SimCluster], None]], None]) -> None:
    """Draw a failure that is not saved, as what it is of may have no name to be imported by.

    `run` runs its world again, and is given what observes that. Raises `OSError`.
    """
    if error.picture is None and not error.cause.needs_a_world:
        return
    page = _made(_path().with_suffix(".html"))
    page.unlink(missing_ok=True)
    if error.cause.needs_a_world:
        _draw_world(error, replayed(title, run), page)
    else:
        _draw_sides(error, title, page)


def _draw_sides(error: CounterExample, title: str, page: Path) -> None:
    assert error.picture is not None
    error.diagram = error.picture.text()
    page.write_text(error.picture.page(title, error.described), encoding="utf-8")
    error.page = str(page)


def _made(path: Path) -> Path:
    """A file in a directory that is there, and of which git wants to know nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.joinpath(".gitignore").write_text("*\n")
    return path


def _path() -> Path:
    """The file for a failure of the running test, which is the same every time."""
    name = os.environ.get("PYTEST_CURRENT_TEST", "fault_test").rpartition(" (")[0] or "fault_test"
    return Path(chosen.directory) / (re.sub(r"[^\w.-]+", "-", name.replace(".py::", "-")) + ".json")
