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
from raftkv.worlds.parting import PARTINGS, Parting
from raftkv.worlds.regaining import Regaining
from raftkv.worlds.repeating import with_turns
from raftkv.worlds.scanning import Scanner
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


@pytest.mark.parametrize("seed", range(2))
def test_states_part_although_something_repeats(seed):
    """Whoever must stop does, and nobody else, while a command that repeats brings entries by itself."""

    async def story():
        cluster = SimCluster(with_turns(Workload), 4, seed=seed, config=CONFIG)
        await cluster.start()
        assert await Parting(seed, cluster).play() in PARTINGS
        await cluster.stop()

    SimLoop().run(story())


def test_no_state_parts_before_the_leader_has_all_digests():
    """Else some would part at an entry at which others have agreed before, and who must stop would be another story."""

    async def story():
        cluster = SimCluster(Workload, 3, seed=1, config=CONFIG)
        await cluster.start()
        leader = await cluster.until_leader()
        heard, others = leader.divergence.on_report, [each for each in cluster.nodes if each != leader.node_id]
        leader.divergence.on_report = lambda peer, report: heard(peer, report) if peer == others[0] else None
        with pytest.raises(TimeoutError):
            await Parting(1, cluster).play()
        assert all(node.failure is None for node in cluster.running)
        leader.divergence.on_report = heard
        assert await Parting(1, cluster).play() in PARTINGS
        await cluster.stop()

    SimLoop().run(story())


def test_what_was_slowed_down_is_free_in_the_end():
    """A scan that gets nowhere is the scanner's doing, so no judge who comes after it waits for the same."""

    async def story():
        cluster = SimCluster(Workload, 1, seed=1, config=CONFIG)
        await cluster.start()
        await cluster.until_leader()
        scanner, looks = Scanner(1, cluster), iter([False, True])
        scanner._dice.choice = lambda choices: scanner._slow_down if callable(choices[0]) else 12.0
        await scanner.act(cluster.client(deadline_s=1.0), lambda: next(looks))
        assert not any(worker.stalled for worker in cluster.nodes[1].workers)
        async with cluster.client(deadline_s=2.0) as client:
            await client.call("litter", 1, False)
            await client.call("sum_up")
        await cluster.stop()

    SimLoop().run(story())
