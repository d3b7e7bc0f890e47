"""The story of a leader that is deposed and can't know it."""

from __future__ import annotations

import asyncio

import pytest

from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop
from raftkv.worlds.deposed import ASKED, Deposed
from raftkv.worlds.tails import DROPPED, Tails
from raftkv.worlds.workload import Workload


@pytest.mark.parametrize("seed", range(2))
def test_the_story_comes_true(seed):
    """F72, F63: the old leader is asked while another one commits, and later a snapshot takes the place of the entries
    that it could not commit. No answer is out of date."""

    async def story():
        cluster = SimCluster(Workload, 3, seed=seed)
        Tails(cluster.fired).attach(cluster)
        await cluster.start()
        await cluster.until_leader()
        acting = asyncio.ensure_future(Deposed(seed, cluster).act())
        await cluster.until(lambda: cluster.fired[ASKED] > 1 and cluster.fired[DROPPED], 120, "the story comes true")
        acting.cancel()
        await asyncio.wait([acting])
        await cluster.until_equal()
        assert cluster.wrongs == []
        await cluster.stop()

    SimLoop().run(story())
