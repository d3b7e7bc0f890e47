"""Simulated wall clocks, and the check that log time is bounded by them (F82)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from raftkv.core import clocks
from raftkv.kv import KeyValue
from raftkv.testing.judging import logtime
from raftkv.testing.judging.logtime import LogTimeIsBounded
from raftkv.testing.world.clocks import WallClock
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop, elapse

HOUR = 3_600_000


class Time:
    """A world's time, by hand."""

    def __init__(self):
        self.s = 0.0
        self.clock = WallClock(lambda: self.s, 1_000_000)

    @property
    def wrong(self):
        """By how much the clock is wrong now."""
        return self.clock.now_ms() - 1_000_000 - round(self.s * 1000)

    @property
    def latest(self):
        """The same of the latest that it showed within ten seconds."""
        return round(self.clock.latest_ms(10.0) - 1_000_000 - self.s * 1000)


def test_a_clock_is_set_and_goes_at_its_rate():
    """What it gains by itself stays when it is set, and goes on from there; mended, it is right."""
    time = Time()
    time.s = 10.0
    time.clock.set_wrong(500)
    assert time.wrong == 500
    time.clock.go_at(2.0)
    time.s = 11.0
    assert time.wrong == 1_500
    time.clock.set_wrong(0)
    assert time.wrong == 1_000
    time.clock.beat_at(0.5)
    time.s = 13.0
    assert time.wrong == 1_000, "twice as fast as something that goes at half the speed"
    time.clock.set_right()
    assert (time.wrong, time.clock.set_ms) == (0, 0)


def test_the_latest_that_a_clock_showed_is_remembered():
    """For as long as one looks back: who heard of it then may go by it now."""
    time = Time()
    time.s = 5.0
    time.clock.set_wrong(HOUR)
    time.s = 6.0
    time.clock.set_wrong(-HOUR)
    assert (time.wrong, time.latest) == (-HOUR, HOUR)
    time.s = 15.9
    assert time.latest == HOUR
    time.s = 16.1
    assert time.latest == -HOUR


def tell(story):
    """Tell `story(cluster, check)` with three nodes that have a leader."""
    loop = SimLoop()

    async def main():
        cluster = SimCluster(KeyValue, 3, seed=1)
        await cluster.start()
        await cluster.until_leader()
        client = cluster.client(deadline_s=5.0)
        await elapse(1)
        await story(cluster, LogTimeIsBounded(), client.remote)
        await client.close()
        await cluster.stop()

    loop.run(main())


def test_a_leader_that_believes_its_own_clock_is_found_out(monkeypatch):
    """As leaders were before: the check sees the first entry that is an hour ahead."""
    monkeypatch.setattr(clocks, "present_ms", lambda raft, role: raft.now_ms)

    async def story(cluster, check, remote):
        check.look(cluster)
        cluster.nodes[cluster.leader.node_id].clock.set_wrong(HOUR)
        await remote.put(b"a", b"1")
        with pytest.raises(AssertionError, match=r"stamped \d+@\d+ 3[56]\d{5} ms ahead of the median"):
            check.look(cluster)

    tell(story)


@pytest.mark.parametrize("is_reset", [True, False])
def test_time_goes_back_at_a_reset_only(monkeypatch, is_reset):
    """An entry of another kind that did would be found out."""

    async def story(cluster, check, remote):
        for sim in cluster.nodes.values():
            sim.clock.set_wrong(HOUR)
        await elapse(1)
        await remote.put(b"a", b"1")
        check.look(cluster)
        for sim in cluster.nodes.values():
            sim.clock.set_wrong(0)
        await elapse(20)
        await remote.put(b"a", b"2")
        check.look(cluster)
        await cluster.leader.orders.reset_clock()
        await remote.put(b"a", b"3")
        if is_reset:
            check.look(cluster)
            return
        monkeypatch.setattr(logtime, "EntryKind", SimpleNamespace(CLOCK=-1))
        with pytest.raises(AssertionError, match=r"entry \d+@\d+ goes back by 3[56]\d{5} ms"):
            check.look(cluster)

    tell(story)
