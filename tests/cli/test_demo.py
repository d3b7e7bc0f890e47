"""`raftkv demo`: it can be played, and its verdict notices whatever is wrong."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raftkv.cli.demo.command import print_verdict
from raftkv.cli.demo.load import Ledger
from raftkv.cli.demo.stage import DemoFailed, DemoStage
from raftkv.cli.demo.story import Figures
from raftkv.cli.demo.verdict import Readback, compare, compare_counter, same_state
from raftkv.cli.output import make_console
from raftkv.processes.cluster import ProcessCluster
from tests.cli.commands import invoke, value_of

ROOT = str(Path(__file__).parents[2])


def test_the_demo_keeps_its_promise():
    """Real processes and real faults, with short acts: all of it happens, and nothing is missing anywhere."""
    result = invoke("demo", "--kills", "1", "--writers", "4", "--act-seconds", "0.2", "--json")
    assert result.exit_code == 0, result.stderr
    value = value_of(result)
    assert value["kept"] and value["same_state"]
    assert value["acknowledged"] > 100
    assert [node["node_id"] for node in value["nodes"]] == [1, 2, 3, 4]
    assert len({(node["read"], node["digest"], node["applied_index"]) for node in value["nodes"]}) == 1
    assert all(first > 1 for first in value["compacted_to"].values()) and len(value["failovers_s"]) == 1
    assert value["join_snapshot_index"] > 0
    assert "kept" in result.stderr


@pytest.fixture
def ledger():
    """Two acknowledged writes, one of unknown outcome, and a counter incremented five times and perhaps once more."""
    ledger = Ledger(1)
    ledger.acknowledged = {b"a": b"1", b"b": b"2"}
    ledger.unknown = {b"u": b"3"}
    ledger.increments, ledger.unknown_increments = [5], [1]
    return ledger


@pytest.mark.parametrize(
    ("items", "missing", "different", "invented"),
    [
        ({b"a": b"1", b"b": b"2"}, [], [], []),
        ({b"a": b"1", b"b": b"2", b"u": b"3"}, [], [], []),
        ({b"a": b"1"}, ["b"], [], []),
        ({b"a": b"1", b"b": b"x"}, [], ["b"], []),
        ({b"a": b"1", b"b": b"2", b"c": b"4"}, [], [], ["c"]),
        ({b"a": b"1", b"b": b"2", b"u": b"4"}, [], [], ["u"]),
    ],
)
def test_the_verdict_notices_what_a_node_lacks_or_made_up(ledger, items, missing, different, invented):
    """A write of unknown outcome may be there or not, but not with another value."""
    found = Readback(node_id=1)
    compare(ledger, items, found)
    assert (found.missing, found.different, found.invented) == (missing, different, invented)
    assert found.is_whole == (not (missing or different or invented))


@pytest.mark.parametrize(("counter", "good"), [(4, False), (5, True), (6, True), (7, False)])
def test_the_verdict_notices_what_was_applied_twice(ledger, counter, good):
    """A counter shows it, whose increments were all acknowledged but one."""
    found = Readback(node_id=1)
    compare_counter(ledger, 0, counter, found)
    assert found.is_whole == good


def test_different_states_are_no_promise_kept(capsys):
    """Equal data with unequal digests would be luck, so it is a failure, and said."""
    nodes = [Readback(node_id=n, applied_index=7, digest=digest) for n, digest in ((1, "aa"), (2, "bb"))]
    assert not same_state(nodes)
    figures = Figures(nodes=nodes, same_state=False, failovers_s=[0.1])
    assert not figures.is_kept
    print_verdict(make_console(), figures)
    assert "NOT kept: the states differ" in capsys.readouterr().out


def test_a_directory_with_something_in_it_is_refused(tmp_path):
    """Data of another run would belong to another cluster, and the demo must not touch what it did not make."""
    (tmp_path / "something").touch()
    result = invoke("demo", "--directory", str(tmp_path))
    assert result.exit_code == 2
    assert "is not empty" in result.stderr


def test_who_ends_the_demo_is_rid_of_its_nodes(tmp_path):
    """SIGTERM in the middle: the nodes' processes, which would outlive it, are gone before it is."""
    command = [sys.executable, "-m", "raftkv", "demo", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": ROOT}) as demo:
        assert demo.stdout is not None
        pids = [int(pid) for pid in re.findall(r"\d+", demo.stdout.readline().split("processes")[1])[:3]]
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(30) == 128 + signal.SIGTERM
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_nothing_read_is_nothing_kept():
    """A demo that did not get to its end has no good verdict by default."""
    assert not Figures().is_kept


def test_a_node_that_ends_by_itself_fails_the_demo(tmp_path):
    """Whatever the story waits for: it ends at once, with what the node printed."""
    with ProcessCluster(tmp_path, 1, arguments=["--set", "tick_ms=0"]) as cluster:
        stage = DemoStage(cluster)
        stage.start(1)
        with pytest.raises(DemoFailed, match=r"(?s)node 1 ended by itself.*tick_ms = 0"):
            asyncio.run(stage.leader())
