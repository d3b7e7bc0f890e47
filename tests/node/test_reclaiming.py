"""Space after deletions: when it is looked after, what is done in which order, and what is left alone."""

from __future__ import annotations

import asyncio

import pytest

from raftkv.config import Config
from raftkv.errors import DiskFull, StateCorruption
from raftkv.kv import KeyValue
from raftkv.node.snapshots.reclaiming import (
    HOLD_OFF_S,
    LATEST_S,
    PART_MIN,
    QUIET_S,
    REWRITING_S_MAX,
    Reclaiming,
)
from raftkv.testing import scenario
from raftkv.testing.world.loop import elapse
from tests.node.parts import tell
from tests.node.test_taking import Node
from tests.snapshot.worlds import contents, write_files

SPARE = 1_000


class Shrinking(Node):
    """A node with 100 keys of 100 bytes, whose database rewrites its files in `rewriting_s` after a flush."""

    def __init__(self, rewriting_s=1.0, **config):
        super().__init__(**config)
        self.rewriting_s, self.flushed_at = rewriting_s, None
        state = self.state
        state.deletions, state.keys, state.files = 0, 100, 10_000
        state.keys_about = lambda: state.keys
        state.approximate_bytes = lambda: state.files
        state.is_rewriting = self.is_rewriting
        state.checkpoint = self.checkpoint
        state.meanwhile["flush"] = self.flushed
        self.reclaiming = Reclaiming(self.body, self.applier, self.flushing, self.taking, self.store)

    def flushed(self):
        self.flushed_at = asyncio.get_running_loop().time()

    def is_rewriting(self):
        """Until the time has come; then the files have shrunk."""
        if self.flushed_at is None or asyncio.get_running_loop().time() < self.flushed_at + self.rewriting_s:
            return True
        self.state.files = 100 * self.state.keys
        return False

    def checkpoint(self, draft):
        self.state.steps.append("checkpoint")
        write_files(self.disk, draft, {"1.sst": bytes(self.state.files), **contents(self.applier.applied_index, (0,))})

    def delete(self, count):
        """Delete so many keys, by as many entries."""
        self.state.deletions += count
        self.state.keys -= count
        self.apply(count)

    async def pass_by(self, seconds):
        """Look four times a second, as a node does."""
        for _ in range(round(seconds * 4)):
            self.reclaiming.look()
            await elapse(0.25)

    def sizes(self):
        """Of the snapshots, oldest first."""
        return [self.store.manifest(each).manifest.total_bytes for each in self.store.list()]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """What is worth the work here."""
    monkeypatch.setattr(Config, "reclaim_bytes_min", SPARE)


def test_files_snapshots_and_log_shrink_with_the_state():
    """Once it is quiet: the deletions are flushed, then a snapshot is taken, older ones go, and the log is cut."""

    async def story():
        node = Shrinking(keep_entries=10_000, keep_bytes=100_000)
        node.log.sizes = [100] * 1_000
        await node.pass_by(0.25)
        await node.taking.take()
        assert node.sizes()[0] >= 10_000 and node.log.start.index == 0
        node.state.steps.clear()
        node.delete(90)
        await node.pass_by(QUIET_S - 0.25)
        assert node.state.steps == []
        await node.pass_by(QUIET_S + node.rewriting_s)
        assert node.state.steps[0] == "flush" and node.state.steps.count("checkpoint") == 1
        (size,) = node.sizes()
        assert size < 2_000
        assert node.log.start.index == 190 - SPARE // 100, "of the log as much stays as the state has, or is no matter"
        assert node.reclaiming.under_way is None
        node.state.steps.clear()
        await node.pass_by(60)
        assert node.state.steps == [], "that was it"

    tell(story)


@pytest.mark.parametrize("why", ["few keys", "little space", "a state that stays large"])
def test_what_is_not_worth_it_is_left_to_later_writes(why):
    """Less than a part of all keys, less space than nobody misses, and where nothing was won no snapshot is taken."""

    async def story():
        node = Shrinking()
        await node.pass_by(0.25)
        await node.taking.take()
        taken = node.taking.taken
        if why == "little space":
            node.state.files = 100
            node.store.drop(node.store.latest())
        node.delete(100 // PART_MIN - 1 if why == "few keys" else 30)
        await node.pass_by(30)
        assert node.taking.taken == taken
        assert node.log.start.index == 90
        assert ("flush" in node.state.steps[7:]) == (why == "a state that stays large")

    tell(story)


def test_deletions_without_an_end_are_not_waited_for():
    """Every second some more: it begins all the same, once."""

    async def story():
        node = Shrinking()
        await node.pass_by(0.25)
        for second in range(round(LATEST_S) + 1):
            assert (node.flushed_at is not None) == (second > LATEST_S)
            node.delete(4)
            await node.pass_by(1)
        assert node.flushed_at is not None

    tell(story)


def test_a_snapshot_that_is_being_sent_goes_when_it_is_not_needed_any_more():
    """It is pinned as long as somebody reads it."""

    async def story():
        node = Shrinking()
        await node.pass_by(0.25)
        await node.taking.take()
        old = node.store.latest()
        node.store.pin(old)
        node.delete(90)
        await node.pass_by(10)
        assert len(node.sizes()) == 2 and node.store.list()[0] == old
        node.store.unpin(old)
        await node.pass_by(1)
        assert old not in node.store.list() and len(node.sizes()) == 1

    tell(story)


def test_a_snapshot_of_the_same_entry_that_came_before_is_replaced_after_the_next_entry():
    """It links to the old files, and there is no second one of one entry."""

    async def story():
        node = Shrinking(rewriting_s=5.0)
        await node.pass_by(0.25)
        node.delete(90)
        await node.pass_by(QUIET_S + 1)
        await node.taking.take()
        await node.pass_by(20)
        assert node.sizes()[0] >= 10_000
        node.apply(1)
        await node.pass_by(1)
        (size,) = node.sizes()
        assert size < 2_000

    tell(story)


def test_a_snapshot_that_is_due_waits_for_the_rewriting_but_not_for_long():
    """Else it would keep the old files; but one that never ends must not stop all snapshots."""

    async def story():
        node = Shrinking(rewriting_s=1_000.0)
        await node.pass_by(0.25)
        assert not node.reclaiming.holds_off
        node.delete(90)
        await node.pass_by(QUIET_S + 1)
        assert node.reclaiming.holds_off
        await node.pass_by(HOLD_OFF_S)
        assert not node.reclaiming.holds_off and node.reclaiming.under_way is not None
        await node.pass_by(REWRITING_S_MAX)
        assert node.reclaiming.under_way is None

    tell(story)


def test_an_installation_comes_first_and_another_state_begins_anew():
    """Nothing is begun meanwhile; what was deleted in the state before is no matter."""

    async def story():
        node = Shrinking()
        await node.pass_by(0.25)
        node.delete(90)
        node.body.raft.installing = object()
        await node.pass_by(10)
        assert node.flushed_at is None
        node.body.raft.installing = None
        node.runner.store = other = Shrinking().state
        other.deletions = 50
        await node.pass_by(10)
        assert "flush" not in other.steps

    tell(story)


@pytest.mark.parametrize(("step", "stops"), [("flush", True), ("checkpoint", False)])
def test_a_full_disk_stops_the_node_where_it_would_anyway(step, stops):
    """A flush has to be done sooner or later; a snapshot that is not taken does no harm, and is not tried for ever."""

    async def story():
        node = Shrinking()
        await node.pass_by(0.25)

        error, tried = DiskFull("full"), []

        def fail(*_):
            tried.append(step)
            raise error

        if step == "flush":
            node.state.meanwhile["flush"] = fail
        else:
            node.state.checkpoint = fail
        node.delete(90)
        await node.pass_by(20)
        assert len(tried) == 1
        assert node.body.failures == ([error] if stops else [])

    tell(story)


def test_keys_that_come_and_go_are_no_reason():
    """A queue, leases, a history that forgets: all is deleted again and again, and there are as many keys as before."""

    async def story():
        node = Shrinking()
        for _ in range(60):
            node.state.deletions += 50
            node.apply(100)
            await node.pass_by(1)
        assert node.flushed_at is None and node.reclaiming.under_way is None

    tell(story)


def test_what_was_not_worth_it_is_done_less_and_less():
    """Some keys go and others come, again and again: the files are rewritten for that twice, and then for half of all
    keys; once it was worth it, it begins anew."""

    async def story():
        node = Shrinking()
        await node.pass_by(0.25)
        await node.taking.take()

        async def come_and_go(count):
            node.state.steps.clear()
            node.delete(count)
            await node.pass_by(10)
            flushes = node.state.steps.count("flush") - node.state.steps.count("checkpoint")
            node.state.keys = 100
            node.state.files = 10_000
            node.apply(count)
            await node.pass_by(1)
            return flushes

        assert [await come_and_go(13) for _ in range(4)] == [1, 1, 0, 0]
        assert [await come_and_go(30) for _ in range(3)] == [1, 0, 0]
        assert await come_and_go(90) == 1, "a snapshot was taken"
        assert await come_and_go(13) == 1

    tell(story)


def test_a_state_that_grows_again_is_not_followed_by_one_snapshot_after_the_other():
    """It was small for a moment only, before the snapshot: whether one is due goes by the settings again."""

    async def story():
        node = Shrinking()
        await node.pass_by(0.25)
        await node.taking.take()
        node.delete(90)

        def grow():
            node.state.files = 50_000

        node.state.meanwhile["before"] = grow
        await node.pass_by(QUIET_S + 5)
        before = node.taking.taken
        assert node.sizes()[-1] >= 50_000
        for _ in range(20):
            node.apply(1)
            await node.pass_by(1)
        assert node.taking.taken - before <= 1

    tell(story)


@pytest.mark.parametrize("step", ["flush", "is_rewriting", "approximate_bytes"])
def test_a_state_that_is_replaced_meanwhile_is_not_asked_any_more(step):
    """It is closed, which is no damage: the node goes on with the one that was installed."""

    async def story():
        node = Shrinking(rewriting_s=5.0)
        await node.pass_by(0.25)
        node.delete(90)
        steps = {"flush": node.state.flush, "is_rewriting": node.is_rewriting, "approximate_bytes": lambda: 10_000}
        closed = []

        def close_behind():
            result = steps[step]()
            node.body.raft.installing = object()
            for name in steps:
                setattr(node.state, name, close_state)
            return result

        def close_state():
            closed.append(step)
            raise StateCorruption("the database is closed")

        setattr(node.state, step, close_behind)
        await node.pass_by(QUIET_S + 20)
        assert node.body.raft.installing is not None
        assert (closed, node.body.failures, node.reclaiming.under_way) == ([], [], None)

    tell(story)


def test_a_large_snapshot_stays_until_the_core_knows_of_the_one_that_replaces_it():
    """It may send the one that it knows of to a follower."""

    async def story():
        node = Shrinking()
        await node.pass_by(0.25)
        await node.taking.take()
        old = node.body.raft.snapshot
        node.body.raft.snapshot_taken = lambda snapshot: None
        node.state.files = 100
        node.apply(1)
        await node.taking.take()
        await node.pass_by(2)
        assert old in node.store.list()
        node.body.raft.snapshot = node.store.latest()
        await node.pass_by(2)
        assert old not in node.store.list()

    tell(story)


@scenario(KeyValue, size=1, seed=1)
async def test_the_power_may_go_before_each_step(cluster):
    """Of all that is done on the disk from the last deletion on: what lives is there, what was deleted is not, and the
    next try gets to the end."""
    sim, client, number, is_done = cluster.nodes[1], cluster.client(), 0, False
    keys = [b"key-%d" % at for at in range(6)]
    while not is_done:
        number += 1
        for key in keys:
            await client.remote.put(key, b"x" * 2_000)
        await sim.node.orders.take_snapshot()
        await elapse(1)
        for key in keys[1:]:
            await client.remote.delete(key)
        sim.crash_at_operation(number)
        await elapse(QUIET_S + 3)
        is_done = sim.is_up
        sim.mend_disk()
        await cluster.start()
        assert [await client.remote.get(key) is not None for key in keys] == [True] + 5 * [False]
    assert number > 30
    store = sim.node.opened.snapshots
    (only,) = store.list()
    assert store.manifest(only).manifest.total_bytes < 6_000 < 6 * 2_000
    await client.close()


def test_what_is_kept_of_the_log_for_a_follower_goes_when_the_disk_has_no_room():
    """No further snapshot would cut it, as nobody may write any more. It is cut once, to what is kept for all."""

    async def story():
        node = Shrinking()
        raft = node.body.raft
        raft.needed_behind = 5
        await node.pass_by(0.25)
        await node.taking.take()
        await node.pass_by(60)
        assert node.log.start.index == 5 and node.cuts == [5]
        raft.has_room = False
        await node.pass_by(60)
        assert node.log.start.index == 90 and node.cuts == [5, 90]
        assert node.taking.taken == 1

    tell(story)
