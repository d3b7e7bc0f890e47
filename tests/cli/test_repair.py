"""Damaged data on one of three nodes, and the way back that the errors name."""

from __future__ import annotations

import shutil

import pytest

from raftkv.processes.cluster import ProcessCluster
from tests.cli.commands import invoke, value_of
from tests.forked import ForkedCluster


@pytest.fixture
def cluster(tmp_path):
    """Three nodes with some data, in snapshots too, whose logs have lost their beginning."""
    small = [word for setting in ("keep_entries=2", "segment_bytes=1KiB") for word in ("--set", setting)]
    with ForkedCluster(tmp_path, 3, arguments=small) as cluster:
        cluster.start_all()
        lines = [f"put k/{number} {'x' * 100}" for number in range(20)]
        for _ in range(3):
            run(cluster, "txn", *lines)
        run(cluster, "snapshot", "take", "--all")
        yield cluster


def run(cluster: ProcessCluster, *arguments: str):
    """A command to the cluster's other nodes; node 2 is the one that suffers."""
    addresses = [cluster.nodes[node_id].member.client_address for node_id in (1, 3)]
    result = invoke(*arguments, "-a", ",".join(addresses), "--timeout", "30")
    assert result.exit_code == 0, result.output
    return result


def damage(paths) -> None:
    """Flip a bit in the middle of each file; a new file, as snapshots share theirs with the state."""
    for path in paths:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.unlink()
        path.write_bytes(content)


def catch_up(cluster: ProcessCluster) -> None:
    """Wait until node 2 has what the others have: it must be able to lead them, with every key there."""
    run(cluster, "put", "after", "1")
    address = cluster.nodes[2].member.client_address
    eventually(lambda: invoke("get", "after", "--stale", "-a", address).stdout == "1\n")
    eventually(lambda: invoke("transfer", "2", "-a", address).exit_code == 0)
    assert len(value_of(run(cluster, "prefix", "k/", "--json"))["items"]) == 20


def eventually(condition, tries: int = 300) -> None:
    """Ask until it is so; each question takes its time, so this is bounded without a clock."""
    assert any(condition() for _ in range(tries))


def test_a_damaged_state_is_rebuilt_from_the_snapshot_beside_it(cluster, tmp_path):
    """By itself: what is damaged is only a copy of what the snapshot and the log have (F10)."""
    node = cluster.nodes[2]
    assert node.terminate() == 0
    (tmp_path / "n2" / "state" / "CURRENT").unlink()
    node.start()
    catch_up(cluster)
    assert "state_damaged" in node.log_path.read_text()


def test_a_state_without_any_good_copy_is_rebuilt_from_a_peer_when_told_to(cluster, tmp_path):
    """It does not start, and says how: with --rebuild it gets a snapshot from another node (F70)."""
    node = cluster.nodes[2]
    assert node.terminate() == 0
    (tmp_path / "n2" / "state" / "CURRENT").unlink()
    damage((tmp_path / "n2" / "snapshots").glob("*/*.sst"))
    verified = invoke("snapshot", "verify", node.data_dir)
    assert verified.exit_code == 1
    assert "does not match its checksum" in verified.stderr
    node.start()
    assert node.process.wait(20) == 5
    assert "start this node with --rebuild" in node.log_path.read_text()
    node.start("--rebuild")
    catch_up(cluster)
    assert "snapshot_installed" in node.log_path.read_text()


def test_a_node_that_was_wiped_is_refused_under_its_old_id(cluster, tmp_path):
    """An empty data directory has forgotten what it acknowledged; the others say what to do instead."""
    node = cluster.nodes[2]
    assert node.terminate() == 0
    shutil.rmtree(tmp_path / "n2")
    node.start()
    run(cluster, "put", "a", "1")
    other = cluster.nodes[1].member.client_address
    # While node 2 still starts, status ends with 1, as a voter is silent.
    eventually(lambda: "new id" in " ".join(value_of(invoke("status", "--json", "-a", other))["problems"]))
