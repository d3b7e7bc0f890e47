"""Worlds whose nodes run different versions of an application."""

from __future__ import annotations

from raftkv.testing import SimCluster, scenario
from tests.testing.versions import After, Before


@scenario(Before)
async def test_nodes_and_clients_of_two_versions_share_a_world(cluster: SimCluster) -> None:
    """Each machine may run another class, and each client; the version is raised when the last node can run it."""
    old, new = cluster.client(), cluster.client(machine=After)
    assert await old.remote.receive("apple", 3) == 3
    for sim in cluster.nodes.values():
        assert (await cluster.until_leader()).applier.runner.active.version == 1
        sim.crash()
        sim.machine = After
        await sim.start()
        assert await new.remote.receive("apple", 1) == 3 + sim.node_id
    await cluster.until(lambda: all(node.applier.runner.active.version == 2 for node in cluster.running))
    assert await new.remote.sell("apple") is True
    assert await old.remote.count("apple") == 5
    await cluster.until_equal()
