"""`raftkv restore`: a new cluster of real nodes begins with a backup of another one, and the two never mix."""

from __future__ import annotations

import asyncio
import json

import pytest

from raftkv.errors import RaftKVError
from raftkv.kv import KeyValueClient
from raftkv.processes.cluster import ProcessCluster, member_argument
from tests.cli.commands import error_of, invoke, value_of, when_led
from tests.forked import ForkedCluster


def members_of(cluster: ProcessCluster) -> list[str]:
    """The founders, as options."""
    return [word for member in cluster.founders for word in ("--member", member_argument(member))]


def restored(file, node, cluster, *more: str):
    """Make a founder's directory from a backup."""
    words = ["restore", str(file), "--data-dir", node.data_dir, "--id", str(node.node_id), "--cluster-name", "again"]
    return invoke(*words, *members_of(cluster), *more)


def test_a_new_cluster_begins_with_a_backup_and_never_mixes_with_the_old_one(tmp_path):
    """What was written before the backup is there, what came after is not; it goes on writing, also after restarts.
    Clients of the old cluster are refused by name."""
    file = tmp_path / "a.backup"
    with ForkedCluster(tmp_path / "old", 1) as old, ForkedCluster(tmp_path / "new", 2) as new:
        old.start_all()
        when_led(old.nodes[1])
        (address,) = old.addresses
        for key in ("a", "b"):
            assert invoke("put", key, "before", "-a", address).exit_code == 0
        assert invoke("backup", str(file), "-a", address).exit_code == 0
        assert invoke("put", "a", "after", "-a", address).exit_code == 0
        for node in new.nodes.values():
            made = restored(file, node, new, "--machine", "raftkv.kv:KeyValue")
            assert made.exit_code == 0, made.output
            assert "log time goes on" in made.stdout
        new.start_all()
        addresses = ",".join(new.addresses)
        assert invoke("get", "a", "-a", addresses, "--timeout", "30").stdout == "before\n"
        assert invoke("put", "a", "new", "-a", addresses).exit_code == 0
        status = value_of(invoke("status", "--json", "-a", addresses))
        ids = {node["cluster_id"] for node in status["nodes"]}
        assert len(ids) == 1 and ids != {value_of(invoke("backup", "show", str(file), "--json"))["cluster_id"]}
        asyncio.run(refused(old, new))
        new.kill_all()
        new.start_all()
        assert invoke("get", "a", "-a", addresses, "--timeout", "30").stdout == "new\n"
        assert invoke("get", "b", "-a", addresses).stdout == "before\n"


MACHINE = ("--machine", "tests.client.test_watching:Shop")


def changes(address, *words):
    """The lines that `raftkv watch stock` prints."""
    done = invoke("watch", "stock", *words, "-a", address, "--timeout", "30")
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_who_watched_the_old_cluster_goes_on_where_both_are_the_same_and_is_told_where_they_are_not(tmp_path):
    """With cursors that were written down: of before the backup, and of after it, where the new cluster has other
    entries at the same indexes."""
    file = tmp_path / "a.backup"
    with (
        ForkedCluster(tmp_path / "old", 1, arguments=MACHINE) as old,
        ForkedCluster(tmp_path / "new", 1, arguments=MACHINE) as new,
    ):
        old.start_all()
        when_led(old.nodes[1])
        (address,) = old.addresses
        for number in ("1", "2"):
            assert invoke("call", "put", "apple", number, "-a", address).exit_code == 0
        assert invoke("backup", str(file), "-a", address).exit_code == 0
        for number in ("3", "4"):
            assert invoke("call", "put", "apple", number, "-a", address).exit_code == 0
        kept = [each["cursor"] for each in changes(address, "--after", "0", "-n", "4")]
        old.kill_all()
        assert restored(file, new.nodes[1], new, *MACHINE).exit_code == 0
        new.start_all()
        when_led(new.nodes[1])
        (address,) = new.addresses
        for number in range(10, 20):
            assert invoke("call", "put", "apple", str(number), "-a", address).exit_code == 0
        told = changes(address, "--after", kept[0], "-n", "11")
        assert [each["value"] for each in told] == [2, *range(10, 20)]
        assert changes(address, "--after", kept[1], "-n", "1")[0]["value"] == 10
        assert changes(address, "--after", told[-2]["cursor"], "-n", "1") == [told[-1]]
        for cursor in kept[2:]:
            said = invoke("watch", "stock", "--after", cursor, "-n", "1", "-a", address, "--timeout", "30")
            assert said.exit_code != 0 and "is of another cluster than this one" in said.stderr
            assert "read the table as it is" in said.stderr


async def refused(old: ProcessCluster, new: ProcessCluster) -> None:
    """A client that has met the old cluster is not served by the new one, which may have other values."""
    async with KeyValueClient([*old.addresses, *new.addresses], deadline_s=5.0) as client:
        assert (await client.get(b"a")).value == b"after"
        old.kill_all()
        with pytest.raises(RaftKVError, match="cluster"):
            await client.get(b"a")


def test_what_can_not_be_restored_says_why(run, one_node, tmp_path):
    """A directory in use, a place that can't be replaced, another machine, a damaged file: exit codes, and nothing is
    changed."""
    file = tmp_path / "a.backup"
    assert run("backup", str(file)).exit_code == 0
    words = ["restore", str(file), "--id", "1", "--cluster-name", "x", "--member", "1=127.0.0.1:1/127.0.0.1:2"]
    used = invoke(*words, "--data-dir", one_node.data_dir, "--json")
    assert used.exit_code == 2 and "is not empty" in error_of(used)["message"]
    (tmp_path / "volume").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "volume")
    refused = invoke(*words, "--data-dir", str(link), "--json")
    assert refused.exit_code == 2 and "Name a directory in it" in error_of(refused)["message"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.backup", "link", "volume"]
    link.unlink()
    (tmp_path / "volume").rmdir()
    place = str(tmp_path / "d")
    other = invoke(*words, "--data-dir", place, "--machine", "tests.cli.depot:Depot")
    assert other.exit_code == 2 and "KeyValue" in other.stderr
    assert invoke(*words[:-2], "--data-dir", place).exit_code == 2
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    damaged = invoke(*words, "--data-dir", place)
    assert damaged.exit_code == 5 and "checksum" in damaged.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.backup"]
