"""`raftkv replay` shows a world again, and what happened before it failed."""

from __future__ import annotations

import pytest

from raftkv.testing.judging.checks import Check, all_checks
from raftkv.testing.judging.failure import Cause, CounterExample
from raftkv.testing.trying.saved import save
from raftkv.testing.trying.script import Call, Fault, Script
from raftkv.worlds import simulation
from tests.cli.commands import error_of, invoke, value_of
from tests.testing.machines import Forgetful, Inventory, InventoryModel

SHORT = ("--virtual", "2", "--size", "3")


class NobodyCommitsMuch(Check):
    """A promise that no world keeps."""

    def look_at(self, node):
        assert node.raft.commit_index < 10, f"node {node.node_id} committed {node.raft.commit_index}"


@pytest.fixture
def broken(monkeypatch):
    """Worlds that fail."""
    monkeypatch.setattr(simulation, "all_checks", lambda: [*all_checks(), NobodyCommitsMuch()])


def test_a_world_that_keeps_its_promise_ends_with_0():
    """The verdict, then the diagram of its end."""
    result = invoke("replay", "7", *SHORT)
    assert result.exit_code == 0
    assert "seed 7 keeps its promise" in result.stdout
    assert "node 3" in result.stdout
    assert "commit" in result.stdout


@pytest.mark.usefixtures("broken")
def test_a_world_that_fails_ends_with_1_and_shows_its_end(tmp_path):
    """What was broken, by whom, and the last rows before it; the whole diagram in a file."""
    page = tmp_path / "world.html"
    result = invoke("replay", "7", *SHORT, "--html", str(page), "--rows", "12")
    assert result.exit_code == 1
    assert "NobodyCommitsMuch" in result.stdout
    assert "✓ commit 10" in result.stdout
    assert "✖ seed 7" in result.stdout.splitlines()[-3]
    text = page.read_text()
    assert "raftkv replay 7 --size 3 --virtual 2" in text
    assert "NobodyCommitsMuch" in text
    assert 'id="broken"' in text


@pytest.mark.usefixtures("broken")
def test_a_failure_says_how_to_see_it():
    """Whoever meets a failing seed finds the command in its text, with the options of that world."""
    with pytest.raises(simulation.Failure, match=r"raftkv replay 7 --size 3 --virtual 2 --html"):
        simulation.simulate(7, duration_s=2.0, size=3)


@pytest.mark.usefixtures("broken")
def test_json_holds_the_verdict_and_the_diagram():
    """For programs: one document."""
    result = invoke("replay", "7", *SHORT, "--json")
    value = value_of(result)
    assert result.exit_code == 1
    assert value["failed"] is True
    assert "NobodyCommitsMuch" in value["verdict"]
    assert value["happened"]["commit"] >= 1
    assert "✓ commit 10" in value["diagram"]
    assert 0 < value["at"] < 10


def test_a_window_of_the_world():
    """Any time of it can be looked at."""
    result = invoke("replay", "7", *SHORT, "--since", "1", "--until", "1.5", "--rows", "1000")
    times = [float(line.split()[0]) for line in result.stdout.splitlines() if line[:10].strip()[:1].isdigit()]
    assert times
    assert all(1 <= time <= 1.5 for time in times)


@pytest.mark.parametrize(("machine", "failed"), [(Inventory, False), (Forgetful, True)])
def test_a_saved_failure_is_played_again(tmp_path, machine, failed):
    """It still fails, or it was mended since; where it takes a cluster, the diagram shows calls and messages."""
    calls = (Call("receive", ("a", 2)), Call("receive", ("a", 4), client=2, at_ms=100))
    script = Script(seed=3, faults=(Fault("crash", at_ms=40, chance=5),), calls=calls)
    path = tmp_path / "failure.json"
    save(path, CounterExample(Cause.BROKEN, "as it was"), script, machine, InventoryModel, key="sku")
    page = tmp_path / "world.html"
    result = invoke("replay", str(path), "--rows", "2000", "--html", str(page))
    assert result.exit_code == failed
    assert page.read_text().rstrip().endswith("</html>")
    if failed:
        assert "receive('a', 4) gives 4, the model gives 6" in result.stdout
    else:
        assert "it does not fail any more" in result.stdout
        assert "2: receive(a, 4)" in result.stdout
        assert "✖ crash" in result.stdout


def test_what_is_neither_seed_nor_file_is_refused():
    """So that a typing error doesn't run another world."""
    result = invoke("replay", "no-such-file.json")
    assert result.exit_code == 2
    assert "neither a seed nor a file" in result.stderr


def test_a_file_that_is_no_failure_is_refused(tmp_path):
    """The text says what is wrong with it."""
    path = tmp_path / "other.json"
    path.write_text("{}")
    result = invoke("replay", str(path), "--json")
    assert result.exit_code == 2
    assert "is no saved failure" in error_of(result)["message"]


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    """With the reason, not a traceback."""
    result = invoke("replay", "7", *SHORT, "--html", str(tmp_path / "missing" / "world.html"))
    assert result.exit_code == 2
    assert "No such file or directory" in result.stderr
