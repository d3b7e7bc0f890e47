"""Transfers of snapshots that a node asks for: one is enough, and one that fails is not repeated like hail."""

from __future__ import annotations

import asyncio

from raftkv.kv import KeyValue
from raftkv.testing import elapse, scenario
from raftkv.testing.world.harm import Harm
from tests.logged import capture_logs
from tests.node.steps import fill, follower_of


async def ruin(cluster, client):
    """A follower with neither a state nor a snapshot, whose log has been cut: it needs a snapshot to serve again."""
    sim = follower_of(cluster)
    await fill(client, 600)
    await elapse(4)
    await fill(client, 100, start=600)
    await cluster.until_equal()
    await cluster.leader.orders.take_snapshot()
    await sim.stop()
    sim.harm = Harm.ROT
    sim.disk.flip("/data/state/image", 100, 1)
    for name in sim.disk.listdir("/data/snapshots"):
        sim.disk.flip(f"/data/snapshots/{name}/image", 100, 1)
    return sim


def transfers(lines):
    """When (virtual time is not in the lines, so only in which order) they began and ended."""
    return [line["event"] for line in lines if line["event"].startswith("snapshot_transfer_")]


@scenario(KeyValue, seed=1)
async def test_a_rebuild_takes_one_transfer(cluster):
    """Also under load, when answers that were on their way still say that a snapshot is wanted."""
    client = cluster.client()
    sim = await ruin(cluster, client)
    with capture_logs() as lines:
        await sim.start(rebuild=True)
        writes = asyncio.ensure_future(fill(client, 100, start=700))
        await cluster.until(lambda: sim.node.snapshots.installed, 30, "the snapshot is there")
        await writes
        await cluster.until_equal()
        await elapse(2)
    assert transfers(lines) == ["snapshot_transfer_begins", "snapshot_transfer_done"]
    assert sim.node.snapshots.installed == 1
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_transfer_that_fails_is_tried_again_less_and_less_often(cluster):
    """Whatever makes it fail (here the follower has no room for it), under load and with nothing else to do."""
    client = cluster.client()
    sim = await ruin(cluster, client)
    capacity = sim.disk.capacity_bytes
    sim.disk.capacity_bytes = sim.disk.used_bytes() + 2_000
    with capture_logs() as lines:
        await sim.start(rebuild=True)
        await fill(client, 100, start=700)
        await elapse(10)
    failed = transfers(lines).count("snapshot_transfer_failed")
    assert 3 <= failed <= 12, f"{failed} in a little more than 10 s"
    sim.disk.capacity_bytes = capacity
    await cluster.until(lambda: sim.node.snapshots.installed, 30, "the snapshot is there")
    await cluster.until_equal()
    await client.close()
