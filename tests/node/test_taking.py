"""Taking snapshots and flushing the state: when, in which order, what stays of the log, and what an installation that
comes in between makes of it."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from unittest import mock

import pytest

from raftkv import failpoints
from raftkv.disk.simulated import SimDisk
from raftkv.errors import ChangeRefused, DiskError, DiskFull, NodeStopped, SnapshotCorruption, Unavailable
from raftkv.model import Membership
from raftkv.node.snapshots import taking
from raftkv.node.snapshots.flushing import Flushing
from raftkv.node.snapshots.taking import Taking
from raftkv.testing.world.loop import elapse
from tests.node.parts import Body, tell
from tests.snapshot.worlds import contents, open_store, write_files

INTERVAL_S = 30.0


class State:
    """A state at some index, which notes what is done to it; `meanwhile` has what happens during a step."""

    def __init__(self, disk, index):
        self.disk, self.steps, self.meanwhile = disk, [], {}
        self.applied = SimpleNamespace(index=index, term=1, time_ms=0, digest=index * 3)
        self.deletions = 0

    def keys_about(self):
        """However many were deleted."""
        return 100

    def _step(self, name):
        self.steps.append(name)
        self.meanwhile.get(name, lambda: None)()

    def flush(self):
        self._step("flush")

    def freeze(self):
        self._step("freeze")

    def thaw(self):
        self._step("thaw")

    def checkpoint(self, draft):
        self._step("checkpoint")
        write_files(self.disk, draft, contents(self.applied.index, (0, 1)))


class Log:
    """The core's view of a log whose entries have these sizes, from index 1."""

    def __init__(self, sizes):
        self.sizes = sizes
        self.start = SimpleNamespace(index=0)

    def chain(self, index):
        return index * 7

    def membership_at(self, index):
        return Membership.of((1, 2, 3))

    def bytes_between(self, after, last):
        """Those of the entries behind `after` up to `last`."""
        return sum(self.sizes[after:last])


class Node:
    """A node that has applied 100 entries of 10 bytes, and has no snapshot."""

    def __init__(self, index=100, **config):
        self.disk = SimDisk()
        self.store = open_store(self.disk, "/s")
        self.state = State(self.disk, index)
        self.log, self.cuts = Log([10] * 1_000), []
        raft = {
            "node_id": 1, "log": self.log, "snapshot": None, "snapshot_wanted": False, "installing": None,
            "wants_snapshot": False, "needed_behind": None, "has_room": True, "snapshot_taken": self.taken,
            "compact": self.compact,
        }  # fmt: skip
        settings = {"snapshot_entries": 50, "snapshot_interval_s": INTERVAL_S, "keep_entries": 10, "keep_bytes": 1_000}
        self.body = Body(raft, **{**settings, **config})
        self.access = SimpleNamespace(generation=0)
        self.runner = SimpleNamespace(store=self.state, applied=self.state.applied, access=self.access)
        self.applier = SimpleNamespace(
            runner=self.runner,
            applied_index=index,
            pause=lambda: self.state.steps.append("pause"),
            resume=lambda runner: self.state.steps.append("resume"),
        )
        self.flushing = Flushing(self.body, self.applier)
        self.taking = Taking(
            self.body, self.applier, self.flushing, SimpleNamespace(compact=self.cuts.append), self.store,
            cluster_id=lambda: "c", before_checkpoint=self.before, must_take=False,
        )  # fmt: skip

    def taken(self, snapshot):
        self.body.raft.snapshot = snapshot

    def compact(self, index):
        """The core forgets what is before."""
        self.log.start = SimpleNamespace(index=index)

    async def before(self, store):
        self.state._step("before")

    def apply(self, count):
        """Apply so many more entries."""
        self.applier.applied_index = self.state.applied.index = self.applier.applied_index + count

    async def looks(self, seconds):
        """Look every second, as often as that; returns how many snapshots were taken meanwhile."""
        before = self.taking.taken
        for _ in range(seconds):
            self.taking.maybe_take()
            await elapse(1)
        return self.taking.taken - before


STEPS = ["flush", "freeze", "pause", "before", "checkpoint", "resume", "thaw"]


def test_a_snapshot_is_taken_step_by_step():
    """The long flush comes before anything is held up; the core and the engine are told, and the log is cut."""

    async def story():
        node = Node()
        assert await node.taking.take() == 100
        assert node.state.steps == STEPS
        assert node.body.raft.snapshot == node.store.latest()
        assert (node.store.latest().index, node.store.latest().membership) == (100, Membership.of((1, 2, 3)))
        assert (node.log.start.index, node.cuts, node.body.turns) == (90, [90], 1)
        assert await node.taking.take() == 100
        assert (node.taking.taken, node.cuts) == (1, [90]), "it is there"

    tell(story)


def test_there_is_no_snapshot_of_nothing():
    """Before the first entry, whoever wants one; a state of one entry is one."""

    async def story():
        node = Node(index=0)
        node.body.raft.snapshot_wanted = True
        assert await node.looks(2) == 0
        assert node.state.steps == []
        assert await node.taking.take() == 0
        assert node.store.list() == []
        node.apply(1)
        assert await node.taking.take() == 1
        assert [snapshot.index for snapshot in node.store.list()] == [1]

    tell(story)


def test_one_that_is_due_waits_for_the_interval_and_one_that_is_wanted_does_not():
    """Each interval begins with the last snapshot, also with one that somebody asked for."""

    async def story():
        node = Node()
        assert await node.looks(int(INTERVAL_S)) == 0
        assert await node.looks(2) == 1
        node.apply(49)
        assert await node.looks(100) == 0, "too little has happened"
        node.apply(1)
        await node.taking.take()
        node.apply(50)
        assert await node.looks(int(INTERVAL_S)) == 0
        assert await node.looks(2) == 1
        node.apply(1)
        node.body.raft.snapshot_wanted = True
        assert await node.looks(1) == 1

    tell(story)


def test_a_damaged_snapshot_is_taken_anew_and_a_damaged_state_is_not():
    """What has rotted in the live state would get new checksums, and look sound."""

    async def story():
        node = Node()
        await node.taking.take()
        node.taking.damaged(node.store.latest(), SnapshotCorruption("rot"))
        assert node.store.list() == []
        node.taking.state_rot["000001.sst"] = "it is damaged"
        assert await node.looks(100) == 0
        with pytest.raises(Unavailable, match="it is damaged"):
            await node.taking.take()
        node.taking.state_rot.clear()
        assert await node.looks(1) == 1

    tell(story)


@pytest.mark.parametrize("during", ["flush", "freeze", "before", "checkpoint"])
def test_an_installation_that_comes_in_between_ends_it(during):
    """The state that was to be copied is not this node's any more: nothing is published, no later step is begun, and
    whoever installs goes on with the applier."""

    async def story():
        node = Node()

        def begin():
            node.body.raft.installing = "a snapshot"

        node.state.meanwhile[during] = begin
        with pytest.raises(Unavailable, match="being rebuilt"):
            await node.taking.take()
        assert node.store.list() == []
        last = STEPS[: STEPS.index(during) + 1]
        added = {"flush": [], "freeze": ["pause", "thaw"]}.get(during, ["thaw"])
        assert node.state.steps == last + added
        assert node.body.failures == []

    tell(story)


def test_whoever_asks_for_one_during_an_installation_is_told():
    """The state is not touched: it is about to be closed."""

    async def story():
        node = Node()
        node.body.raft.installing = "a snapshot"
        with pytest.raises(Unavailable, match="being rebuilt"):
            await node.taking.take()
        assert node.state.steps == []

    tell(story)


def test_none_is_begun_during_an_installation_and_that_does_not_cost_an_interval():
    """When it has ended, what was due is taken at once."""

    async def story():
        node = Node()
        await elapse(2 * INTERVAL_S)
        for name in ("installing", "wants_snapshot"):
            setattr(node.body.raft, name, True)
            assert await node.looks(5) == 0
            setattr(node.body.raft, name, None)
        node.body.has_ended = True
        assert await node.looks(5) == 0
        node.body.has_ended = False
        assert await node.looks(1) == 1

    tell(story)


@pytest.mark.parametrize(
    ("error", "stops"), [(DiskError("broken"), True), (DiskFull("full"), False), (Unavailable("later"), False)]
)
@pytest.mark.parametrize("asked", [True, False])
def test_only_what_makes_the_disk_doubtful_stops_the_node(error, stops, asked):
    """Whoever asked is told; a full disk is tried again later. A node that ends is not said to fail."""
    assert issubclass(DiskError, NodeStopped)

    async def story():
        node = Node()

        def fail():
            raise error

        node.state.meanwhile["flush"] = fail
        if asked:
            with pytest.raises(type(error)):
                await node.taking.take()
        else:
            node.body.raft.snapshot_wanted = True
            assert await node.looks(1) == 0
        gc.collect()
        assert node.body.failures == ([error] if stops else [])
        node.body.failures.clear()
        node.body.has_ended = True
        with pytest.raises(type(error)):
            await node.taking.take()
        assert node.body.failures == []

    tell(story)


def test_the_log_is_cut_in_the_order_that_its_failpoints_name(monkeypatch):
    """The core forgets first; then the disk; then old snapshots go. A core that refuses keeps all of them."""

    async def story():
        node = Node(snapshots_kept=1)
        found = []

        def reach(name):
            if name.startswith("snapshot."):
                found.append((name, node.log.start.index, list(node.cuts), node.store.count))

        await node.taking.take()
        node.apply(50)
        monkeypatch.setattr(failpoints, "reach", reach)
        await node.taking.take()
        assert found[0][0] == "snapshot.begun"
        assert [each for each in found if each[0].startswith("snapshot.before")] == [
            ("snapshot.before_told", 90, [90], 2),
            ("snapshot.before_log_cut", 140, [90], 2),
            ("snapshot.before_prune", 140, [90, 140], 2),
        ]
        assert [snapshot.index for snapshot in node.store.list()] == [150]
        node.apply(50)

        def refuse(index):
            raise ChangeRefused("a change is under way")

        node.body.raft.compact = refuse
        await node.taking.take()
        assert (node.cuts, node.store.count) == ([90, 140], 2)

    tell(story)


def test_a_log_that_is_short_enough_is_not_cut():
    """Neither the core nor the disk is bothered; old snapshots go all the same."""

    async def story():
        node = Node(keep_entries=500, keep_bytes=10_000, snapshots_kept=1)
        node.body.raft.compact = node.cuts.append
        for _ in range(2):
            await node.taking.take()
            node.apply(1)
        assert (node.cuts, node.store.count) == ([], 1)

    tell(story)


@pytest.mark.parametrize("keep_entries", [0, 10, 99, 500])
@pytest.mark.parametrize("keep_bytes", [0, 9, 10, 99, 100, 101, 10_000])
@pytest.mark.parametrize("start", [0, 95])
def test_the_log_keeps_as_much_as_it_may(keep_entries, keep_bytes, start):
    """Up to so many entries, and not more than so many bytes of them: what a plain search finds."""

    async def story():
        node = Node(keep_entries=keep_entries, keep_bytes=keep_bytes)
        node.compact(start)
        await node.taking.take()
        kept = [
            index
            for index in range(max(start, 100 - keep_entries), 101)
            if node.log.bytes_between(index, 100) <= keep_bytes
        ]
        assert node.log.start.index == kept[0]

    tell(story)


def test_the_log_keeps_what_a_follower_needs():
    """While that is no more than a snapshot has, as many entries as the core can remember, and the disk has room; a
    state that has shrunk lets go of it."""

    async def story():
        node = Node(index=300)
        raft, snapshot_bytes = node.body.raft, 10 * 100

        async def start_after(needed, room=True, entries_max=1_000):
            node.log.start = SimpleNamespace(index=0)
            raft.needed_behind, raft.has_room = needed, room
            with mock.patch.object(taking, "NEEDED_ENTRIES_MAX", entries_max):
                await node.taking._forget_behind(raft.snapshot)
            return node.log.start.index

        await node.taking.take()
        node.store.size = lambda snapshot: snapshot_bytes
        assert [await start_after(needed) for needed in (None, 199, 200, 250, 289, 290, 295, 300)] == [
            290, 290, 200, 250, 289, 290, 290, 290,
        ]  # fmt: skip
        assert await start_after(250, room=False) == 290
        assert await start_after(250, entries_max=30) == 270
        assert await start_after(250, entries_max=0) == 290
        await start_after(250)
        await node.taking.shed(0, tail_bytes=100)
        assert node.log.start.index == 290

    tell(story)


def test_the_state_is_flushed_when_enough_was_applied():
    """One flush at a time, none while the state is replaced; each counts from the one before, or from a snapshot."""

    async def story():
        node = Node(state_flush_entries=20)
        worker = node.body.world.background_worker
        worker.eager = False

        def flushes():
            node.flushing.maybe_flush()
            return len(worker.queue)

        assert flushes() == 0
        node.apply(19)
        assert flushes() == 0
        node.apply(1)
        node.body.raft.installing = "a snapshot"
        assert flushes() == 0
        node.body.raft.installing = None
        assert flushes() == 1
        node.apply(100)
        assert flushes() == 1, "one is under way"
        await worker.work_off()
        assert flushes() == 1
        await worker.work_off()
        assert flushes() == 0
        node.apply(20)
        node.flushing.flushed(node.state.applied.index - 1)
        node.flushing.flushed(1)
        assert flushes() == 0
        node.apply(19)
        assert flushes() == 1
        await worker.work_off()
        node.flushing.replaced(node.state.applied.index - 20)
        assert flushes() == 1
        await worker.work_off()
        assert node.state.steps == ["flush"] * 4
        node.apply(1)
        node.access.generation += 1
        assert flushes() == 1, "users and roles have changed"
        await worker.work_off()
        assert flushes() == 0

    tell(story)


def test_a_flush_that_fails_stops_the_node():
    """What was applied may be lost with the next crash, and nobody would know."""

    async def story():
        node = Node(state_flush_entries=20)

        def fail():
            raise DiskError("broken")

        node.state.meanwhile["flush"] = fail
        node.apply(20)
        node.flushing.maybe_flush()
        await elapse(0.1)
        assert [str(error) for error in node.body.failures] == ["broken"]

    tell(story)
