"""Who does not belong to a cluster is refused, what must not be ordered is refused, and both are counted."""

from __future__ import annotations

import asyncio
import random

import pytest

from raftkv.errors import InvalidArgument
from raftkv.kv import KeyValue
from raftkv.testing.faults.mistakes import MISTAKES, Mistakes
from raftkv.testing.faults.nemesis import Nemesis
from raftkv.testing.faults.strangers import (
    OTHER_CLUSTER,
    REFUSALS,
    SAME_DIRECTORY,
    SECOND_PROCESS,
    STRANGERS,
    Strangers,
)
from raftkv.testing.judging.checks import StrangersAndMistakesAreRefused
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop, elapse


def tell(story, size=3):
    """Tell `story` with a cluster that has a leader."""
    loop = SimLoop()

    async def main():
        cluster = SimCluster(KeyValue, size, seed=1)
        await cluster.start()
        await cluster.until_leader()
        await story(cluster)
        await cluster.stop()

    loop.run(main())
    assert loop.failures == []


def spawning(tasks):
    """What begins work, and keeps it."""
    return lambda work, changes=True: tasks.append(asyncio.ensure_future(work))


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_stranger_is_refused_for_what_it_is(kind):
    """Of another cluster (F23), or of a version that nobody here speaks (F24), under whatever id."""

    async def story(cluster):
        for seed in range(6):
            tasks = []
            await Strangers(cluster, random.Random(seed), spawning(tasks)).kinds[kind]()
            await asyncio.gather(*tasks)
        assert cluster.fired == {kind: 6}
        assert cluster.wrongs == []
        assert cluster.running == [node.node for node in cluster.nodes.values()]

    tell(story)


def test_a_second_process_on_a_copy_is_refused_and_the_first_goes_on():
    """F22: the node runs, and a copy of its directory too; who has met the node since knows the copy for one."""

    async def story(cluster):
        sim = cluster.nodes[2]
        sim.crash()
        copy = sim.disk.copy()
        await sim.start()
        await cluster.until_equal()
        await elapse(1.0)
        tasks = []
        await Strangers(cluster, random.Random(1), spawning(tasks)).run_copy(sim, copy)
        assert cluster.fired == {SECOND_PROCESS: 1}
        assert cluster.copies == []
        client = cluster.client()
        await client.remote.put(b"key", b"value")
        await cluster.until_equal()
        await client.close()
        assert sim.node.failure is None

    tell(story)


def test_a_stranger_that_is_let_in_is_noticed(monkeypatch):
    """The check can fail: a cluster that does not look at the cluster's name takes the stranger for a member."""
    monkeypatch.setattr("raftkv.node.peers.admission.Admission._check_cluster", lambda self, hello: None)
    monkeypatch.setattr("raftkv.node.peers.met.Met.check", lambda self, hello: None)
    monkeypatch.setattr("raftkv.testing.faults.strangers.REFUSALS", {**REFUSALS, OTHER_CLUSTER: ()})

    async def story(cluster):
        tasks = []
        await Strangers(cluster, random.Random(1), spawning(tasks)).kinds[OTHER_CLUSTER]()
        await asyncio.gather(*tasks)
        assert cluster.fired == {}
        with pytest.raises(AssertionError, match="took a node of another cluster for a peer"):
            StrangersAndMistakesAreRefused().look(cluster)
        cluster.wrongs.clear()

    tell(story)


@pytest.mark.parametrize("kind", MISTAKES)
def test_each_mistake_is_refused(kind):
    """An id given twice (F57), a learner that is to lead (F47), a voter that is gone (F46), a change too soon (F49)."""

    async def story(cluster):
        new = cluster.add(4)
        await new.start()
        await cluster.leader.orders.add_learner(new.member)
        leader = cluster.leader.node_id
        gone = cluster.nodes[leader if kind == "change before the first commit" else leader % 3 + 1]
        gone.crash()
        cluster.network.delay_s = 0.02  # so that a term's first commit takes its time
        await elapse(0.0 if gone.node_id == leader else 2.0)
        for seed in range(4):
            tasks = []
            await Mistakes(cluster, random.Random(seed), spawning(tasks)).kinds[kind]()
            await asyncio.gather(*tasks)
        assert cluster.fired[kind] == 4
        assert cluster.wrongs == []
        await cluster.start()
        await cluster.until_equal()

    tell(story)


def test_a_mistake_that_is_carried_out_is_noticed(monkeypatch):
    """The check can fail: a leader that lets a learner be told to lead is found."""
    monkeypatch.setattr("raftkv.core.raft.Raft.transfer_leadership", lambda self, to: None)

    async def story(cluster):
        new = cluster.add(4)
        await new.start()
        await cluster.leader.orders.add_learner(new.member)
        tasks = []
        await Mistakes(cluster, random.Random(1), spawning(tasks)).kinds["transfer to a learner"]()
        await asyncio.gather(*tasks)
        assert cluster.fired == {}
        assert cluster.wrongs == ["transfer to a learner: it was carried out"]

    tell(story)


def test_operators_that_are_not_changing_anything_do_not_keep_others_waiting():
    """Somebody who knocks for seconds is no reason not to harm a node; a change of the membership is."""

    async def story(cluster):
        nemesis = Nemesis(cluster, random.Random(1))
        await nemesis.strike(OTHER_CLUSTER, 1)
        assert not nemesis.is_changing
        await nemesis.strike("add", 1)
        assert nemesis.is_changing
        await nemesis.mend()
        with pytest.raises(InvalidArgument):
            await cluster.leader.orders.remove(99)

    tell(story)


def test_a_second_process_is_kept_out_of_a_directory_in_use():
    """F22: the lock is taken before anything is changed; without a lock the world says so."""

    async def story():
        cluster = SimCluster(KeyValue, 3, seed=1)
        await cluster.start()
        await cluster.until_leader()
        strangers = Strangers(cluster, random.Random(1), lambda work, changes=True: None)
        assert await strangers.kinds[SAME_DIRECTORY]()
        assert cluster.wrongs == []
        for sim in cluster.nodes.values():
            sim.disk._locks.clear()
        assert await strangers.kinds[SAME_DIRECTORY]()
        assert "was let into the directory" in cluster.wrongs[0]

    SimLoop().run(story())
