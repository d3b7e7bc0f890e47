"""Data directories that are another node's, another cluster's, or older than what was acknowledged."""

from __future__ import annotations

import pytest

from raftkv.errors import (
    Corruption,
    WrongDataDir,
)
from raftkv.kv import KeyValue
from raftkv.testing import elapse, scenario
from tests.node.steps import fill


@scenario(KeyValue, seed=1)
async def test_a_data_directory_of_another_node_is_refused(cluster):
    """A mixed-up mount is found before anything is written."""
    one, other = [sim for sim in cluster.nodes.values() if sim.node_id != cluster.leader.node_id]
    one.crash()
    other.crash()
    one.disk, other.disk = other.disk, one.disk
    with pytest.raises(WrongDataDir, match=f"belongs to node {other.node_id}"):
        await one.start()
    one.disk, other.disk = other.disk, one.disk
    await cluster.start()


@scenario(KeyValue, seed=1)
async def test_a_data_directory_of_another_cluster_is_refused(cluster):
    """F23: the members that are given found another cluster than the one whose data this is."""
    sim = cluster.nodes[1]
    await sim.stop()
    founders = cluster.founders
    cluster.founders = founders[:2]
    with pytest.raises(WrongDataDir, match="belongs to the cluster"):
        await sim.start()
    cluster.founders = founders
    await sim.start()
    await cluster.until_equal()


@pytest.mark.parametrize("name", ["vote", "cluster"])
@scenario(KeyValue, seed=1)
async def test_a_data_directory_without_its_vote_or_its_cluster_is_refused(cluster, name):
    """F11: a node that begins anew with a log could vote twice in a term, or in another cluster."""
    sim = cluster.nodes[1]
    await sim.stop()
    sim.disk.remove(f"/data/{name}")
    with pytest.raises(Corruption, match=f"/data/{name} is missing"):
        await sim.start()


@pytest.mark.parametrize(("tries", "said"), [(3, "it knows of 1 starts"), (0, "it knows of term")])
@scenario(KeyValue, seed=1)
async def test_an_older_vote_beside_newer_files_is_refused_however_often_it_is_started(cluster, tries, said):
    """F19: with its older vote a node would vote twice in a term; the record of starts and the log show it.

    Nobody else can: the record of starts is the true one, and peers believe who has had the starts that they know.
    """
    sim = cluster.nodes[1]
    await sim.stop()
    older, young = sim.disk.read_bytes("/data/vote"), sim.disk.read_bytes("/data/starts")
    for _ in range(tries):
        await sim.start()
        await cluster.until_equal()
        await sim.stop()
    await sim.start()
    await cluster.until_equal()
    cluster.nodes[cluster.leader.node_id].crash()
    await elapse(3)
    for other in cluster.nodes.values():
        if not other.is_up:
            await other.start()
    await cluster.until_equal()
    await sim.stop()
    if not tries:  # then its starts are as few as the vote knows of
        sim.disk.write_atomic("/data/starts", young)
    sim.disk.write_atomic("/data/vote", older)
    for _ in range(tries + 3):
        with pytest.raises(Corruption, match=said):
            await sim.start()


@scenario(KeyValue, size=1, seed=1)
async def test_a_state_that_is_ahead_of_the_log_is_not_served(cluster):
    """F6: log, vote and starts are older copies, so acknowledged entries are missing, though the state has them."""
    sim = cluster.nodes[1]
    client = cluster.client()
    await fill(client, 5)
    await client.close()
    await sim.stop()
    older = {
        path: data for path, data in sim.disk.image().items() if "/log/" in path or path.endswith(("/vote", "/starts"))
    }
    await sim.start()
    await cluster.until_leader()
    client = cluster.client()
    await fill(client, 60, start=5)
    await client.close()
    await elapse(1.0)
    await sim.stop()
    for path, data in older.items():
        file = sim.disk.open(path)
        file.truncate(0)
        file.pwrite([data], 0, sync=True)
        file.close()
    with pytest.raises(Corruption, match=r"has applied .* entries, but the log ends at"):
        await sim.start()
