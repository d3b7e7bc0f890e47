"""`raftkv recover`: two of three nodes are lost for good, and the third goes on, with new ones beside it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from raftkv.disk import RealDisk
from raftkv.processes.cluster import NodeProcess, member_argument
from tests.cli.commands import error_of, invoke, value_of, when_led
from tests.forked import ForkedCluster


@pytest.fixture
def lost(tmp_path):
    """Three nodes with some data; all were killed at once."""
    with ForkedCluster(tmp_path, 3) as cluster:
        cluster.start_all()
        addresses = ",".join(cluster.addresses)
        for number in range(5):
            assert invoke("put", f"k/{number}", str(number), "-a", addresses, "--timeout", "30").exit_code == 0
        cluster.kill_all()
        yield cluster


def without_members(node: NodeProcess) -> None:
    """Let it be started as the directory says."""
    at = node.arguments.index("--member")
    node.arguments[at:] = []


def contents(directory: str) -> dict[str, bytes]:
    """Every file there, to see that nothing was changed."""
    return {str(path): path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()}


def test_the_survivor_is_shown_chosen_and_goes_on_alone(lost, tmp_path):
    """The way of an operator: compare, look, accept by typing the name, start, add a node; what was there is there."""
    survivor = lost.nodes[1]
    shutil.rmtree(lost.nodes[2].data_dir)
    directories = [lost.nodes[1].data_dir, lost.nodes[3].data_dir]
    compared = invoke("recover", "--compare", *directories)
    assert compared.exit_code == 0 and "do not recover: these nodes are a majority" in compared.stdout
    shutil.rmtree(lost.nodes[3].data_dir)
    before = contents(survivor.data_dir)
    shown = invoke("recover", survivor.data_dir)
    assert shown.exit_code == 0, shown.output
    for text in ("What may be missing", "node 2 at", "node 3 at", "FOR GOOD", "Nothing was changed"):
        assert text in shown.stdout
    value = value_of(invoke("recover", survivor.data_dir, "--json"))
    assert (value["node_id"], value["has_all"], [each["node_id"] for each in value["others"]]) == (1, False, [2, 3])
    for words in (["--i-accept-loss"], ["--cluster-name", "raftkv"], ["--i-accept-loss", "--cluster-name", "other"]):
        refused = invoke("recover", survivor.data_dir, *words, "--json")
        assert refused.exit_code == 2 and "Nothing was changed" in error_of(refused)["message"]
    assert contents(survivor.data_dir) == before
    done = invoke("recover", survivor.data_dir, "--i-accept-loss", "--cluster-name", "raftkv")
    assert done.exit_code == 0, done.output
    report = json.loads((Path(survivor.data_dir) / "recovery-1.json").read_text())
    assert report["old_cluster_id"] == value["cluster_id"] and report["last_index"] == value["last_index"]
    assert report["kept_in"] in done.stdout
    survivor.start()
    assert survivor.process.wait(30) == 5
    assert "recovered from the cluster" in survivor.log_path.read_text()
    without_members(survivor)
    survivor.start()
    when_led(survivor)
    address = survivor.member.client_address
    assert invoke("get", "k/4", "-a", address).stdout == "4\n"
    new = lost.add(4)
    assert invoke("member", "add", member_argument(new.member), "-a", address).exit_code == 0
    new.start()
    assert invoke("member", "promote", "4", "-a", address, "--timeout", "60").exit_code == 0
    assert invoke("put", "after", "1", "-a", address).exit_code == 0
    assert invoke("get", "after", "-a", new.member.client_address, "--timeout", "30").stdout == "1\n"


def test_who_watched_the_lost_cluster_is_told_that_its_end_may_be_another_one(tmp_path):
    """Of cursors behind what the survivor had certainly in common with it, at the survivor and at a node that joins;
    others go on, on both."""
    machine = ("--machine", "tests.client.test_watching:Shop")
    with ForkedCluster(tmp_path, 3, arguments=machine) as cluster:
        cluster.start_all()
        addresses = ",".join(cluster.addresses)
        call = ("call", "put", "apple")
        for number in ("1", "2"):
            assert invoke(*call, number, "-a", addresses, "--timeout", "30").exit_code == 0
        survivor = cluster.nodes[1]
        to = ("-a", survivor.member.client_address, "--timeout", "30")
        assert invoke("watch", "stock", "--after", "0", "-n", "2", *to).exit_code == 0, "it has applied both"
        assert invoke("snapshot", "take", *to).exit_code == 0
        for number in ("3", "4"):
            assert invoke(*call, number, "-a", addresses).exit_code == 0
        watch = ("watch", "stock", "-n")
        kept = invoke(*watch, "4", "--after", "0", "-a", addresses, "--timeout", "30").stdout.splitlines()
        kept = [json.loads(line)["cursor"] for line in kept]
        cluster.kill_all()
        done = invoke("recover", survivor.data_dir, "--i-accept-loss", "--cluster-name", "raftkv", "--json")
        report = value_of(done)
        assert int(kept[1].partition(".")[0]) <= report["applied_index"] < int(kept[2].partition(".")[0])
        without_members(survivor)
        survivor.arguments += machine
        survivor.start()
        when_led(survivor)
        address = survivor.member.client_address
        for number in ("10", "11"):
            assert invoke(*call, number, "-a", address).exit_code == 0
        new = cluster.add(4)
        assert invoke("member", "add", member_argument(new.member), "-a", address).exit_code == 0
        new.start()
        assert invoke("member", "promote", "4", "-a", address, "--timeout", "60").exit_code == 0
        for place in (address, new.member.client_address):
            to = ("-a", place, "--timeout", "30")
            told = invoke(*watch, "1", "--after", kept[1], *to)
            assert told.exit_code == 0, told.output
            assert json.loads(told.stdout)["value"] in (3, 10), "what the survivor had not got is lost"
            said = invoke(*watch, "1", "--after", kept[3], *to)
            assert said.exit_code != 0 and "is of another cluster than this one" in said.stderr


def test_what_is_not_to_be_recovered_is_refused(lost, run, one_node, tmp_path):
    """A node that runs, one that is a majority by itself, several at once, and what is no directory of a node."""
    words = ["--i-accept-loss", "--cluster-name", "raftkv"]
    running = invoke("recover", one_node.data_dir, *words, "--json")
    assert running.exit_code == 5 and "locked" in error_of(running)["message"]
    both = [lost.nodes[1].data_dir, lost.nodes[2].data_dir]
    assert invoke("recover", *both, *words).exit_code == 2
    assert invoke("recover", str(tmp_path), *words).exit_code == 2
    assert invoke("recover", "--compare", both[0], both[0]).exit_code == 2
    value = value_of(invoke("recover", "--compare", *both, "--json"))
    assert value["is_majority"] and value["best"] in both
    assert invoke("recover", both[0], *words).exit_code == 0
    again = invoke("recover", both[0], *words)
    assert again.exit_code == 2 and "a majority by itself" in again.stderr


def test_to_look_opens_no_file_to_write(lost, monkeypatch):
    """As on a disk that can only be read, while another looks, too; a node that runs is still refused."""
    opened = []
    real = os.open

    def watched(path, flags, *more, **settings):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(path).startswith(str(Path(directory).parent)):
            opened.append(path)
        return real(path, flags, *more, **settings)

    directory = lost.nodes[1].data_dir
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", watched)
        lock = RealDisk().lock_to_read(f"{directory}/LOCK")
        assert invoke("recover", directory).exit_code == 0
        assert invoke("recover", "--compare", directory, lost.nodes[2].data_dir).exit_code == 0
        assert invoke("log", "inspect", directory).exit_code == 0
        lock.release()
    assert opened == []
    held = RealDisk().lock(f"{directory}/LOCK")
    assert invoke("recover", directory).exit_code == 5
    held.release()
