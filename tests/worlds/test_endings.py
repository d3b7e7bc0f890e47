"""The ends of worlds: what comes when all else is over."""

from __future__ import annotations

import msgspec
import pytest

from raftkv.node.snapshots.taking import Taking
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop
from raftkv.testing.world.settings import CONFIG
from raftkv.testing.world.variety import SHORT_LOGS
from raftkv.worlds.idling import Idling
from raftkv.worlds.regaining import Regaining
from raftkv.worlds.tails import KEPT, Tails
from raftkv.worlds.workload import Workload

SHORT = msgspec.structs.replace(CONFIG, **SHORT_LOGS)


@pytest.mark.parametrize("size", [2, 3])
def test_a_log_is_cut_while_little_comes(size):
    """F35: one command a second, and no member's log ever has twice the entries after which a snapshot is due."""

    async def story():
        cluster = SimCluster(Workload, size, seed=size, config=SHORT)
        await cluster.start()
        assert await Idling(1, cluster).play()
        await cluster.stop()

    SimLoop().run(story())


def test_a_log_that_is_never_cut_is_noticed(monkeypatch):
    """F35: when no snapshot is taken, although one is due."""
    monkeypatch.setattr(Taking, "maybe_take", lambda self: None)

    async def story():
        cluster = SimCluster(Workload, 1, seed=1, config=SHORT)
        await cluster.start()
        with pytest.raises(AssertionError, match="a snapshot is due after"):
            await Idling(1, cluster).play()
        await cluster.stop()

    SimLoop().run(story())


@pytest.mark.parametrize("seed", range(3))
def test_a_log_goes_on_behind_the_snapshot_that_brings_the_state_back(seed):
    """F64: what the log has behind the snapshot stays, as the leader's has it too."""

    async def story():
        cluster = SimCluster(Workload, 3, seed=seed, config=SHORT)
        Tails(cluster.fired).attach(cluster)
        await cluster.start()
        async with cluster.client() as client:
            for _ in range(150):
                await client.put(b"key", b"v" * 60)
        assert await Regaining(seed, cluster).play()
        assert cluster.fired[KEPT] == 1
        await cluster.stop()

    SimLoop().run(story())
