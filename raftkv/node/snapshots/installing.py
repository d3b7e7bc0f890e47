"""Replaces the state by a snapshot that has arrived, and resets the log if it does not agree with the snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raftkv import failpoints
from raftkv.durations import Durations
from raftkv.log import Log, VoteFile
from raftkv.logs import EventLog
from raftkv.machine import Runner
from raftkv.model import SnapshotMeta
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.scans import Scans
from raftkv.node.snapshots.flushing import Flushing
from raftkv.node.snapshots.taking import Taking
from raftkv.node.statefiles import restore_state
from raftkv.node.writer import Writer
from raftkv.snapshot import SnapshotStore
from raftkv.state import Store

logger = EventLog(__name__)

failpoints.declare(
    __name__,
    {
        "install.before_bound": "a snapshot is about to take the log's place",
        "install.before_log_reset": "the bound of what must be in the log is lowered, and the log is still there",
        "install.before_swap": "the log continues a snapshot that is not the state yet",
        "install.old_closed": "the old state is closed",
        "install.before_told": "a snapshot is the state, and the core does not know",
    },
)


class Installing:
    """Installs one snapshot at a time, while nothing is applied, written or taken. After a crash in the middle, the
    next start finishes the installation."""

    def __init__(
        self,
        body: Body,
        applier: Applier,
        scans: Scans,
        writer: Writer,
        *,
        taking: Taking,
        flushing: Flushing,
        log: Log,
        vote: VoteFile,
        store: SnapshotStore,
        new_runner: Callable[[Store], Runner],
    ) -> None:
        """`new_runner` runs the state machine on the new state."""
        self._body = body
        self._applier = applier
        self._scans = scans
        self._writer = writer
        self._taking = taking
        self._flushing = flushing
        self._log = log
        self._vote = vote
        self._store = store
        self._new_runner = new_runner
        self.under_way: asyncio.Task[None] | None = None
        self.installed = 0
        """How many snapshots were installed since the start."""
        self.took = Durations()

    def begin(self, snapshot: SnapshotMeta, keeps_log: bool) -> None:
        """Begin to install a snapshot. The log is reset unless it agrees with the snapshot (`keeps_log`)."""
        self._applier.pause()
        self.under_way = asyncio.ensure_future(self._install(snapshot, keeps_log))
        self.under_way.add_done_callback(self._install_ended)

    async def _install(self, snapshot: SnapshotMeta, keeps_log: bool) -> None:
        """The snapshot is durable before the first step, so a start can go on after a crash between any two steps."""
        body, world = self._body, self._body.world
        began = asyncio.get_running_loop().time()
        if self._taking.under_way is not None:
            await asyncio.wait([self._taking.under_way])
        await self._writer.idle()
        if body.failure is not None:
            return  # the writes may not be on disk; the next start finds the snapshot
        if not keeps_log:
            await world.background_worker.run(self._store.expect, snapshot)
            await world.log_worker.run(self._reset_log, snapshot)
        old = self._applier.runner.store
        await self._scans.hold()
        store = await world.background_worker.run(self._swap_state, old, snapshot)
        failpoints.reach("install.before_told")
        body.raft.snapshot_installed()
        self._taking.state_rot.clear()
        self._applier.resume(self._new_runner(store))
        self._scans.resume()
        self._flushing.replaced(store.applied.index)
        self.installed += 1
        self.took.note(asyncio.get_running_loop().time() - began)
        body.wake()
        logger.info(
            "snapshot_installed",
            index=snapshot.index,
            term=snapshot.term,
            seconds=round(asyncio.get_running_loop().time() - began, 3),
            log="kept" if keeps_log else "reset",
        )
        await world.background_worker.run(self._store.settle)
        retired = self._store.retire(body.config.snapshots_kept)
        await world.background_worker.run(self._store.prune, retired)

    def _reset_log(self, snapshot: SnapshotMeta) -> None:
        """Runs on the log's worker. The vote file's bound is lowered first; otherwise a start would take the cut for
        lost entries."""
        failpoints.reach("install.before_bound")
        self._vote.write(self._vote.hard_state, min(self._vote.durable_index, snapshot.index))
        failpoints.reach("install.before_log_reset")
        self._log.reset(snapshot.log_start)

    def _swap_state(self, old: Store, snapshot: SnapshotMeta) -> Store:
        """Runs on the background worker."""
        failpoints.reach("install.before_swap")
        old.close()
        failpoints.reach("install.old_closed")
        return restore_state(self._body.world, self._body.paths, self._store, snapshot, self._vote.identity)

    def _install_ended(self, task: asyncio.Task[None]) -> None:
        self.under_way = None
        if not task.cancelled() and (error := task.exception()) is not None and not self._body.has_ended:
            self._body.fail(error)
