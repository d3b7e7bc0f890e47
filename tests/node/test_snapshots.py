"""Snapshots: taken under load, sent to who lags, installed though interrupted, and refused when they are no good."""

from __future__ import annotations

import asyncio
import os
import posixpath

import msgspec

from raftkv.config import KIB
from raftkv.core import invariants
from raftkv.kv import KeyValue
from raftkv.log import VoteFile
from raftkv.snapshot import Receipts, SnapshotOffer
from raftkv.testing import elapse, scenario
from raftkv.testing.judging.states import SnapshotsHoldWhatTheySay
from raftkv.testing.world.harm import Harm
from raftkv.testing.world.settings import CONFIG
from tests.logged import capture_logs
from tests.node.steps import fill, follower_of


@scenario(KeyValue, seed=1)
async def test_a_lagging_follower_gets_a_snapshot_and_the_rest_from_the_log(cluster):
    """F67: the entries that it needs are gone, so it installs a snapshot and catches up behind it."""
    client = cluster.client()
    sim = follower_of(cluster)
    sim.crash()
    await fill(client, 600)
    await elapse(4)
    await fill(client, 100, start=600)
    assert cluster.leader.raft.log.first_index > 10
    await sim.start()
    await cluster.until_equal()
    assert sim.node.snapshots.installed >= 1
    await client.close()


async def join_while_writing(cluster):
    """A new node gets a large state at 20 KiB/s while one key is written a hundred times a second; how many snapshots
    it installed."""
    client = cluster.client()
    for number in range(500):
        await client.remote.put(b"large-%03d" % number, os.urandom(400))
    await cluster.leader.orders.take_snapshot()
    new = cluster.add(9)
    await new.start()
    await cluster.leader.orders.add_learner(new.member)
    written = 0

    def is_level():
        return new.node.applier.applied_index > written

    while not (new.node.snapshots.installed and is_level()) and written < 4_000:
        await asyncio.gather(*(client.remote.put(b"small", b"x" * 8) for _ in range(10)))
        written = cluster.leader.raft.commit_index - 50
        await elapse(0.1)
    await client.close()
    return new.node.snapshots.installed


SLOW_TRANSFER = msgspec.structs.replace(CONFIG, snapshot_rate_bytes_s=20 * KIB)


@scenario(KeyValue, seed=1, config=SLOW_TRANSFER)
async def test_the_log_is_kept_for_a_follower_that_installs(cluster):
    """The leader takes snapshots meanwhile, and cuts its log no further than the follower will go on from."""
    taken = {node: node.snapshots.taken for node in cluster.running}
    assert await join_while_writing(cluster) == 1
    assert cluster.leader.snapshots.taken - taken[cluster.leader] >= 3
    await cluster.until_equal()
    await elapse(5)
    await cluster.leader.orders.take_snapshot()
    log = cluster.leader.raft.log
    assert log.last_index - log.start.index <= 2 * CONFIG.snapshot_entries, "nobody needs it any more"


@scenario(KeyValue, seed=1)
async def test_an_install_that_is_interrupted_anywhere_is_finished_later(cluster):
    """F60: the power goes out before every operation on the disk, from the first chunk to the new state."""
    with capture_logs() as lines:
        client = cluster.client()
        await fill(client, 300)
        await cluster.leader.orders.take_snapshot()
        number, crashes = 3, 0
        while True:
            new = cluster.add(10 + number)
            await new.start()
            leader = await cluster.until_leader()
            await leader.orders.add_learner(new.member)
            new.crash_at_operation(number)
            node = new.node
            await cluster.until(
                lambda new=new, node=node: new.node is not node or node.snapshots.installed, 30, "a crash, or the end"
            )
            crashed = new.node is not node
            new.disk.fault = None
            if not new.is_up:
                await new.start()
            await cluster.until(
                lambda new=new: new.node.applier.applied_index == cluster.leader.raft.commit_index, 30, "it catches up"
            )
            assert new.node.applier.runner.applied == cluster.leader.applier.runner.applied
            await new.stop()
            leader = await cluster.until_leader()
            await leader.orders.remove(new.node_id)
            del cluster.nodes[new.node_id]
            if not crashed:
                break
            number, crashes = number + 3, crashes + 1
        assert crashes >= 10
        await client.close()
    said = {(line["event"], line["log_level"]) for line in lines}
    assert ("install_resumed", "warning") in said  # it is expected, and needs nobody
    assert not {"state_damaged", "snapshot_damaged", "node_failed"} & {event for event, _ in said}


@scenario(KeyValue, seed=1)
async def test_a_snapshot_that_rots_at_the_sender_is_not_sent_for_ever(cluster):
    """F70: the receiver finds it wrong twice; the sender looks at its own copy, and takes another snapshot."""
    client = cluster.client()
    await fill(client, 300)
    leader = await cluster.until_leader()
    sim = cluster.nodes[leader.node_id]
    await leader.orders.take_snapshot()
    await fill(client, 60, start=300)
    sim.harm = Harm.ROT
    for name in sim.disk.listdir("/data/snapshots"):
        sim.disk.flip(f"/data/snapshots/{name}/image", 100, 1)
    new = cluster.add(4)
    await new.start()
    await leader.orders.add_learner(new.member, 10)
    await cluster.until_equal()
    assert new.node.snapshots.installed == 1
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_snapshot_under_load_is_the_state_at_its_index(cluster):
    """F69: the disk is slow, and commands are committed while the state is copied; none of them is in the copy."""
    client = cluster.client()
    check = SnapshotsHoldWhatTheySay()
    leader = cluster.leader
    cluster.nodes[leader.node_id].disk_s = 0.01
    load = asyncio.ensure_future(fill(client, 150))
    while not load.done():
        await elapse(0.1)
        await leader.orders.take_snapshot()
        check.look(cluster)
    await load
    assert leader.snapshots.taken > 5
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_snapshot_of_a_deposed_leader_is_not_even_begun(cluster):
    """F65: its term is over, so nobody knows whether its log still counts; nor is one taken from who does not lead."""
    client = cluster.client()
    await fill(client, 30)
    leader, sim = cluster.leader, follower_of(cluster)
    await leader.orders.take_snapshot()
    store = leader.opened.snapshots
    manifest, term = store.manifest(store.latest()).data, leader.raft.term
    (other,) = {1, 2, 3} - {leader.node_id, sim.node_id}
    for sender, of_term in ((leader.node_id, term - 1), (other, term), (other, term + 1)):
        offer = SnapshotOffer(sender=sender, to=sim.node_id, term=of_term, attempt=1, manifest=manifest)
        sim.node.snapshots.on_message(offer)
        await elapse(0.02)
        assert sim.node.snapshots.receiving() is None
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_log_that_begins_anew_is_no_loss_at_the_next_start(cluster):
    """F63: a deposed leader's longer log makes way for a snapshot; what its vote file counted as durable is gone."""
    client, late = cluster.client(), cluster.client()
    await fill(client, 5)
    old = cluster.leader
    for other in cluster.nodes:
        if other != old.node_id:
            cluster.network.cut(old.node_id, other)
    lost = [asyncio.ensure_future(client.remote.put(b"lost-%d" % number, b"")) for number in range(80)]
    await cluster.until(lambda: old.raft.log.last_index > 80)
    tail = old.raft.log.last_index
    await cluster.until(lambda: not old.raft.is_leader and cluster.leader is not None)
    await cluster.until_leader()
    for task in lost:
        task.cancel()
    await asyncio.gather(*lost, return_exceptions=True)
    await fill(late, 55)
    await cluster.leader.orders.take_snapshot()
    assert old.raft.log.last_index == tail > cluster.leader.raft.log.last_index
    for other in cluster.nodes:
        cluster.network.reset(old.node_id, other)  # else the new leader's first appends would still arrive
    cluster.network.heal()
    await cluster.until(lambda: old.snapshots.installed)
    sim = cluster.nodes[old.node_id]
    sim.crash()
    await sim.start()
    await cluster.until_equal()
    await client.close()
    await late.close()


@scenario(KeyValue, seed=1)
async def test_a_snapshot_at_the_same_index_is_not_taken_twice(cluster):
    """Asking again gives the one that is there."""
    client = cluster.client()
    await fill(client, 5)
    first, again = await cluster.leader.orders.take_snapshot(), await cluster.leader.orders.take_snapshot()
    assert first == again
    assert len(cluster.leader.opened.snapshots.list()) == 1
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_snapshot_that_is_durable_before_its_term_brings_the_term(cluster):
    """F60: its log's thread hangs, so the vote file is of an older term when the power goes behind the last chunk.

    A node whose log has entries of a term that it does not know could stand for election in that very term.
    """
    client = cluster.client()
    sim = follower_of(cluster)
    sim.crash()
    old = cluster.nodes[cluster.leader.node_id]
    await fill(client, 20)
    old.crash()
    await old.start()
    await fill(client, 300, start=20)
    leader = await cluster.until_leader()
    await leader.orders.take_snapshot()
    for path, data in cluster.nodes[leader.node_id].disk.image().items():
        if path.startswith("/data/snapshots/"):
            sim.disk.mkdir(posixpath.dirname(path))
            sim.disk.write_atomic(path, data)
    owner = VoteFile.look(sim.disk, "/data/vote").identity
    receipts = Receipts.open(sim.disk, "/data/receipts", owner)
    receipts.accept(leader.opened.snapshots.manifest(leader.raft.snapshot).digest, from_leader=True)
    for other in cluster.nodes.values():
        other.crash()
    await sim.start()  # alone: what it knows it has from its disk
    raft = sim.node.raft
    assert raft.log.last_term >= 2
    invariants.check(raft)
    await cluster.start()
    await cluster.until_equal()
    await client.close()
