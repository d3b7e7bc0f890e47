"""Who leads: a dead leader is replaced, one that is cut off steps down, and leadership is handed over."""

from __future__ import annotations

import asyncio
import contextlib
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
from raftkv.testing import elapse, play, scenario
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


async def paused(cluster, old, others):
    """Its process stands still. When it goes on, it gets its clients' questions before its peers' messages."""
    for other in others:
        cluster.network.cut(old, other)
    cluster.nodes[old].freeze()


async def heard_by_nobody(cluster, old, others):
    """What the others say takes long: acknowledgements still arrive from before it was cut off from them."""
    for step in range(30):  # little by little, so that the leader never misses them for long
        cluster.network.delays = {(other, old): 0.05 * step for other in others}
        await elapse(0.2)
    for other in others:
        cluster.network.cut(old, other, one_way=True)


@pytest.mark.parametrize("deposed", [paused, heard_by_nobody])
@pytest.mark.parametrize("seed", range(3))
def test_a_leader_that_was_deposed_without_knowing_it_answers_no_query(deposed, seed):
    """F72: it is asked all the time by a client that does not leave it; no answer is older than what another leader had
    committed before the question."""

    async def story(cluster):
        old, written, stale, asked = cluster.nodes[cluster.leader.node_id], 0, [], []
        writer = cluster.client(silence_s=0.3)
        reader = cluster.client(old.node_id, probe_s=60, silence_s=60, deadline_s=8)
        await writer.remote.put(b"key", b"0")
        assert (await reader.remote.get(b"key")).value == b"0"
        await deposed(cluster, old.node_id, [node_id for node_id in cluster.nodes if node_id != old.node_id])
        assert reader.connected_to == old.member.client_address
        assert old.node.raft.is_leader

        async def ask():
            known = written
            with contextlib.suppress(NotAccepted):
                answer = await reader.remote.get(b"key")
                if int(answer.value) < known:
                    stale.append((int(answer.value), known))

        async def ask_on():
            while True:
                asked.append(asyncio.ensure_future(ask()))
                await elapse(0.01)

        asking = asyncio.ensure_future(ask_on())
        for number in range(1, 30):
            await writer.remote.put(b"key", b"%d" % number)
            written = number
        assert old.node.raft.is_leader, "it knew too soon"
        await elapse(0.1)
        old.thaw()
        await elapse(0.5)
        cluster.network.delays = {}
        cluster.network.heal()
        await elapse(1)
        asking.cancel()
        await asyncio.gather(asking, *asked, return_exceptions=True)
        assert not stale, f"answers and what had been written before they were asked for: {stale}"
        assert cluster.leader.node_id != old.node_id
        await writer.close()
        await reader.close()

    play(KeyValue, story, seed=seed)


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
