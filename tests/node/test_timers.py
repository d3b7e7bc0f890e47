"""Scheduled commands in whole clusters: each is run once and never early, through crashes, elections and snapshots."""

from __future__ import annotations

import pytest

from raftkv.config import MIB
from raftkv.machine import FIRED_AT_ONCE, NO_SESSION, StateMachine, Table, Value, command, every, query
from raftkv.model import EntryKind
from raftkv.testing import elapse, play, scenario
from tests.logged import capture_logs
from tests.node.shops import lead

JUMP_MS = 100_000


class Alarms(StateMachine):
    """Writes down what rang, when it was to, and when it did."""

    rang = Table(int, tuple[int, int, int])
    count = Value(int, 0)

    @command
    def set(self, after_ms: int, number: int) -> int:
        """One alarm; returns its handle."""
        return self.schedule(after_ms / 1000, Alarms.ring, number, self.now_ms + after_ms)

    @command
    def set_many(self, after_ms: int, count: int) -> None:
        """Many at once."""
        for number in range(count):
            self.schedule(after_ms / 1000, Alarms.ring, number, self.now_ms + after_ms)

    @command
    def stop(self, handle: int) -> bool:
        """No alarm."""
        return self.cancel(handle)

    @command
    def ring(self, number: int, due_ms: int) -> None:
        """It rings; below 0 it breaks."""
        self.count += 1
        self.rang[self.count] = number, due_ms, self.now_ms
        if number < 0:
            raise ValueError("broken")

    @query
    def all(self) -> list[tuple[int, int, int]]:
        """What rang."""
        return [each for _, each in self.rang.items()]

    @query
    def numbers(self) -> list[int]:
        """Of what rang."""
        return [number for _, (number, _, _) in self.rang.items()]


class Sweeper(StateMachine):
    """Sweeps every five seconds."""

    swept = Value(list[int], [])

    @command
    @every(5)
    def sweep(self) -> None:
        """A turn."""
        self.swept = [*self.swept, self.now_ms]

    @query
    def turns(self) -> list[int]:
        """When."""
        return self.swept


def dues(cluster):
    """How many entries that fire are in the leader's log."""
    log = cluster.leader.opened.log
    entries = log.load(cluster.leader.raft.log.first_index, cluster.leader.raft.log.last_index, MIB)
    return sum(each.kind == EntryKind.DUE for each in entries)


def never_early(rang):
    """Each at its time or later, by the log's time."""
    return all(at_ms >= due_ms for _, due_ms, at_ms in rang)


@scenario(Alarms)
async def test_an_alarm_rings_soon_after_its_time_and_once(cluster):
    """By an entry of its own; the order is that of the times."""
    alarms = cluster.client().remote
    for number, after_ms in ((1, 900), (2, 300), (3, 600)):
        await alarms.set(after_ms, number)
    await elapse(2)
    rang = await alarms.all()
    assert [number for number, _, _ in rang] == [2, 3, 1]
    assert never_early(rang)
    assert all(at_ms - due_ms <= 200 for _, due_ms, at_ms in rang)
    assert dues(cluster) == 3
    await cluster.until_equal()
    status = cluster.leader.status().timers
    assert (status.waiting, status.next_due_ms, status.fired, status.failed) == (0, None, 3, 0)


@scenario(Alarms)
async def test_an_idle_cluster_writes_nothing_and_many_that_are_due_are_few_entries(cluster):
    """A thousand alarms are four entries, one behind the other; while they wait, nothing is written."""
    alarms = cluster.client().remote
    await alarms.set_many(20_000, 1_000)
    await elapse(1)
    before = cluster.leader.raft.log.last_index
    await elapse(15)
    assert cluster.leader.raft.log.last_index == before
    assert cluster.leader.status().timers.waiting == 1_000
    await elapse(5)
    assert cluster.leader.raft.log.last_index == before + -(-1_000 // FIRED_AT_ONCE)
    rang = await alarms.all()
    assert [number for number, _, _ in rang] == list(range(1_000))
    assert len({at_ms for _, _, at_ms in rang}) > 1
    assert rang[-1][2] - rang[0][2] < 2 * cluster.config.tick_ms, "the next entry does not wait for a tick"
    await elapse(60)
    assert cluster.leader.raft.log.last_index == before + -(-1_000 // FIRED_AT_ONCE)


@scenario(Alarms, seed=5)
async def test_the_next_leader_rings_what_the_last_one_did_not(cluster):
    """Leaders crash one after the other while alarms are due: each rings once, on all nodes."""
    alarms = cluster.client(sessions=True, deadline_s=30).remote
    for number in range(60):
        await alarms.set(100 * number, number)
    for _ in range(4):
        await elapse(0.7)
        leader = await cluster.until_leader()
        cluster.nodes[leader.node_id].crash()
        await cluster.until_leader()
        await cluster.nodes[leader.node_id].start()
    await elapse(8)
    rang = await alarms.all()
    assert [number for number, _, _ in rang] == list(range(60))
    assert never_early(rang)
    await cluster.until_equal()


@scenario(Alarms, seed=6)
async def test_alarms_are_in_snapshots(cluster):
    """A node whose files are gone gets them, all find them after a crash, and any may lead."""
    alarms = cluster.client(deadline_s=30).remote
    for number in range(10):
        await alarms.set(5_000 + number, number)
    leader = await cluster.until_leader()
    await leader.orders.take_snapshot()
    behind = next(sim for sim in cluster.nodes.values() if sim.node_id != leader.node_id)
    behind.crash()
    await behind.start(rebuild=True)
    await cluster.until_equal()
    assert behind.node.status().timers.waiting == 10
    await leader.orders.take_snapshot()
    for sim in cluster.nodes.values():
        sim.crash()
    await cluster.start()
    leader = await cluster.until_leader()
    behind = next(sim for sim in cluster.nodes.values() if sim.node_id != leader.node_id)
    await cluster.until_equal()
    assert [node.status().timers.waiting for node in cluster.running] == [10, 10, 10]
    await leader.orders.transfer_leadership(behind.node_id)
    await elapse(6)
    assert await alarms.numbers() == list(range(10))


@scenario(Alarms, seed=7)
async def test_clocks_that_jump_ring_nothing_early_and_nothing_twice(cluster):
    """By the log's time; a reset of it leaves alarms at their times."""
    alarms = cluster.client(deadline_s=30).remote
    for number, after_ms in ((1, 2_000), (2, JUMP_MS // 2), (3, 3 * JUMP_MS)):
        await alarms.set(after_ms, number)
    for sim in cluster.nodes.values():
        sim.clock.set_wrong(JUMP_MS)
    await elapse(2)
    assert await alarms.numbers() == [1, 2]
    for sim in cluster.nodes.values():
        sim.clock.set_wrong(0)
    await elapse(2)
    leader = await cluster.until_leader()
    await alarms.set(1_000, 4)
    await leader.orders.reset_clock()
    await elapse(5)
    assert await alarms.numbers() == [1, 2]
    assert leader.status().timers.waiting == 2
    await elapse(JUMP_MS / 1000)
    assert await alarms.numbers() == [1, 2, 4]
    assert never_early(await alarms.all())
    await cluster.until_equal()


@scenario(Alarms, seed=8)
async def test_an_alarm_that_breaks_is_said_on_every_node_and_undone(cluster):
    """Once, as a mistake is, and counted; it does not stop others."""
    alarms = cluster.client().remote
    with capture_logs() as log:
        for number in (1, -2, 3):
            await alarms.set(500, number)
        await elapse(2)
        await cluster.until_equal()
    assert await alarms.numbers() == [1, 3]
    lines = [line for line in log if line["event"] == "method_raised"]
    assert sorted(line["node"] for line in lines) == [1, 2, 3]
    assert {(line["method"], line["error"]) for line in lines} == {("ring", "ValueError")}
    for node in cluster.running:
        assert (node.status().timers.fired, node.status().timers.failed) == (3, 1)
        assert node.status().mistakes == {"ring": 1}


@scenario(Alarms, seed=9)
async def test_a_cancelled_alarm_does_not_ring(cluster):
    """Though it was the next one, and its time had nearly come."""
    alarms = cluster.client().remote
    handle = await alarms.set(1_000, 1)
    await alarms.set(1_500, 2)
    await elapse(0.9)
    assert await alarms.stop(handle)
    assert not await alarms.stop(handle)
    await elapse(2)
    assert await alarms.numbers() == [2]


@scenario(Sweeper, seed=10)
async def test_what_repeats_does_so_through_elections(cluster):
    """From the cluster's founding on. What was missed while nobody led is one turn."""
    client = cluster.client(deadline_s=60)
    await elapse(21)
    assert len(await client.remote.turns()) == 4
    for sim in cluster.nodes.values():
        sim.crash()
    await elapse(30)
    await cluster.start()
    await cluster.until_leader()
    await elapse(1)
    turns = await client.remote.turns()
    assert len(turns) == 5
    await elapse(5)
    turns = await client.remote.turns()
    assert len(turns) == 6
    assert turns[-1] - turns[0] == pytest.approx(50_000, abs=400)
    await cluster.until_equal()


@scenario(Alarms, seed=12)
async def test_who_leads_again_rings_though_what_it_proposed_last_was_never_committed(cluster):
    """It was cut off with more in its log than the others have written since; what is due does not wait for that."""
    alarms = cluster.client(deadline_s=30).remote
    await alarms.set(300, 1)
    leader = await cluster.until_leader()
    for other in cluster.nodes:
        if other != leader.node_id:
            cluster.network.cut(leader.node_id, other)
    put, before = Alarms.methods["set"], leader.raft.log.last_index
    for number in range(20):
        payload = put.command_payload(NO_SESSION, 0, 0, put.encode_args((1, -number), {}))
        leader.requests.submit(payload, lambda *_: None)
    await elapse(0.4)
    assert leader.raft.log.last_index == before + 21, "the last of them rings"
    await cluster.until(lambda: cluster.leader is not None and cluster.leader is not leader, 30)
    await elapse(2)
    assert await alarms.numbers() == [1]
    cluster.network.heal()
    await cluster.until_equal()
    assert await lead(cluster, leader.node_id) is leader
    await alarms.set(300, 2)
    assert leader.raft.log.last_index < before + 21
    await elapse(2)
    assert await alarms.numbers() == [1, 2]


@pytest.mark.parametrize("size", [1, 3])
def test_an_entry_under_way_is_not_proposed_again(size):
    """Not at the next tick while it waits for a majority: the log would fill up."""

    async def story(cluster):
        alarms = cluster.client(deadline_s=30).remote
        await alarms.set(1_000, 1)
        leader = await cluster.until_leader()
        for sim in cluster.nodes.values():
            sim.hang()
        before = leader.raft.log.last_index
        await elapse(1.2)
        for sim in cluster.nodes.values():
            sim.unhang()
        await elapse(5)
        assert await alarms.numbers() == [1]
        assert leader.raft.is_leader
        assert (leader.raft.log.last_index, dues(cluster)) == (before + 1, 1)

    play(Alarms, story, size=size, seed=11)
