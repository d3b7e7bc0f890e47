"""Disks that are full, slow, or hang: others go on, and a node that can't go on says so."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from raftkv.config import KIB
from raftkv.errors import (
    DiskError,
    DiskFull,
)
from raftkv.kv import KeyValue
from raftkv.testing import elapse, scenario
from raftkv.testing.tracing.trace import Trace
from raftkv.testing.world.settings import CONFIG
from raftkv.testing.world.workers import BACKGROUND, TRANSFERS
from tests.node.steps import fill, follower_of


@scenario(KeyValue, seed=1)
async def test_a_full_disk_stops_the_node_and_space_brings_it_back(cluster):
    """F13: no acknowledgement without space; started again with space, it has all that was acknowledged."""
    client = cluster.client()
    await fill(client, 20)
    sim = follower_of(cluster)
    sim.disk.capacity_bytes = sim.disk.used_bytes() + 3_000
    await fill(client, 200, start=20)
    assert isinstance(sim.node.failure, DiskFull)
    sim.disk.capacity_bytes = 1 << 30
    sim.crash()
    await sim.start()
    await cluster.until_equal()
    await client.close()


@pytest.mark.parametrize("thread", [BACKGROUND, TRANSFERS])
@scenario(KeyValue, seed=1)
async def test_a_thread_that_hangs_keeps_only_its_own_work_waiting(cluster, thread):
    """F16: whoever writes snapshots, or receives them, may hang on every node: commands are done as ever."""
    for sim in cluster.nodes.values():
        sim.hang_for(thread, 3.0)
    loop = asyncio.get_running_loop()
    client = cluster.client()
    began = loop.time()
    await fill(client, 50)
    assert loop.time() - began < 1.0
    assert all(sim.workers[thread].stalled for sim in cluster.nodes.values())
    taking = loop.create_task(cluster.leader.orders.take_snapshot())
    await elapse(1.0)
    assert taking.done() == (thread != BACKGROUND)
    await taking
    assert loop.time() - began > 3.0 or thread != BACKGROUND
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_node_that_was_stopped_itself_does_not_blame_its_disk(cluster):
    """Paused in the middle of a write for longer than a disk may take, by SIGSTOP or with its whole virtual machine:
    it goes on (F16, F72)."""
    client = cluster.client()
    await fill(client, 5)
    sim = follower_of(cluster)
    sim.hang()
    await fill(client, 5, start=5)
    await cluster.until(lambda: sim.node.writer.started_at is not None)
    sim.freeze()
    await elapse(2 * CONFIG.disk_stall_stop_s)
    sim.thaw()
    await elapse(1.0)
    sim.unhang()
    await cluster.until_equal()
    assert sim.node.failure is None
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_disk_that_never_comes_back_stops_the_node(cluster):
    """A node that waits for ever is neither there nor gone: it stops, says so, and the others go on (F16)."""
    client = cluster.client()
    await fill(client, 5)
    sim = follower_of(cluster)
    sim.hang()
    await fill(client, 5, start=5)
    await cluster.until(lambda: sim.node.failure is not None, CONFIG.disk_stall_stop_s + 5, "it stops")
    assert isinstance(sim.node.failure, DiskError)
    assert "has not finished a write" in str(sim.node.failure)
    await fill(client, 5, start=10)
    sim.crash()
    await sim.start()
    await cluster.until_equal()
    await client.close()


@scenario(KeyValue, seed=1, config=msgspec.structs.replace(CONFIG, batch_bytes_max=KIB), started=False)
async def test_appends_that_wait_for_the_disk_are_not_overtaken(cluster):
    """What a follower lacks is read from disk, and what is in memory waits behind it: else each of its refusals would
    begin the sending anew (F28)."""
    trace = Trace()
    trace.attach(cluster)
    await cluster.start()
    await cluster.until_leader()
    client = cluster.client()
    await fill(client, 5)
    leader, sim = cluster.leader, follower_of(cluster)
    sim.crash()
    await fill(client, 120, start=5)
    trace.messages.clear()
    cluster.nodes[leader.node_id].disk_s = 0.02
    await sim.start()
    await fill(client, 60, start=125)
    await cluster.until_equal()
    await client.close()
    assert cluster.leader is leader
    sent = [message for message in trace.messages if message.to == sim.node_id and "append" in message.label]
    spans = [[int(end) for end in message.label.split()[1].split("-")] for message in sent]
    reached = spans[0][-1]
    for span in spans:
        assert span[0] <= reached + 1, f"{span} was sent behind {reached}"
        reached = max(reached, span[-1])


@pytest.mark.parametrize("part", ["log", "store"])
@scenario(KeyValue, seed=1)
async def test_why_a_node_has_stopped_is_not_hidden_by_a_disk_that_fails_again(cluster, part):
    """F15: what could not be closed is said in the log, but the reason that the operator gets is the first one."""
    node = follower_of(cluster).node

    def fail():
        raise DiskError("it fails again")

    (node.opened.log if part == "log" else node.applier.runner.store).close = fail
    node.fail(DiskError("it has failed"))
    await node.stop()
    assert str(node.stopped.result()) == "it has failed"
