"""`raftkv log inspect`: it tells what a log holds, and changes nothing."""

from __future__ import annotations

import shutil

import pytest

from raftkv.access import AddToken, AddUser
from raftkv.cli.logfiles import entry_value
from raftkv.entry import make_entry
from raftkv.machine import CHANGE_ACCESS, access_payload, encode_command
from raftkv.model import EntryKind
from tests.access.people import HASH, digest
from tests.cli.commands import invoke, value_of
from tests.forked import ForkedCluster


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The data directory of a node that took ten writes, several segments of them, and was stopped."""
    with ForkedCluster(tmp_path_factory.mktemp("log"), 1, arguments=["--set", "segment_bytes=4KiB"]) as cluster:
        node = cluster.nodes[1]
        node.start()
        for turn in range(10):
            address = ("-a", node.member.client_address)
            assert invoke("put", f"k{turn}", "x" * 1000, *address, "--timeout", "30").exit_code == 0
        assert node.terminate() == 0
        yield node.data_dir


@pytest.fixture
def directory(written, tmp_path):
    """A copy of it."""
    shutil.copytree(written, tmp_path / "data")
    return tmp_path / "data"


def content(directory):
    """Every file's bytes."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_it_tells_what_is_there(directory):
    """Segments, entries with what they are, and whose vote it is."""
    before = content(directory)
    value = value_of(invoke("log", "inspect", str(directory), "--first", "1", "--json"))
    assert content(directory) == before
    assert not value["problems"] and not value["repairs"]
    assert len(value["segments"]) > 1
    assert value["vote"]["node_id"] == 1 and value["vote"]["term"] == 1
    assert [entry["index"] for entry in value["entries"]] == list(range(1, value["last_index"] + 1))
    assert value["entries"][0]["kind"] == "noop"
    assert sum(entry["content"].startswith("put, session") for entry in value["entries"]) == 10


def test_it_prints_the_part_that_was_asked_for(directory):
    """The last ones, or from here to there."""
    last = value_of(invoke("log", "inspect", str(directory), "-n", "2", "--json"))
    assert [entry["index"] for entry in last["entries"]] == [last["last_index"] - 1, last["last_index"]]
    some = value_of(invoke("log", "inspect", str(directory), "--first", "3", "--last", "5", "--json"))
    assert [entry["index"] for entry in some["entries"]] == [3, 4, 5]
    assert "put, session" in invoke("log", "inspect", str(directory)).stdout


def test_a_torn_end_is_said_and_left(directory):
    """The next start would cut it off; an inspection doesn't."""
    segment = sorted((directory / "log").glob("*.log"))[-1]
    with segment.open("r+b") as file:
        file.seek(0, 2)
        file.write(b"torn")
    before = content(directory)
    value = value_of(invoke("log", "inspect", str(directory), "--json"))
    assert content(directory) == before
    assert not value["problems"]
    assert "cut off a torn write" in value["repairs"][0]


def test_damage_is_said_segment_by_segment(directory):
    """Exit code 5; the segments around it are still read (F9)."""
    first = min((directory / "log").glob("*.log"))
    data = bytearray(first.read_bytes())
    data[700] ^= 1
    first.write_bytes(data)
    result = invoke("log", "inspect", str(directory), "--json")
    assert result.exit_code == 5
    value = value_of(result)
    assert first.name in value["problems"][0]
    assert [found["problem"] is None for found in value["segments"]] == [False] + [True] * (len(value["segments"]) - 1)
    assert "damaged" in invoke("log", "inspect", str(directory)).stdout


def test_a_missing_end_is_noticed(directory):
    """The vote file remembers how much had been durable."""
    newest = max((directory / "log").glob("*.log"))
    newest.unlink()
    result = invoke("log", "inspect", str(directory), "--json")
    assert result.exit_code == 5
    assert any("missing" in problem for problem in value_of(result)["problems"])


def test_what_is_no_log_is_named(tmp_path, one_node):
    """A wrong directory, none at all, and one that a node is just writing."""
    assert "holds no log" in invoke("log", "inspect", str(tmp_path)).stderr
    assert "no such directory" in invoke("log", "inspect", str(tmp_path / "none")).stderr
    assert invoke("status", "-a", one_node.member.client_address, "--timeout", "30").exit_code == 0
    running = invoke("log", "inspect", one_node.data_dir)
    assert running.exit_code == 5
    assert "another process uses this data directory" in running.stderr


def test_damaged_snapshots_are_named(directory, tmp_path):
    """Exit code 1, and which file it is; also when there is none."""
    none = invoke("snapshot", "verify", str(directory))
    assert none.exit_code == 1
    assert "holds no snapshot" in none.stderr
    assert "no such directory" in invoke("snapshot", "verify", str(tmp_path / "none")).stderr


def test_a_change_of_users_is_shown_without_hashes():
    """Who may look at files need not have what passwords can be tried on."""
    changes = {
        access_payload(AddUser("ann", HASH, ("clerk",))): "AddUser(user='ann', roles=('clerk',), certificates=())",
        access_payload(AddToken("ann", digest(1), None)): "AddToken(user='ann', ttl_ms=None)",
        encode_command(0, 0, 0, CHANGE_ACCESS, b"\x90"): "unreadable: a change of users and roles that can't be read",
    }
    for payload, shown in changes.items():
        content = entry_value(make_entry(1, 1, 0, EntryKind.COMMAND, payload, 0)).content
        assert content.startswith(shown) and "argon2" not in content
