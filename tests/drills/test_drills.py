"""The drill book: what is counted, what the README says of it, and drills that are really done."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.drills.book import DRILLS, missing, play, play_ours
from tests.drills.drill import Drill
from tests.drills.result import BEGIN, END, NoPlace, Played, Way, keep, kept, table, with_table
from tests.drills.terminal import DrillFailed, Terminal

ROOT = Path(__file__).parents[2]
CHEAP = ("leader-killed", "leader-moved")


def nothing(_: object) -> None:
    """No drill."""


def test_the_readme_has_the_table_of_what_is_kept():
    """Nobody writes it by hand: `tools/drills` does."""
    readme = (ROOT / "README.md").read_text()
    assert with_table(readme, list(DRILLS.values()), kept()) == readme, "run tools/drills --table"


def test_every_drill_is_kept_and_none_takes_more_commands_than_etcds():
    """Twenty-five and more, each done with both systems but where etcd has no way."""
    found = kept()
    assert list(found) == list(DRILLS) and len(found) >= 25
    for name, played in found.items():
        assert (played.etcds is None) == (DRILLS[name].etcds is None)
        if played.etcds is not None:
            assert len(played.ours.typed) <= len(played.etcds.typed), f"{name}: {played.ours.typed}"


def test_what_is_kept_has_nothing_of_one_run():
    """Addresses are names, directories are the terminal's own: what changes between runs is what was typed, and how
    long it took."""
    for played in kept().values():
        for way in filter(None, (played.ours, played.etcds)):
            assert not [line for line in way.typed if re.search(r"127\.0\.0\.1|/tmp|pytest", line)]


@pytest.mark.parametrize("name", CHEAP)
def test_a_drill_is_done_and_takes_the_commands_that_are_kept(name, tmp_path):
    """With raftkv alone, on real nodes."""
    way = play_ours(DRILLS[name], tmp_path / "raftkv")
    assert len(way.typed) == len(kept()[name].ours.typed)
    assert 0 < way.seconds < 60


@pytest.mark.skipif(
    os.environ.get("DRILLS") != "1", reason="takes long, and etcd's part wants a calm machine: DRILLS=1"
)
@pytest.mark.parametrize("name", list(DRILLS))
def test_every_drill_is_done_beside_etcd(name, tmp_path):
    """With at most as many commands, each time."""
    drill = DRILLS[name]
    if (reason := missing(drill)) is not None:
        pytest.skip(reason)
    played = play(drill, tmp_path)
    assert played.etcds is None or len(played.ours.typed) <= len(played.etcds.typed)


@pytest.fixture
def terminal(tmp_path):
    """One in an empty directory, for which an address has a name."""
    with Terminal(tmp_path / "here", {"GREETING": "hello"}, {"127.0.0.1:12345": "10.0.0.1:7001"}) as terminal:
        yield terminal


def test_only_what_is_typed_between_trouble_and_relief_counts(terminal):
    """With names for addresses; time is counted as well."""
    terminal.type("echo", "before")
    terminal.trouble()
    assert terminal.type("sh", "-c", "echo $GREETING") == "hello\n"
    terminal.note("stop 127.0.0.1:12345")
    terminal.relief()
    seconds = terminal.seconds
    terminal.type("echo", "behind")
    terminal.relief()
    assert terminal.typed == ["sh -c 'echo $GREETING'", "stop 10.0.0.1:7001"]
    assert seconds is not None and 0 < seconds == terminal.seconds


def test_a_command_that_fails_fails_the_drill_unless_it_looks_for_something_wrong(terminal):
    """What it said is in the error, or comes back."""
    failing = (sys.executable, "-c", "import sys; sys.exit('no such thing')")
    with pytest.raises(DrillFailed, match="ended with 1: no such thing"):
        terminal.type(*failing)
    assert "no such thing" in terminal.complaint(*failing)
    assert terminal.complaint(sys.executable, "-c", "") is None


def test_output_goes_into_a_file_as_it_would_in_a_shell(terminal):
    """And the line says so."""
    terminal.trouble()
    terminal.type("echo", "x", into="out")
    assert (terminal.directory / "out").read_text() == "x\n" and terminal.typed == ["echo x > out"]


def test_a_drill_without_relief_has_failed(tmp_path):
    """It has shown nothing."""
    with pytest.raises(DrillFailed, match="raftkv came to no relief"):
        play_ours(Drill("idle", "nothing", nothing, None), tmp_path / "raftkv")


def test_what_is_played_again_takes_the_place_of_what_was_kept(tmp_path):
    """In the book's order; what is in the book no more goes."""
    path = tmp_path / "drills.json"
    first, second, gone = (Played(name, "2026-01-01", Way(["a"], 1.0), None) for name in ("first", "second", "gone"))
    keep([second, gone, first], ["first", "second", "gone"], path)
    assert list(kept(path)) == ["first", "second", "gone"]
    again = Played("second", "2026-01-02", Way(["b"], 2.0), Way(["c", "d"], 3.0))
    keep([again], ["second", "first"], path)
    assert kept(path) == {"second": again, "first": first}
    drills = [
        Drill("second", "it breaks", nothing, nothing, note="as it is"),
        Drill("first", "it ends", nothing, None, note="as it is"),
    ]
    text = table(drills, kept(path))
    assert "| it breaks (1) | 1 | 2.0 | 2 | 3.0 |\n| it ends (1) | 1 | 1.0 | – | – |\n" in text
    assert text.endswith("\n1. as it is.\n\n"), "a note of two drills is said once"
    assert with_table(f"a\n{BEGIN}old\n{END}b\n", drills, kept(path)) == f"a\n{BEGIN}{text}{END}b\n"
    with pytest.raises(NoPlace, match="no place"):
        with_table("a\n", drills, {})
