"""The table of what covers which fault says what is true."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from raftkv.testing.faults.nemesis import fault_kinds
from raftkv.testing.world.variety import VARIETIES
from raftkv.worlds.deposed import ASKED
from raftkv.worlds.filling import FILLED
from raftkv.worlds.idling import CUT_WHILE_IDLE
from raftkv.worlds.parting import PARTINGS
from raftkv.worlds.reminders import SCHEDULED
from raftkv.worlds.repeating import TURN
from raftkv.worlds.rights import RIGHTS
from raftkv.worlds.scanning import SCANNED
from raftkv.worlds.sightings import SIGHTINGS
from raftkv.worlds.tails import TAILS
from raftkv.worlds.watching import WATCHED
from raftkv.worlds.workload import ENCOUNTERS
from tests.campaign.coverage import FAULTS, KINDS, TESTS, by_kind, by_row, kinds_of, rows_of

ROOT = Path(__file__).parent.parent.parent
NAMED = [(row, test) for row, tests in TESTS.items() for test in tests]


def story_of(test):
    """The docstring of a test function, or the comment that opens a scenario."""
    path, _, name = test.partition("::")
    if not name:
        comment = (ROOT / path).read_text().partition("\n\n")[0]
        assert comment.startswith("# ")
        return comment
    assert len(stories(path).get(name, ())) == 1, f"{path} has no {name}"
    return stories(path)[name][0]


@cache
def stories(path):
    """The docstrings of a module's functions, by their names."""
    found = {}
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.setdefault(node.name, []).append(ast.get_docstring(node))
    return found


def test_the_rows_are_those_of_the_table():
    """In order, the first seventy-six without a gap, and no test or kind is of another one."""
    assert list(FAULTS) == sorted(FAULTS)
    assert {*range(1, 77)} <= {*FAULTS}
    assert {*TESTS} <= {*FAULTS}
    assert {row for rows in KINDS.values() for row in rows_of(rows)} <= {*FAULTS}


@pytest.mark.parametrize("row", FAULTS)
def test_every_row_is_covered(row):
    """By a kind of fault that worlds count, or by a test."""
    assert kinds_of(row) or TESTS.get(row)


@pytest.mark.parametrize(("row", "test"), NAMED)
def test_a_named_test_is_there_and_names_its_row(row, test):
    """A test that was renamed, or is about something else, covers nothing."""
    assert row in rows_of(story_of(test))


def test_each_kind_of_fault_says_for_which_rows_it_stands():
    """The table has every kind that there is, and no other; each stands for something."""
    others = {"lost unsynced changes", "founding cut off", "crash in a recovery", *SCANNED, *SCHEDULED, *WATCHED}
    others |= {*VARIETIES, *ENCOUNTERS, *SIGHTINGS, *PARTINGS, *TAILS, *FILLED, *RIGHTS, ASKED, CUT_WHILE_IDLE, TURN}
    assert {*fault_kinds(), *others} == set(KINDS)
    assert all(rows_of(rows) for rows in KINDS.values())


def test_rows_are_read_as_they_are_written():
    """Alone, in lists and in ranges; other words that look alike are none."""
    assert rows_of("F1-F3 F7, (F39–F41) F811x UTF8 0xF5") == [1, 2, 3, 7, 39, 40, 41]


def test_what_was_met_is_said_by_kind_and_by_row():
    """Kinds that met nothing are there too; each row has its kinds and its tests below it."""
    lines = list(by_kind({"rot": 1234}))
    assert [line.split()[0] for line in lines if " rot  " in line] == ["1,234"]
    assert len(lines) == len(KINDS)
    rows = "\n".join(by_row({"rot": 1234}))
    about = rows[rows.index("F9 ") : rows.index("F10 ")]
    assert "1,234  rot" in about
    assert TESTS[9][0] in about
