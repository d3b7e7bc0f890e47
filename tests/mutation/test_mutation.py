"""Generated mutants: what is changed, what is not, and that a hole in tests is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cosmic_ray", reason="comes with the extra `dev`")
pytest.importorskip("coverage", reason="comes with the extra `dev`")

from tests.mutation.layers import LAYERS
from tests.mutation.mutations import mutants_of
from tests.mutation.table import Table

ROOT = Path(__file__).parent.parent.parent

ROOMS = '''"""Rooms."""

SEATS_MAX = 4


def may_enter(inside: int, seats: int | None = 3) -> bool:
    """Whether one more may come in."""
    assert inside >= 0, f"{inside + 1} of them"
    if inside > 100:
        raise ValueError("too many, more than", 100)
    return inside < SEATS_MAX


class Door:
    """A door."""

    def shut(self, log: list[str]) -> None:
        """Shut, and then lock."""
        log.append("shut")
        log.append("locked")

    def wait(self, log: list[str]) -> None:
        while log:
            log.pop()
'''

TESTS = '''"""Tests."""

from rooms import Door, may_enter


def test_many_may_not_enter():
    """Far from the bound."""
    assert may_enter(0)
    assert not may_enter(9)


def test_a_door():
    """In this order."""
    log = []
    Door().shut(log)
    assert log == ["shut", "locked"]
    Door().wait(log)
    assert not log
'''


@pytest.fixture
def rooms(tmp_path):
    """A small program with tests that have a hole."""
    (tmp_path / "rooms.py").write_text(ROOMS)
    (tmp_path / "test_rooms.py").write_text(TESTS)
    return tmp_path


def test_only_what_functions_do_is_changed(rooms):
    """Not what is said, what types say, what is asserted, nor what happens at import."""
    found = mutants_of(rooms, "rooms.py")
    assert {mutant.function for mutant in found} == {"may_enter", "Door.shut", "Door.wait"}
    assert {mutant.old for mutant in found if mutant.function == "may_enter"} == {
        "if inside > 100:", "raise ValueError(\"too many, more than\", 100)", "return inside < SEATS_MAX",
    }  # fmt: skip
    assert ("return inside < SEATS_MAX", "return inside <= SEATS_MAX") in {(m.old, m.new) for m in found}
    assert ('log.append("shut") ⏎ log.append("locked")', 'log.append("locked") ⏎ log.append("shut")') in {
        (mutant.old, mutant.new) for mutant in found
    }
    assert all(mutant.code() is not None for mutant in found)
    assert len({mutant.key for mutant in found}) == len(found)


def test_what_an_operator_cannot_change_is_left_out(rooms):
    """Of several exceptions, Cosmic Ray replaces names only, and raises an error of its own for others."""
    lines = [
        "def tried(door):",
        "    try:",
        "        door.shut()",
        "    except (ValueError, door.Shut):",
        "        return 1",
    ]
    (rooms / "rooms.py").write_text("\n".join([ROOMS, "", *lines, ""]))
    assert "tried" in {mutant.function for mutant in mutants_of(rooms, "rooms.py")}


def test_a_mutant_keeps_its_key_when_its_line_moves(rooms):
    """What was argued about it stays with it."""
    before = {mutant.key for mutant in mutants_of(rooms, "rooms.py")}
    (rooms / "rooms.py").write_text(ROOMS.replace("SEATS_MAX = 4\n", "SEATS_MAX = 4\nDOORS = 2\n\n\n"))
    assert {mutant.key for mutant in mutants_of(rooms, "rooms.py")} == before


def tried(rooms):
    """What became of each mutant, in lines."""
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.mutation.mutations import mutants_of\n"
        "from tests.mutation.running import in_a_process\n"
        f"root = Path({str(rooms)!r}); (root / 'scratch').mkdir()\n"
        "for v in in_a_process(root, ['test_rooms.py'], mutants_of(root, 'rooms.py'), root / 'scratch', jobs=2):\n"
        "    print(v.mutant.old, '→', v.mutant.new, '|', v.killed_by, '|', v.hangs)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_holes_are_found_and_nothing_else(rooms):
    """The bound itself is not tested; what never happens in the tests is not, either; a loop without end is noticed."""
    verdicts = dict(line.split(" | ", 1) for line in tried(rooms).splitlines() if " | " in line)
    survivors = {change for change, verdict in verdicts.items() if verdict.startswith("None")}
    raising = 'raise ValueError("too many, more than", 100)'
    assert survivors == {
        "return inside < SEATS_MAX → return inside <= SEATS_MAX",
        "if inside > 100: → if inside > 101:",
        "if inside > 100: → if inside > 99:",
        "if inside > 100: → if inside >= 100:",
        f"{raising} → pass",
    }
    shut, locked = ('log.append("shut")', 'log.append("locked")')
    assert verdicts[f"{shut} ⏎ {locked} → {locked} ⏎ {shut}"] == "test_rooms.py::test_a_door | False"
    assert (
        verdicts["return inside < SEATS_MAX → return inside >= SEATS_MAX"]
        == "test_rooms.py::test_many_may_not_enter | False"
    )
    assert verdicts["log.pop() → pass"] == "test_rooms.py::test_a_door | True"


def test_what_only_a_forked_child_runs_is_tried_with_all_tests_of_its_module(rooms):
    """Nobody measures there, but a test may well look at what the child does."""
    forking = [
        "import os",
        "from rooms import Door, may_enter",
        "def test_a_child():",
        '    """It opens the door."""',
        "    assert may_enter(0)",
        "    pid = os.fork()",
        "    if not pid:",
        "        log = []",
        "        Door().shut(log)",
        '        os._exit(log != ["shut", "locked"])',
        "    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0",
    ]
    (rooms / "test_rooms.py").write_text("\n".join([*forking, ""]))
    assert 'log.append("locked") → pass | test_rooms.py::test_a_child' in tried(rooms)


def test_the_table_keeps_arguments_and_forgets_code_that_is_gone(rooms):
    """What is equivalent stays so when its tests are run again; an argument is a must."""
    first, second, *_ = mutants_of(rooms, "rooms.py")
    table = Table(rooms / "table.tsv")
    table.note(first, "equivalent", "nobody looks")
    table.note(first, "survived", "")
    table.note(second, "killed", "test_rooms.py::test_a_door")
    table.write()
    again = Table(rooms / "table.tsv")
    assert again.rows == table.rows
    assert again.verdict(first) == "equivalent"
    again.keep({first.key}, {"rooms.py"})
    assert set(again.rows) == {first.key}
    (rooms / "table.tsv").write_text((rooms / "table.tsv").read_text().replace("nobody looks", ""))
    with pytest.raises(SystemExit, match="say why"):
        Table(rooms / "table.tsv")


def test_the_layers_are_there():
    """Modules and tests of each exist, and no module is changed twice."""
    seen = [path for layer in LAYERS for path in layer.paths(ROOT)]
    assert len(seen) == len(set(seen))
    for layer in LAYERS:
        assert layer.paths(ROOT), layer.name
        assert all((ROOT / test).exists() for test in layer.tests), layer.name


def test_the_table_of_the_tree_is_whole():
    """Every row has a verdict, those that are equivalent an argument, and modules that are there."""
    for row in Table(ROOT / "tools" / "mutants.d" / "generated.tsv").rows.values():
        assert (ROOT / row.path).exists(), row.path
