"""Who looks at a world: as often as something changes in it, and no more."""

from __future__ import annotations

import pytest

from raftkv.kv import KeyValue
from raftkv.testing.judging.check import Check
from raftkv.testing.judging.checks import NothingFailsUnseen
from raftkv.testing.judging.failure import Failure
from raftkv.testing.judging.watching import LOOK_S, watched
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop, elapse


class OfAll(Check):
    """Counts how often the cluster is looked at."""

    def __init__(self):
        self.looks = 0
        self.fails = False

    def look(self, cluster):
        self.looks += 1
        assert not self.fails, "as it was told"


class OfOne(Check):
    """Counts how often each node is looked at."""

    def __init__(self):
        self.looks = {1: 0, 2: 0, 3: 0}

    def look_at(self, node):
        self.looks[node.node_id] += 1


def watch(checks, story):
    """A cluster of three nodes with a leader, in which `story` is told while it is watched."""

    async def main():
        cluster = SimCluster(KeyValue)
        await cluster.start()
        await cluster.until_leader()
        await elapse(1.0)
        await watched(cluster, checks, story(cluster))

    SimLoop().run(main())


def test_an_idle_cluster_is_looked_at_once():
    """Heartbeats change nothing that a check could see."""
    of_all, of_one = OfAll(), OfOne()
    watch([of_all, of_one], lambda cluster: elapse(1.0))
    assert of_all.looks == 1
    assert of_one.looks == {1: 1, 2: 1, 3: 1}


def test_what_changes_is_looked_at_soon():
    """A write at all nodes, a crash at none of the others, and a membership of the dead is no node to look at."""
    of_all, of_one = OfAll(), OfOne()

    async def story(cluster):
        await elapse(2 * LOOK_S)
        before = of_all.looks
        async with cluster.client() as client:
            await client.put(b"k", b"v")
        await elapse(0.2)
        assert of_all.looks > before
        assert min(of_one.looks.values()) > 1
        looks, at_nodes = of_all.looks, dict(of_one.looks)
        follower = next(each for each in cluster.nodes.values() if each.node is not cluster.leader)
        follower.crash()
        await elapse(2 * LOOK_S)
        assert of_all.looks > looks
        assert of_one.looks[follower.node_id] == at_nodes[follower.node_id]

    watch([of_all, of_one], story)


def test_a_broken_promise_ends_the_work():
    """The check is named, and what is being done is cancelled."""
    check = OfAll()

    async def story(cluster):
        await elapse(0.5)
        check.fails = True
        cluster.nodes[1].crash()
        await elapse(1000.0)
        raise AssertionError("it went on")

    with pytest.raises(Failure, match="OfAll: as it was told"):
        watch([check], story)


def test_what_fails_with_nobody_to_hear_it_is_seen_also_when_all_nodes_rest():
    """A callback that raises changes no node."""

    def fail():
        raise ValueError("nobody hears this")

    async def story(cluster):
        await elapse(0.5)
        cluster.loop.call_soon(fail)
        await elapse(1000.0)

    with pytest.raises(Failure, match="NothingFailsUnseen"):
        watch([NothingFailsUnseen()], story)
