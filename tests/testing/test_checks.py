"""Checks notice what they are there for, at the moment at which it happens."""

from __future__ import annotations

import itertools
import random

import pytest

from raftkv.config import Config
from raftkv.core.raft import Raft
from raftkv.kv import KeyValue
from raftkv.machine import StateMachine, Table, command
from raftkv.testing.faults.nemesis import Nemesis
from raftkv.testing.judging.checks import CoreInvariants, CoreInvariantsAfterEachInput
from raftkv.testing.judging.failure import Failure
from raftkv.testing.judging.states import TablesAreInStep
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop
from raftkv.testing.world.variety import Variety
from raftkv.worlds.simulation import LEADER_WITHIN, Simulation


def tell(story, prepare=None):
    """Tell `story` with a cluster that has a leader."""

    async def main():
        cluster = SimCluster(KeyValue, 3, seed=1)
        if prepare is not None:
            prepare(cluster)
        await cluster.start()
        await cluster.until_leader()
        await story(cluster)

    SimLoop().run(main())


def test_what_is_wrong_between_two_looks_is_noticed(monkeypatch):
    """A core that breaks an invariant with one order, and has mended it when somebody looks, has broken it."""
    inputs = CoreInvariantsAfterEachInput()
    monkeypatch.setattr(Raft, "step_down", lambda raft: setattr(raft, "applied_index", raft.handed_index + 1))

    async def story(cluster):
        raft = cluster.leader.raft
        right = raft.applied_index
        inputs.look(cluster)
        raft.step_down()
        raft.applied_index = right
        CoreInvariants().look(cluster)  # all is well again
        with pytest.raises(AssertionError, match=r"node \d, step_down: applied \d+ > handed \d+"):
            inputs.look(cluster)

    tell(story, inputs.attach)


def test_what_goes_back_is_noticed():
    """Each look compares with the one before, as long as it is the same process."""
    check = CoreInvariants()

    async def story(cluster):
        leader = cluster.leader
        client = cluster.client()
        await client.remote.put(b"key", b"value")
        await cluster.until_equal()
        check.look(cluster)
        leader.raft.commit_index -= 1
        leader.raft.handed_index -= 1
        leader.raft.applied_index -= 1
        with pytest.raises(AssertionError, match="commit_index went back"):
            check.look(cluster)
        sim = cluster.nodes[leader.node_id]
        sim.crash()
        await sim.start()
        check.look(cluster)
        await client.close()

    tell(story)


def test_time_is_counted_in_the_slowest_nodes_timeouts():
    """Bounds hold for whoever waits longest: a clock that goes at half the speed, or else the settings."""

    async def story(cluster):
        assert cluster.election_timeout_s == Config().election_timeout_ms / 1000
        worlds = (Variety(cluster.config, random.Random(seed)) for seed in itertools.count())
        cluster.variety = next(world for world in worlds if min(world.habits().rate for _ in range(8)) < 0.6)
        rates = set()
        for _ in range(12):
            sim = cluster.nodes[2]
            sim.crash()
            await sim.start()
            found = sim.node.body.config.election_timeout_ms / 1000
            rates.add(found)
            assert cluster.election_timeout_s == max(found, Config().election_timeout_ms / 1000)
        assert max(rates) > Config().election_timeout_ms / 1000

    tell(story)


def test_a_world_that_does_not_come_to_itself_fails_in_bounded_time(monkeypatch):
    """Liveness: nobody mends it, so nobody leads, and the world says so after so many election time-outs."""

    async def leave_all_down(self):
        for sim in self._cluster.nodes.values():
            sim.crash()

    monkeypatch.setattr(Nemesis, "mend", leave_all_down)
    world = Simulation(1, size=3, duration_s=2.0)
    with pytest.raises(Failure, match=r"not within [\d.]+ s: a leader"):
        world.run()
    assert world.broken_at < 2.5 + LEADER_WITHIN * 2.5 * Config().election_timeout_ms / 1000


class Indexed(StateMachine):
    """A table that rows are found in by a field."""

    rows = Table(int, dict[str, int], index={"size": int})

    @command
    def put(self, key: int, size: int) -> int:
        """Keep a row."""
        self.rows[key] = {"size": size}
        return len(self.rows)


def test_an_index_or_count_that_is_not_what_the_rows_say_is_noticed():
    """On whichever node, and whether a row is not found by its field, or found by another, or not counted."""

    async def main():
        cluster = SimCluster(Indexed, 3, seed=1)
        await cluster.start()
        await cluster.until_leader()
        client = cluster.client()
        for key in range(20):
            await client.remote.put(key, key)
        TablesAreInStep().look(cluster)
        runner = cluster.leader.applier.runner
        start = Indexed.rows.prefix[:-1] + b"\2size\0"
        (place, _), *_ = runner.store.scan(start, start[:-1] + b"\1")
        row = Indexed.rows.prefix + Indexed.rows.keys.encode(99)
        for broken, whole, said in (
            ({place: None}, {place: b""}, "lacks the row 0"),
            ({place + b"x": b""}, {place + b"x": None}, "that the table does not have so"),
            ({row: b"\x81\xa4size\x01"}, {row: None}, "21 rows, and 20 are counted"),
        ):
            runner.store.write(broken, runner.applied)
            with pytest.raises(AssertionError, match=said):
                TablesAreInStep().look(cluster)
            runner.store.write(whole, runner.applied)
        TablesAreInStep().look(cluster)
        await client.close()

    SimLoop().run(main())
