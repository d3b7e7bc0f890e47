"""Nodes that crash, also while they start or before, and come back with what they had acknowledged."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from raftkv.errors import (
    NodeStopped,
)
from raftkv.kv import KeyValue
from raftkv.node.directory import open_directory
from raftkv.testing import elapse, scenario
from tests.node.steps import fill, follower_of, read_all


@scenario(KeyValue, seed=1)
async def test_what_was_acknowledged_survives_a_crash_of_all(cluster):
    """F4: the power goes out everywhere at once; every acknowledged write is there again."""
    client = cluster.client()
    await fill(client, 60)
    for sim in cluster.nodes.values():
        sim.crash()
    await cluster.start()
    await read_all(cluster, client, 60)
    await client.close()


@scenario(KeyValue, size=1, seed=1)
async def test_one_node_alone_is_a_cluster(cluster):
    """The smallest cluster serves, crashes and recovers like any other."""
    client = cluster.client()
    await fill(client, 30)
    cluster.nodes[1].crash()
    await cluster.start()
    await read_all(cluster, client, 30)
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_crashed_node_is_gone_for_good(cluster):
    """It dials nobody, whoever would listen, and to end what has ended is nothing."""
    sim = follower_of(cluster)
    others = [each for each in cluster.nodes.values() if each is not sim]
    for other in others:
        cluster.network.cut(sim.node_id, other.node_id)  # so that it is about to dial again
    await elapse(1.0)
    node = sim.node
    sim.crash()
    cluster.network.heal()
    await elapse(5.0)
    assert node.transport.links() == {}
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert sum(name.startswith("raftkv-link-") for name in names) == 4, names  # two of each other node
    await sim.stop()


@scenario(KeyValue, seed=1)
async def test_a_node_that_crashes_while_it_starts_goes_no_further(cluster):
    """Wherever it waits at that moment: who starts it hears of it, nobody listens, and it can start anew."""
    sim = follower_of(cluster)
    for wait_s in [number * 0.0005 for number in range(1, 60)]:
        sim.crash()
        starting = asyncio.ensure_future(sim.start())
        await elapse(wait_s)
        sim.crash()
        with contextlib.suppress(NodeStopped):
            await starting
        assert not sim.is_up
        with pytest.raises(ConnectionRefusedError):
            await cluster.network.dial(0, asyncio.Protocol, sim.member.peer_address)
    await sim.start()
    await cluster.until_equal()


@scenario(KeyValue, seed=1)
async def test_a_crash_right_behind_recovery_is_one_too(cluster, monkeypatch):
    """Its files are open, and the node has not heard of it yet: it does not listen once it is gone (seed 1265)."""
    sim = follower_of(cluster)
    sim.crash()

    def open_and_crash(options, world):
        opened = open_directory(options, world)
        asyncio.get_running_loop().call_soon(sim.crash)
        return opened

    with monkeypatch.context() as patch, pytest.raises(NodeStopped):
        patch.setattr("raftkv.node.recovery.open_directory", open_and_crash)
        await sim.start()
    await sim.start()
    await cluster.until_equal()


@scenario(KeyValue, seed=1)
async def test_a_node_that_is_stopped_before_its_first_step_is_up(cluster):
    """It can't be started beside itself; when it goes on it comes up, and a crash before that ends it."""
    sim = follower_of(cluster)
    for crashes in (True, False):
        sim.crash()
        before = sim.disk.image()
        starting = asyncio.ensure_future(sim.start())
        await elapse(0)
        sim.freeze()
        await elapse(0.1)
        assert sim.is_up and sim.disk.image() == before
        with pytest.raises(AssertionError, match="is up"):
            await sim.start()
        if crashes:
            sim.crash()
            with pytest.raises(NodeStopped):
                await starting
        else:
            sim.thaw()
            await starting
    await cluster.until_equal()
