"""Disks that are nearly full: whoever has room leads, and only when nobody has are writes refused (F13, F14)."""

from __future__ import annotations

import asyncio
import os

import msgspec
import pytest

from raftkv.config import KIB
from raftkv.errors import (
    ChangeRefused,
    DiskLow,
    NotAccepted,
)
from raftkv.kv import KeyValue
from raftkv.testing import elapse, scenario
from raftkv.testing.world.settings import CONFIG
from tests.logged import capture_logs
from tests.node.steps import fill, follower_of, read_all

RESERVE = msgspec.structs.replace(CONFIG, disk_free_bytes_min=200_000, disk_free_fraction_min=0.9)
PLENTY = 1 << 40


def fill_disk(sim):
    """Half of the reserve is left: enough for all that a test writes."""
    sim.disk.capacity_bytes = sim.disk.used_bytes() + 100_000


def refuses(leader):
    """Whether there is a leader that has come to the end of its remedies."""
    return leader is not None and isinstance(leader.engine.refuse_writes, DiskLow)


@scenario(KeyValue, seed=1, config=RESERVE)
async def test_a_leader_without_room_hands_over_and_writes_go_on(cluster):
    """Two voters have room: no write fails, and nobody makes the full one lead again, whether told to or by crashes."""
    with capture_logs() as lines:
        client, admin = cluster.client(deadline_s=5.0), cluster.admin()
        await fill(client, 20)
        old = cluster.leader.node_id
        fill_disk(cluster.nodes[old])
        await cluster.until(lambda: cluster.leader and cluster.leader.node_id != old, 5, "another leader")
        await fill(client, 20, start=20)
        assert cluster.nodes[old].node.room.handed_over == 1
        with pytest.raises(ChangeRefused, match=f"node {old} has no room"):
            await admin.transfer_leadership(old)
        status = cluster.leader.status()
        assert [peer.has_room for peer in status.peers] == [peer.node_id != old for peer in status.peers]
        assert any("so it shall not lead" in problem for problem in cluster.nodes[old].node.status().problems())
        second = cluster.leader.node_id
        cluster.nodes[second].crash()
        await cluster.until(lambda: cluster.leader and cluster.leader.node_id != second, 5, "the third leads")
        assert cluster.leader.node_id != old
        await fill(client, 5, start=40)
        await cluster.nodes[second].start()
        cluster.nodes[old].disk.capacity_bytes = PLENTY
        await cluster.until(lambda: cluster.nodes[old].node.raft.has_room, 5, "it has room again")
        await elapse(1.0)
        assert await admin.transfer_leadership(old) == old
        await read_all(cluster, client, 45)
        await client.close()
        await admin.close()
    assert [line for line in lines if line["event"] == "disk_full_hand_over"]
    assert not [line for line in lines if line["event"] == "writes_refused"]


@scenario(KeyValue, seed=1, config=RESERVE)
async def test_writes_are_refused_at_once_and_in_words_when_nobody_has_room(cluster):
    """Also a client that has no session yet is told what is wrong, long before its deadline; reads go on."""
    loop = asyncio.get_running_loop()
    client, newcomer = cluster.client(deadline_s=60.0), cluster.client(deadline_s=60.0)
    await fill(client, 5)
    for sim in cluster.nodes.values():
        fill_disk(sim)
    await cluster.until(lambda: refuses(cluster.leader), 10, "refused")
    await elapse(1.0)
    leader = cluster.leader
    began = loop.time()
    for each in (client, newcomer):
        with pytest.raises(DiskLow, match=f"node {leader.node_id}: only .* of disk are free.* free some space"):
            await fill(each, 1, start=5)
    assert loop.time() - began < 5.0
    assert await client.remote.get(b"key-00001") is not None
    status = leader.status()
    assert status.writes_refused is not None
    assert any(problem.startswith("writes are refused") for problem in status.problems())
    assert cluster.leader is leader, "nobody moves leadership round in circles"
    heir = follower_of(cluster)
    heir.disk.capacity_bytes = PLENTY
    await cluster.until(lambda: cluster.leader and cluster.leader.node_id == heir.node_id, 10, "it takes over")
    await fill(newcomer, 5, start=5)
    await client.close()
    await newcomer.close()


@scenario(KeyValue, seed=1, config=RESERVE)
async def test_a_cluster_without_room_anywhere_still_elects(cluster):
    """Reads need a leader: who waits for others with room does not wait for ever."""
    client = cluster.client(deadline_s=10.0)
    await fill(client, 5)
    for sim in cluster.nodes.values():
        fill_disk(sim)
    await cluster.until(lambda: not any(sim.node.raft.has_room for sim in cluster.nodes.values()), 5, "all full")
    old = (await cluster.until_leader()).node_id
    cluster.nodes[old].crash()
    await cluster.until(lambda: cluster.leader is not None, 10, "somebody leads")
    await read_all(cluster, client, 5)
    await cluster.nodes[old].start()
    await client.close()


@scenario(KeyValue, seed=1, config=RESERVE)
async def test_a_voter_with_room_that_lags_leads_as_soon_as_it_has_caught_up(cluster):
    """While it is away, the only one with all that is committed leads, though it has no room."""
    client = cluster.client(deadline_s=20.0)
    sim = follower_of(cluster)
    sim.crash()
    await fill(client, 300)
    others = [each for each in cluster.nodes.values() if each is not sim]
    for each in others:
        fill_disk(each)
    await cluster.until(lambda: refuses(cluster.leader), 10, "refused")
    await sim.start()
    await cluster.until(lambda: cluster.leader and cluster.leader.node_id == sim.node_id, 20, "it leads")
    await fill(client, 5, start=300)
    await client.close()


@scenario(KeyValue, size=1, seed=1, config=RESERVE)
async def test_low_space_refuses_writes_and_lets_them_in_again(cluster):
    """Below the reserve commands are refused, safe to retry; reads go on; with space all is well by itself."""
    client = cluster.client(deadline_s=2.0)
    await fill(client, 5)
    sim = cluster.nodes[1]
    capacity = sim.disk.capacity_bytes
    sim.disk.capacity_bytes = sim.disk.used_bytes() + 100_000
    await cluster.until(lambda: cluster.leader.engine.refuse_writes is not None, 5, "writes are refused")
    with pytest.raises(NotAccepted):
        await fill(client, 1, start=5)
    assert await client.remote.get(b"key-00001") is not None
    sim.disk.capacity_bytes = capacity
    await cluster.until(lambda: cluster.leader.engine.refuse_writes is None, 5, "writes are let in")
    await fill(client, 1, start=5)
    await client.close()


SLOW_TRANSFER = msgspec.structs.replace(RESERVE, snapshot_rate_bytes_s=20 * KIB)


@scenario(KeyValue, size=1, seed=1, config=SLOW_TRANSFER)
async def test_the_log_that_is_kept_for_a_follower_is_given_up_before_writes_are_refused_for_good(cluster):
    """A new node installs a large snapshot while the log behind it grows; then the disk has no room for both. The only
    voter lets go of that log by itself, although no snapshot is due, and accepts writes again."""
    client, sim = cluster.client(), cluster.nodes[1]
    for number in range(400):
        await client.remote.put(b"large-%03d" % number, os.urandom(400))
    await cluster.leader.orders.take_snapshot()
    new = cluster.add(9)
    await new.start()
    await cluster.leader.orders.add_learner(new.member)
    for _ in range(700):
        await client.remote.put(b"small", os.urandom(100))
    await cluster.leader.orders.take_snapshot()
    log = cluster.leader.raft.log
    assert log.last_index - log.start.index > 700 and not new.node.snapshots.installed, "it is kept"
    sim.disk.capacity_bytes = sim.disk.used_bytes() + RESERVE.disk_free_bytes_min - 5_000
    await cluster.until(lambda: not sim.node.raft.has_room, 5, "it has no room")
    await cluster.until(lambda: sim.node.raft.has_room, 5, "it has room again")
    assert log.last_index - log.start.index <= RESERVE.keep_entries
    await client.remote.put(b"small", b"written")
    sim.disk.capacity_bytes = PLENTY
    await cluster.until_equal()
    await client.close()
