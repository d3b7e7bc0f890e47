"""A directory is founded whole or not at all: ports that are taken, and a loss of power at each step."""

from __future__ import annotations

import pytest

from raftkv.errors import ConfigError, NodeStopped, WrongDataDir
from raftkv.kv import KeyValue
from raftkv.model import Member
from raftkv.node import Options
from raftkv.node.directory import open_directory
from raftkv.testing import play, scenario
from raftkv.testing.world.settings import CONFIG
from tests.node.steps import fill, read_all

STEPS = 200
"""More disk operations than a founding has."""


@scenario(KeyValue, seed=1, started=False)
async def test_a_taken_address_founds_nothing(cluster):
    """Somebody listens there: the start fails, and the disk is as empty as before (F83)."""
    sim = cluster.nodes[1]
    cluster.network.listen(9, sim.member.peer_address, lambda: None)
    with pytest.raises(ConfigError, match="can't listen for peers"):
        await sim.start()
    assert not sim.disk.exists("/data")
    cluster.network.stop_listening(9, sim.member.peer_address)
    await cluster.start()
    await cluster.until_leader()


def test_a_founding_that_is_cut_off_anywhere_is_finished_by_the_next_start():
    """The power goes out at every operation on the disk of a first start, and at some of the second one (F83)."""

    def found(number):
        cut_off = False

        async def story(cluster):
            nonlocal cut_off
            sim = cluster.nodes[1]
            for at in (number, max(1, number // 2)):
                sim.crash_at_operation(at)
                try:
                    await sim.start()
                except NodeStopped:
                    cut_off = True
                sim.crash()
            await cluster.start()
            await cluster.until_leader()
            client = cluster.client()
            await fill(client, 3)
            await read_all(cluster, client, 3)
            assert {node.cluster_id for node in cluster.running} == {cluster.nodes[2].node.cluster_id}
            await client.close()

        play(KeyValue, story, seed=number, started=False)
        return cut_off

    steps = 1
    while steps < STEPS and found(steps):
        steps += 1 if steps < 12 else 5
    assert 12 < steps < STEPS, "all of it was met"


@scenario(KeyValue, seed=1, started=False)
async def test_a_name_is_compared_with_the_directorys(cluster):
    """A founder's is written down, one that was founded before names were is recognized by the cluster's id."""
    sim = cluster.nodes[1]
    member = Member(1, "peer-1:1", "node-1:1")

    def opened(name, members=()):
        options = Options(node_id=1, data_dir="/data", members=members, cluster_name=name, config=CONFIG)
        directory = open_directory(options, sim.world())
        founding = directory.founding
        for part in (directory.store, directory.log, directory.vote):
            part.close()
        directory.lock.release()
        return founding

    assert opened("prod", (member,)).name == "prod"
    assert opened("").name == "prod"
    assert opened("prod").name == "prod"
    with pytest.raises(WrongDataDir, match="cluster prod, which is not called 'test'"):
        opened("test")
    assert opened("", (member,)).name == "prod", "the members are compared under that name"
