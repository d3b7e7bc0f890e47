"""`raftkv check`: its verdicts, and its exit codes."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from raftkv.cli import main

WRITE = """{:process 0, :type :invoke, :f :write, :value 1}
{:process 0, :type :ok, :f :write, :value 1}
{:process 1, :type :invoke, :f :read, :value nil}
"""
READ = "{:process 1, :type :ok, :f :read, :value 1}\n"
STALE = "{:process 1, :type :ok, :f :read, :value nil}\n"


@pytest.fixture
def check(tmp_path):
    """Runs the command on a history: its exit code, and what it printed."""

    def run(text, *options):
        path = tmp_path / "history.edn"
        if text is not None:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        result = CliRunner().invoke(main, ["check", str(path), *options])
        return result.exit_code, result.output

    return run


def test_a_linearizable_history(check):
    """Exit code 0."""
    assert check(WRITE + READ) == (0, "the history is linearizable, by each of its keys (1)\n")


def test_one_that_is_not(check):
    """Exit code 1, and what can't be true."""
    code, output = check(WRITE + STALE)
    assert code == 1
    assert output.splitlines()[-2:] == [
        "client 0: write 1 → None   ├────┤",
        "client 1: read → None                ├────┤",
    ]
    code, output = check(WRITE + STALE, "--json")
    found = json.loads(output)
    assert (code, found["verdict"], found["operations"], len(found["part"])) == (1, "not linearizable", 2, 2)


def test_one_that_is_undecided_in_the_time(check):
    """Exit code 4: not told to be either."""
    code, output = check(WRITE + STALE, "--seconds", "0")
    assert code == 4
    assert "it is undecided whether the history is linearizable: no verdict on None" in output


def test_the_value_at_the_beginning(check):
    """`nil`, what is told, or an empty string where strings are appended to."""
    read = "{:process 1, :type :invoke, :f :read, :value nil}{:process 1, :type :ok, :f :read, :value %s}"
    assert check(read % "0")[0] == 1
    assert check(read % "0", "--initial", "0")[0] == 0
    assert check(read % '""')[0] == 1
    assert check(read % '""' + '{:process 2, :type :invoke, :f :append, :value "a"}')[0] == 0
    code, output = check(read % "0", "--initial", "1 2")
    assert (code, "are 2" in output) == (2, True)
    assert check(read % "0", "--initial", "{}")[0] == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (WRITE + "{:process 7}", "NotAHistory: line 4: this event has no type and no f"),
        (b"\xff", "no text in UTF-8"),
        (None, "can't read"),
    ],
)
def test_what_is_no_history(check, text, told):
    """Exit code 2, and why."""
    code, output = check(text)
    assert code == 2
    assert told in output
