"""Worlds differ, nodes of one world differ, and what clients and nodes come to is counted."""

from __future__ import annotations

import random

import pytest

from raftkv.config import MIB, Config
from raftkv.errors import Rejected
from raftkv.testing.judging.history import History
from raftkv.testing.judging.watching import look
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop, elapse
from raftkv.testing.world.settings import CONFIG
from raftkv.testing.world.variety import CLOCK_DRIFT, CLOCK_RATE, LEASES, SMALL_BATCHES, WITHOUT_PRE_VOTE, Variety
from raftkv.worlds.sightings import BEFORE_FIRST_COMMIT, JOINT_WITHOUT, VOTERS, Sightings
from raftkv.worlds.simulation import Simulation
from raftkv.worlds.workload import AT_LIMIT, OVER_LIMIT, Clients, Workload

WORLDS = [Variety(CONFIG, random.Random(seed)) for seed in range(60)]


def test_clocks_go_fast_and_slow_but_with_leases_within_what_is_promised():
    """F73: from half to twice as fast, or by 100 to 1,000 millionths, as sound oscillators are; a lease trusts clocks
    that differ by no more than `clock_drift_max`."""
    rates = {True: set(), False: set()}
    for world in WORLDS:
        for habits in (world.habits() for _ in range(20)):
            rates[habits.config.lease_reads].add(habits.rate)
            assert (abs(habits.rate - 1.0) > 0.01) == (CLOCK_RATE in habits.kinds)
            drifts = habits.rate != 1.0 and CLOCK_RATE not in habits.kinds
            assert not drifts or (CLOCK_DRIFT in habits.kinds and 0.000099 <= abs(habits.rate - 1.0) <= 0.0011)
            assert (LEASES in habits.kinds) == habits.config.lease_reads
    assert 0.499 < min(rates[False]) <= 0.5
    assert max(rates[False]) > 2.0
    assert 1.0 < max(rates[True]) / min(rates[True]) < 1 + CONFIG.clock_drift_max


def test_a_fast_clock_counts_as_many_ticks_to_everything():
    """A node can't tell how fast its clock goes: in ticks, all of its settings are those of the others."""
    for world in WORLDS:
        cores = [world.habits().config.raft() for _ in range(10)]
        assert len({(core.election_ticks, core.heartbeat_ticks) for core in cores}) == 1


def test_some_nodes_do_without_pre_vote_and_some_batches_are_small():
    """F42: from one start to the next. F32: from one byte of records on, which is less than any record."""
    habits = [(world, world.habits()) for world in WORLDS for _ in range(10)]
    cores = [each.config.raft() for _, each in habits]
    assert {core.pre_vote for core in cores} == {True, False}
    assert {core.batch_bytes_max for core in cores} >= {1, MIB}
    for (_, each), core in zip(habits, cores, strict=True):
        assert (WITHOUT_PRE_VOTE in each.kinds) == (not core.pre_vote)
        assert (SMALL_BATCHES in each.kinds) == (core.batch_bytes_max < MIB)
    mixed = [world for world, each in habits if not each.config.raft().pre_vote]
    assert any(world.habits().config.raft().pre_vote for world in mixed)


def test_worlds_are_of_every_size():
    """F58: from one node to seven."""
    assert {Simulation(seed)._size for seed in range(300)} == set(range(1, 8))


def test_a_command_that_raises_has_no_effect():
    """F75: it wrote before it raised, and nothing of that is there, on any node."""

    async def story():
        cluster = SimCluster(Workload, 3, seed=1)
        await cluster.start()
        client = cluster.client(sessions=True)
        await client.remote.append(b"l", b"1")
        with pytest.raises(Rejected, match="spoiled"):
            await client.remote.spoil(b"l", b"2")
        assert await client.remote.append(b"l", b"3") == 2
        assert await client.remote.items(b"l") == [b"1", b"3"]
        await cluster.until_equal()
        await client.close()
        await cluster.stop()

    SimLoop().run(story())


def test_values_at_the_limit_are_on_both_sides_of_it():
    """F33: some commands are as large as may be, and some are refused; nothing else happens to the clients."""

    async def story():
        cluster = SimCluster(Workload, 3, seed=1, config=Config(command_bytes_max=2048))
        await cluster.start()
        clients = Clients(1, History(), 2048)
        dice = random.Random(1)
        client = cluster.client(sessions=True)
        for _ in range(3_000):
            await clients._operate(client, 1, dice)
        await client.close()
        await cluster.stop()
        return clients.met({})

    met = SimLoop().run(story())
    assert met[AT_LIMIT] > 10
    assert met[OVER_LIMIT] > 2


def test_what_a_world_comes_to_is_counted_once():
    """A term's leader before its first commit, a size, a joint membership with a node down: however often looked."""

    async def story():
        cluster = SimCluster(Workload, 3, seed=1)
        sightings = [Sightings(cluster)]
        await cluster.start()
        cluster.network.delay_s = 0.02
        for _ in range(400):
            await elapse(0.005)
            look(cluster, sightings)
        assert cluster.fired == {BEFORE_FIRST_COMMIT: 1, VOTERS[2]: 1}
        leader = cluster.leader.node_id
        gone = leader % 3 + 1
        cluster.nodes[gone].crash()
        removing = cluster.loop.create_task(cluster.leader.orders.remove(gone))
        while not removing.done():
            await elapse(0.005)
            look(cluster, sightings)
        look(cluster, sightings)
        assert cluster.fired == {BEFORE_FIRST_COMMIT: 1, VOTERS[2]: 1, JOINT_WITHOUT: 1, VOTERS[1]: 1}
        await cluster.nodes[leader].stop()

    SimLoop().run(story())
