"""Who leads: a dead leader is replaced, one that is cut off steps down, and leadership is handed over."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from raftkv.core.messages import ReadIndex
from raftkv.errors import (
    ChangeRefused,
    InvalidArgument,
    NotAccepted,
)
from raftkv.kv import KeyValue
from raftkv.testing import scenario
from raftkv.testing.world.settings import CONFIG
from tests.node.steps import fill, follower_of


@scenario(KeyValue, seed=1)
async def test_a_dead_leader_is_replaced_at_once(cluster):
    """A killed leader's connections break, so a new one is there long before the election time-out."""
    loop = asyncio.get_running_loop()
    client = cluster.client()
    await fill(client, 5)
    cluster.nodes[cluster.leader.node_id].crash()
    began = loop.time()
    await fill(client, 1, start=5)
    assert loop.time() - began < CONFIG.election_timeout_ms / 1000
    await client.close()


@scenario(KeyValue, seed=1)
async def test_leadership_is_handed_over_when_asked(cluster):
    """Transfer to a named node, and writes go on there; to a node that is no voter it is refused."""
    client, admin = cluster.client(), cluster.admin()
    await fill(client, 5)
    to = follower_of(cluster).node_id
    assert await admin.transfer_leadership(to) == to
    await fill(client, 5, start=5)
    with pytest.raises((ChangeRefused, InvalidArgument)):
        await admin.transfer_leadership(9)
    await client.close()
    await admin.close()


@scenario(KeyValue, seed=1)
async def test_a_minority_serves_nothing_but_stale_reads(cluster):
    """A leader cut off from its majority steps down; who asks it for more than a stale read is told so (F39)."""
    client = cluster.client()
    await fill(client, 5)
    old = cluster.leader
    for other in cluster.nodes:
        if other != old.node_id:
            cluster.network.cut(old.node_id, other)
    await cluster.until(lambda: cluster.leader not in (None, old), 5, "another leader")
    await cluster.until(lambda: not old.raft.is_leader, 5, "the old one steps down")
    got: list[Any] = []
    payload = KeyValue.methods["get"].query_payload(KeyValue.methods["get"].encode_args((b"key-00001",), {}))
    with pytest.raises(NotAccepted):
        old.requests.query(payload, False, lambda index, result: got.append(result))
    old.requests.query(payload, True, lambda index, result: got.append(index))
    assert got == [old.applier.applied_index]
    await fill(client, 5, start=5)
    cluster.network.heal()
    await cluster.until_equal()
    await client.close()


@pytest.mark.parametrize("asks", ["a client", "a follower"])
@scenario(KeyValue, seed=1, config=msgspec.structs.replace(CONFIG, lease_reads=True))
async def test_a_leader_that_wakes_from_a_pause_does_not_trust_its_lease(cluster, asks):
    """F72: the question is there when the process goes on, before any timer has counted the time that has passed."""
    client = cluster.client()
    await fill(client, 1)
    leader, follower = cluster.leader, follower_of(cluster)
    payload = KeyValue.methods["get"].query_payload(KeyValue.methods["get"].encode_args((b"key-00000",), {}))
    got: list[Any] = []

    def ask():
        if asks == "a client":
            leader.requests.query(payload, False, lambda index, result: got.append(result))
        else:
            leader.engine.step(ReadIndex(follower.node_id, leader.node_id, leader.raft.term, 2**40))
        leader.engine.turn()

    await cluster.until(lambda: leader.raft.role.lease_round > 0, 5, "a lease")
    ask()
    assert leader.raft.role.reads_count == 0, "the lease does not hold"
    asyncio.get_running_loop().advance(1.0)
    got.clear()
    ask()
    assert got == []
    assert leader.raft.role.reads_count == 1, "it waits for no round"
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_leader_whose_disk_hangs_gives_up_leadership(cluster):
    """etcd#13527: its heartbeats would keep everybody quiet while nothing commits."""
    client = cluster.client()
    await fill(client, 5)
    old = cluster.leader.node_id
    cluster.nodes[old].hang()
    await fill(client, 5, start=5)
    assert cluster.leader.node_id != old
    cluster.nodes[old].unhang()
    await cluster.until_equal()
    await client.close()
