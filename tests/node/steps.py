"""Steps that many stories of clusters take."""

from __future__ import annotations


def follower_of(cluster):
    """Some follower's machine."""
    leader = cluster.leader.node_id
    return next(sim for sim in cluster.nodes.values() if sim.node_id != leader)


async def fill(client, count, start=0):
    """Write `count` keys."""
    for number in range(start, start + count):
        await client.remote.put(b"key-%05d" % number, b"x" * 64)


async def read_all(cluster, client, count):
    """Every key is there, at the leader."""
    for number in range(count):
        item = await client.remote.get(b"key-%05d" % number)
        assert item is not None, f"key {number} is lost"
