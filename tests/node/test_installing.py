"""Making a snapshot the state: nothing else happens meanwhile, each step may be the last, and a failed one stops the
node."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from raftkv import failpoints
from raftkv.disk.simulated import SimDisk
from raftkv.errors import DiskError, NodeStopped
from raftkv.log import VoteFile
from raftkv.model import HardState, LogStart
from raftkv.node.snapshots import installing
from raftkv.node.snapshots.installing import Installing
from raftkv.testing.world.loop import elapse
from tests.log.logs import IDENTITY, VOTE, append, entries_behind, last_of, open_log
from tests.node.parts import Body, tell
from tests.snapshot.worlds import contents, meta, open_store, publish

SNAPSHOT = meta(20)
POINTS = (
    "install.before_bound",
    "install.before_log_reset",
    "install.before_swap",
    "install.old_closed",
    "install.before_told",
)


class Node:
    """A node with 40 entries in its log, the bound in its vote file, and a state at 5; a snapshot of 20 has arrived."""

    def __init__(self, monkeypatch):
        self.disk, self.steps = SimDisk(), []
        self.store = open_store(self.disk, "/n/snapshots")
        for snapshot in (meta(1), meta(2), meta(3), SNAPSHOT):
            publish(self.store, snapshot, contents(snapshot.index, (0, 1)))
        self.log = open_log(self.disk)
        append(self.log, entries_behind(last_of(self.log), 1, [40] * 40))
        self.vote = VoteFile.create(self.disk, VOTE, IDENTITY, HardState(3, 2))
        self.vote.write(HardState(3, 2), 40)
        self.body = Body({"node_id": 1, "snapshot_installed": lambda: self.steps.append("core told")})
        self.body.paths = SimpleNamespace()
        self.old, self.new = self.state("old", 5), self.state("new", 20)
        self.applier = SimpleNamespace(
            runner=SimpleNamespace(store=self.old),
            pause=lambda: self.steps.append("applier pauses"),
            resume=lambda runner: self.steps.append(f"applier goes on at {runner.store.applied.index}"),
        )
        self.taking = SimpleNamespace(under_way=None, state_rot={"000001.sst": "rot"})
        self.flushed = []
        self.writer_is_idle, self.scans_are_held = asyncio.Event(), asyncio.Event()
        self.writer_is_idle.set()
        self.scans_are_held.set()
        monkeypatch.setattr(installing, "restore_state", self.restore)
        monkeypatch.setattr(failpoints, "reach", self.reach)
        self.stop_at = None
        self.installing = Installing(
            self.body, self.applier,
            SimpleNamespace(hold=self.scans_are_held.wait, resume=lambda: self.steps.append("scans go on")),
            SimpleNamespace(idle=self.writer_is_idle.wait),
            taking=self.taking, flushing=SimpleNamespace(replaced=self.flushed.append), log=self.log, vote=self.vote,
            store=self.store, new_runner=lambda store: SimpleNamespace(store=store),
        )  # fmt: skip

    def state(self, name, index):
        return SimpleNamespace(
            applied=SimpleNamespace(index=index), close=lambda: self.steps.append(f"{name} state closed")
        )

    def restore(self, world, paths, store, snapshot, identity):
        assert (world, paths, store, snapshot) == (self.body.world, self.body.paths, self.store, SNAPSHOT)
        assert identity == IDENTITY
        self.steps.append("new state opened")
        return self.new

    def reach(self, name):
        if name == self.stop_at:
            raise NodeStopped(name)
        if name.startswith("install."):
            self.steps.append(name)
        return False

    async def ends(self):
        """Wait for the end."""
        while self.installing.under_way is not None:
            await elapse(1)


def test_a_snapshot_is_installed_step_by_step(monkeypatch):
    """First the bound, then the log, then the state; the core is told before anything goes on; old snapshots go."""

    async def story():
        node = Node(monkeypatch)
        node.installing.begin(SNAPSHOT, keeps_log=False)
        await node.ends()
        assert node.steps == [
            "applier pauses", "install.before_bound", "install.before_log_reset", "install.before_swap",
            "old state closed", "install.old_closed", "new state opened", "install.before_told", "core told",
            "applier goes on at 20", "scans go on",
        ]  # fmt: skip
        assert (node.installing.installed, node.flushed, node.taking.state_rot) == (1, [20], {})
        assert (node.log.start, node.vote.durable_index) == (SNAPSHOT.log_start, 20)
        assert node.body.turns == 1
        assert not node.store.has_arrived(SNAPSHOT)
        assert node.store.count == node.body.config.snapshots_kept
        assert node.body.failures == []

    tell(story)


def test_a_log_that_agrees_is_kept(monkeypatch):
    """Then a vote file that counts on its entries still does."""

    async def story():
        node = Node(monkeypatch)
        node.installing.begin(SNAPSHOT, keeps_log=True)
        await node.ends()
        assert (node.log.start, node.log.last_index, node.vote.durable_index) == (LogStart(), 40, 40)
        assert node.installing.installed == 1

    tell(story)


@pytest.mark.parametrize("keeps_log", [True, False])
def test_it_waits_for_everything_that_uses_the_old_state(keeps_log, monkeypatch):
    """A snapshot that is being taken, writes that are under way, queries that read: only then is the state closed."""

    async def story():
        node = Node(monkeypatch)
        node.taking.under_way = asyncio.get_running_loop().create_future()
        node.writer_is_idle.clear()
        node.scans_are_held.clear()
        node.installing.begin(SNAPSHOT, keeps_log=keeps_log)
        await elapse(1)
        assert node.steps == ["applier pauses"]
        node.taking.under_way.set_exception(DiskError("it failed, which is for others to see"))
        await elapse(1)
        assert node.steps == ["applier pauses"]
        node.writer_is_idle.set()
        await elapse(1)
        assert "install.before_swap" not in node.steps
        node.scans_are_held.set()
        await node.ends()
        assert node.installing.installed == 1
        assert node.body.failures == []

    tell(story)


def test_nothing_is_replaced_on_a_node_that_has_failed_meanwhile(monkeypatch):
    """Its last writes may not be on disk; the next start finds the snapshot, and judges by what it finds."""

    async def story():
        node = Node(monkeypatch)
        node.writer_is_idle.clear()
        node.installing.begin(SNAPSHOT, keeps_log=False)
        await elapse(1)
        node.body.failure = NodeStopped("a write failed")
        node.writer_is_idle.set()
        await node.ends()
        assert node.steps == ["applier pauses"]
        assert (node.log.last_index, node.vote.durable_index) == (40, 40)

    tell(story)


@pytest.mark.parametrize("point", POINTS)
def test_a_step_that_fails_stops_the_node(point, monkeypatch):
    """Half of it is done, so nothing goes on; only a start can finish it. A node that ends is not said to fail."""

    async def story():
        node = Node(monkeypatch)
        node.stop_at = point
        node.installing.begin(SNAPSHOT, keeps_log=False)
        await node.ends()
        assert [str(error) for error in node.body.failures] == [point]
        assert not [step for step in node.steps if "told" in step or "goes on" in step]
        assert node.store.has_arrived(SNAPSHOT), "it may be ahead of the log until it is installed"
        for has_ended in (False, True):
            other = Node(monkeypatch)
            other.body.has_ended = has_ended
            other.stop_at = point
            other.installing.begin(SNAPSHOT, keeps_log=False)
            await other.ends()
            assert len(other.body.failures) == (not has_ended)

    tell(story)


def test_a_node_that_is_let_go_of_does_not_fail(monkeypatch):
    """The task is cancelled, as a crash does."""

    async def story():
        node = Node(monkeypatch)
        node.writer_is_idle.clear()
        node.installing.begin(SNAPSHOT, keeps_log=False)
        await elapse(1)
        node.installing.under_way.cancel()
        await node.ends()
        assert node.body.failures == []

    tell(story)
