"""What was recovered is a node's, or is closed again; a state that proves damaged is made anew, once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from raftkv.errors import StateCorruption
from raftkv.kv import KeyValue
from raftkv.node import recovery
from raftkv.node.recovery import NoHost, recover
from raftkv.testing.world.loop import elapse
from tests.logged import capture_logs
from tests.node.directories import Directory
from tests.node.parts import Worker, tell


class Host(NoHost):
    """Keeps objects beside the state; each time that it loads them, the next of `errors` is met, if there is any."""

    def __init__(self, *errors):
        self.errors = [*errors]
        self.loads = 0

    def loaded(self, runner):
        self.loads += 1
        if self.errors:
            raise self.errors.pop(0)


class Start:
    """A start of node 1 on a directory at rest."""

    def __init__(self, *errors, eager=True):
        self.directory = Directory(applied=12, snapshots=(9,))
        self.disk = self.directory.disk
        self.host = Host(*errors)
        self.worker = Worker(eager=eager)
        self.aborts = 0
        self.transport = SimpleNamespace(abort=self._abort)

    def _abort(self):
        self.aborts += 1

    async def recover(self):
        """As a server begins."""
        world = self.directory.world
        world.background_worker, world.clock, world.draw = self.worker, lambda: 0.0, lambda count: 0
        with capture_logs():
            return await recover(KeyValue, self.directory.options, self.transport, world, self.host)

    def check_is_closed(self):
        """Nothing is open, and the directory can be started from again."""
        assert self.disk.open_files() == []
        self.directory.start()

    @property
    def is_marked(self):
        """Whether the next start is to make the state anew."""
        return self.disk.exists(self.directory.paths.unfit_state)


def test_what_nobody_made_a_node_of_is_closed_with_its_listener():
    """The address is free again, and so is the directory."""

    async def story():
        start = Start()
        found = await start.recover()
        assert found.raft.applied_index == 12 and start.disk.open_files() and start.aborts == 0
        await found.close()
        assert start.aborts == 1
        start.check_is_closed()

    tell(story)


def test_what_a_node_was_made_of_is_the_nodes_to_close():
    """Who closes it all the same, as a caller does that can't go on, takes nothing from the node."""

    async def story():
        start = Start()
        found = await start.recover()
        open_files = start.disk.open_files()
        found.taken()
        await found.close()
        assert open_files and start.disk.open_files() == open_files and start.aborts == 0

    tell(story)


def test_what_was_recovered_is_told_of_a_fork(monkeypatch):
    """The files are the parent's: a child that freed them would write to them."""
    told = []
    monkeypatch.setattr(recovery, "tell_of_fork", told.append)

    async def story():
        start = Start()
        found = await start.recover()
        assert told == [found]
        await found.close()

    tell(story)


def test_who_is_cancelled_while_a_directory_is_opened_leaves_nothing_open():
    """The worker opens it even so, as it can't be stopped, and closes it then."""

    async def story():
        start = Start(eager=False)
        task = asyncio.ensure_future(start.recover())
        await elapse(0)
        assert len(start.worker.queue) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert start.aborts == 1
        await start.worker.work_off()
        start.check_is_closed()

    tell(story)


def test_a_state_that_proves_damaged_when_it_is_loaded_is_made_anew():
    """Of the snapshot, and loaded again; nobody is asked."""

    async def story():
        start = Start(StateCorruption("a block is damaged"))
        found = await start.recover()
        assert found.raft.applied_index == 9 and start.host.loads == 2 and not start.is_marked
        await found.close()

    tell(story)


def test_a_state_that_is_damaged_again_stops_the_start():
    """It was made anew just now, so a third one would be no better."""

    async def story():
        start = Start(*(StateCorruption(f"damaged for the {each} time") for each in ("first", "second", "third")))
        with pytest.raises(StateCorruption, match="second"):
            await start.recover()
        assert start.host.loads == 2 and start.aborts == 1
        start.check_is_closed()

    tell(story)


def test_a_mistake_of_the_program_is_no_damage():
    """Its state is sound: it is told at once, and no state is thrown away for it."""

    async def story():
        start = Start(RuntimeError("a mistake"))
        with pytest.raises(RuntimeError, match="a mistake"):
            await start.recover()
        assert start.host.loads == 1 and not start.is_marked
        start.check_is_closed()

    tell(story)
