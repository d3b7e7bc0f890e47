"""Snapshots of a running node: when one is taken, what the log may forget then, how one becomes the state."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from raftkv import failpoints
from raftkv.errors import ChangeRefused, DiskFull, NodeStopped, RaftKVError, SnapshotCorruption, Unavailable
from raftkv.logs import EventLog
from raftkv.model import Index, NodeId, SnapshotMeta
from raftkv.node.directory import Opened
from raftkv.node.receiving import Receiving
from raftkv.node.sending import Sending
from raftkv.node.statefiles import restore_state
from raftkv.node.status import SnapshotProgress
from raftkv.snapshot import SnapshotChunk, SnapshotMessage, SnapshotOffer
from raftkv.state import Store

if TYPE_CHECKING:
    from raftkv.node.node import Node

logger = EventLog("raftkv")

failpoints.declare(
    __name__,
    {
        "snapshot.begun": "a snapshot is about to be taken",
        "snapshot.before_told": "a snapshot is published, and the core does not know",
        "snapshot.before_log_cut": "the core has forgotten what a snapshot covers, and the log has not",
        "snapshot.before_prune": "the log is cut behind a snapshot, and old snapshots are still there",
        "install.before_bound": "a snapshot is about to take the log's place",
        "install.before_log_reset": "the bound of what must be in the log is lowered, and the log is still there",
        "install.before_swap": "the log continues a snapshot that is not the state yet",
        "install.old_closed": "the old state is closed",
        "install.before_told": "a snapshot is the state, and the core does not know",
    },
)


class Snapshotter:
    """Takes, sends, receives and installs the snapshots of one node.

    Invariants: one snapshot is taken at a time, and none while one is installed; the log forgets only
    what a published snapshot covers.
    """

    def __init__(self, node: Node, opened: Opened) -> None:
        self._node = node
        self._store = opened.snapshots
        self._log = opened.log
        self._vote = opened.vote
        self._taking: asyncio.Task[Index] | None = None
        self._installing: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._stopped = False
        self.taken = 0
        self.installed = 0
        self._sending = Sending(node, opened.snapshots, on_damaged=self.damaged)
        self._receiving = Receiving(node, opened.snapshots)
        # Should what the log begins behind be damaged, there must be another one before a follower needs it.
        newest = opened.snapshot.index if opened.snapshot is not None else 0
        self._must_take = newest < opened.view.start.index
        self.state_rot: dict[str, str] = {}
        """Damaged files of the live state, by name: a snapshot of it would look sound, so none is taken."""
        self._flushed: Index = opened.store.applied.index
        self._flushing = False
        self._draw_interval()

    # ------------------------------------------------------------------------------ taking

    def _draw_interval(self) -> None:
        interval = self._node.config.snapshot_interval_s
        # Not all nodes at once: each draws from one to one and a half intervals.
        self._not_before = asyncio.get_running_loop().time() + interval * (1 + self._node.world.draw(512) / 1024)

    def maybe_flush(self) -> None:
        """Make the state durable now and then, so that a node that was killed has little to replay."""
        node = self._node
        store = node.applier.runner.store
        index = store.applied.index
        if (
            self._flushing
            or self._stopped
            or node.raft.installing is not None
            or index - self._flushed < node.config.state_flush_entries
        ):
            return
        self._flushing = True
        self._flushed = index

        def done(future: asyncio.Future[None]) -> None:
            self._flushing = False
            node.check_background(future)

        # What replaces the store waits its turn on the same worker, so it is still open then.
        node.world.background_worker.run(store.flush).add_done_callback(done)

    def maybe_take(self) -> None:
        """Take a snapshot if enough has happened since the last one. Also looks after transfers that stall."""
        self._receiving.check_stall()
        raft, config = self._node.raft, self._node.config
        applied = self._node.applier.applied_index
        if not raft.log.membership_at(max(applied, raft.log.start.index)).voters:
            return  # a node that joined, and has not come to the first entry that says who the members are
        newest = raft.snapshot.index if raft.snapshot is not None else 0
        if self._stopped or self._taking is not None or raft.installing is not None or raft.wants_snapshot:
            return
        if self.state_rot:
            return
        urgent = (raft.snapshot_wanted or self._must_take) and applied > 0
        if not urgent:
            due = applied - newest >= config.snapshot_entries or (
                raft.log.bytes_between(max(newest, raft.log.start.index), applied) >= config.snapshot_log_bytes
            )
            if not due or asyncio.get_running_loop().time() < self._not_before:
                return
        task = asyncio.ensure_future(self.take())
        task.add_done_callback(self._took_by_itself)

    def _took_by_itself(self, task: asyncio.Task[Index]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("snapshot_not_taken", error=str(error))

    async def take(self) -> Index:
        """Take a snapshot now; returns its index. It is durable on return, and the log may have been cut.

        Raises `Unavailable` when the state is being replaced, `DiskFull`, or what stops the node.
        """
        if self._taking is None:
            self._taking = asyncio.ensure_future(self._take())
            self._taking.add_done_callback(self._taken)
        return await asyncio.shield(self._taking)

    def _taken(self, task: asyncio.Task[Index]) -> None:
        self._taking = None
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, NodeStopped) and not isinstance(error, DiskFull) and not self._stopped:
            self._node.fail(error)

    async def _take(self) -> Index:
        node, loop = self._node, asyncio.get_running_loop()
        self._draw_interval()
        if self.state_rot:
            raise Unavailable(f"no snapshot is taken of a damaged state: {'; '.join(self.state_rot.values())}")
        raft, worker = node.raft, node.world.background_worker
        self._check_not_replaced()
        store = node.applier.runner.store
        # The first flush takes long, and lets others work.
        await worker.run(store.flush)
        self._check_not_replaced()
        draft = self._store.begin()
        failpoints.reach("snapshot.begun")
        began = loop.time()
        await worker.run(store.freeze)
        try:
            snapshot, held_up = await self._checkpoint(draft)
        finally:
            await worker.run(store.thaw)
        if snapshot is None:
            return store.applied.index
        await worker.run(self._store.publish, draft, snapshot, cluster_id=node.links.cluster_id)
        self._must_take = False
        self._flushed = max(self._flushed, snapshot.index)
        self.taken += 1
        failpoints.reach("snapshot.before_told")
        raft.snapshot_taken(snapshot)
        logger.info(
            "snapshot_taken",
            index=snapshot.index,
            term=snapshot.term,
            seconds=round(loop.time() - began, 3),
            held_up_ms=round(held_up * 1000, 1),
        )
        await self._forget_behind(snapshot)
        node.engine.wake()
        return snapshot.index

    async def _checkpoint(self, draft: str) -> tuple[SnapshotMeta | None, float]:
        """Copy the state at one index into `draft`; returns what it is (None: it is there already), and for how
        many seconds nothing was applied.

        Everything is done beside the loop, which serves all others meanwhile; only commands wait to be applied.
        """
        node, loop = self._node, asyncio.get_running_loop()
        applier = node.applier
        store = applier.runner.store
        began = loop.time()
        applier.pause()
        try:
            self._check_not_replaced()
            await node.before_checkpoint(store)
            self._check_not_replaced()
            snapshot = self._describe(store)
            if not snapshot.membership.voters:
                raise Unavailable("this node does not know yet who the members are")
            if self._is_there(snapshot):
                return None, 0.0
            await node.world.background_worker.run(store.checkpoint, draft)
            self._check_not_replaced()
            return snapshot, loop.time() - began
        finally:
            if node.raft.installing is None and applier.runner.store is store:
                applier.resume(applier.runner)

    def _check_not_replaced(self) -> None:
        raft = self._node.raft
        if raft.installing is not None or raft.wants_snapshot:
            raise Unavailable("this node's state is being rebuilt from a snapshot")

    def _describe(self, store: Store) -> SnapshotMeta:
        """The state as it is now: everything applied is in the log, or is the log's beginning."""
        log, applied = self._node.raft.log, store.applied
        return SnapshotMeta(
            index=applied.index,
            term=applied.term,
            chain=log.chain(applied.index),
            time_ms=applied.time_ms,
            membership=log.membership_at(applied.index),
            digest=applied.digest,
        )

    def _is_there(self, snapshot: SnapshotMeta) -> bool:
        return any(each == snapshot for each in self._store.list()) or snapshot.index == 0

    async def _forget_behind(self, snapshot: SnapshotMeta) -> None:
        """Cut the log behind a snapshot, but for a tail that saves slow followers a transfer; drop old snapshots."""
        node = self._node
        index = self._cut_index(snapshot.index)
        if index > node.raft.log.start.index:
            try:
                # The core first: what it does not offer any more, nobody will look for on disk.
                node.raft.compact(index)
            except ChangeRefused:
                return
            failpoints.reach("snapshot.before_log_cut")
            await node.world.log_worker.run(self._log.compact, index)
        failpoints.reach("snapshot.before_prune")
        retired = self._store.retire(node.config.snapshots_kept)
        await node.world.background_worker.run(self._store.prune, retired)

    def _cut_index(self, snapshot_index: Index) -> Index:
        """How far the log may forget: so many entries stay, but not more than so many bytes."""
        log, config = self._node.raft.log, self._node.config
        low, high = max(log.start.index, snapshot_index - config.keep_entries), snapshot_index
        while low < high:
            middle = (low + high) // 2
            if log.bytes_between(middle, snapshot_index) <= config.keep_bytes:
                high = middle
            else:
                low = middle + 1
        return low

    def damaged(self, snapshot: SnapshotMeta, error: SnapshotCorruption) -> None:
        """A snapshot is not whole: never use or offer it again, and take another one at once, if the state is sound."""
        self._store.mark_damaged(snapshot, str(error))
        self._must_take = True
        action = "taking another one" if not self.state_rot else "none: the state has the same damage"
        logger.error("snapshot_damaged", index=snapshot.index, error=str(error), action=action)

    # ------------------------------------------------------------------------------ transfers

    def send(self, to: NodeId, snapshot: SnapshotMeta) -> None:
        """The core wants `to` to have `snapshot`; the core hears of the end by `snapshot_sent`."""
        self._sending.begin(to, snapshot)

    def on_message(self, message: SnapshotMessage) -> None:
        """A peer's part of a transfer."""
        if self._stopped:
            return
        if isinstance(message, SnapshotOffer | SnapshotChunk):
            self._receiving.on_message(message)
        else:
            self._sending.on_reply(message)

    def role_changed(self) -> None:
        """Another term or role: what this node sends as a leader of the old one is void."""
        self._sending.cancel()

    def sending(self, to: NodeId) -> SnapshotProgress | None:
        """How far the transfer to `to` is."""
        return self._sending.progress(to)

    def receiving(self) -> SnapshotProgress | None:
        """How far the transfer to this node is."""
        return self._receiving.progress()

    # ------------------------------------------------------------------------------ installing

    def install(self, snapshot: SnapshotMeta, keeps_log: bool) -> None:
        """Put a snapshot that has arrived in the place of the state, and of the log unless that agrees with it."""
        self._node.applier.pause()
        self._installing = asyncio.ensure_future(self._install(snapshot, keeps_log))
        self._installing.add_done_callback(self._install_ended)

    async def _install(self, snapshot: SnapshotMeta, keeps_log: bool) -> None:
        """Every step leaves something from which a start goes on: the snapshot itself is durable already."""
        node, world = self._node, self._node.world
        began = asyncio.get_running_loop().time()
        if self._taking is not None:
            await asyncio.wait([self._taking])
        await node.writer.idle()
        if not keeps_log:
            await world.background_worker.run(self._store.expect, snapshot)
            await world.log_worker.run(self._reset_log, snapshot)
        old = node.applier.runner.store
        await node.scans.hold()
        store = await world.background_worker.run(self._swap_state, old, snapshot)
        failpoints.reach("install.before_told")
        node.raft.snapshot_installed()
        self.state_rot.clear()
        node.applier.resume(node.new_runner(store))
        node.scans.resume()
        self._flushed = store.applied.index
        self.installed += 1
        node.engine.wake()
        logger.info(
            "snapshot_installed",
            index=snapshot.index,
            term=snapshot.term,
            seconds=round(asyncio.get_running_loop().time() - began, 3),
            log="kept" if keeps_log else "reset",
        )
        await world.background_worker.run(self._store.settle)
        retired = self._store.retire(node.config.snapshots_kept)
        await world.background_worker.run(self._store.prune, retired)

    def _reset_log(self, snapshot: SnapshotMeta) -> None:
        """On the log's worker. The bound goes down first, else a start would take the cut for a loss."""
        failpoints.reach("install.before_bound")
        self._vote.write(self._vote.hard_state, min(self._vote.durable_index, snapshot.index))
        failpoints.reach("install.before_log_reset")
        self._log.reset(snapshot.log_start)

    def _swap_state(self, old: Store, snapshot: SnapshotMeta) -> Store:
        """On the background worker."""
        failpoints.reach("install.before_swap")
        old.close()
        failpoints.reach("install.old_closed")
        return restore_state(self._node.world, self._node.paths, self._store, snapshot, self._vote.identity)

    def _install_ended(self, task: asyncio.Task[None]) -> None:
        self._installing = None
        if not task.cancelled() and (error := task.exception()) is not None and not self._stopped:
            self._node.fail(error)

    # ------------------------------------------------------------------------------ the end

    def stop(self) -> None:
        """Begin nothing any more."""
        self._stopped = True
        self._sending.cancel()

    def abandon(self) -> None:
        """Let go of everything at once, as a crash does."""
        self._stopped = True
        self._sending.abandon()
        for task in (self._taking, self._installing):
            if task is not None:
                task.cancel()

    async def wait(self) -> None:
        """Wait for what is under way."""
        under_way = [task for task in (self._taking, self._installing) if task is not None]
        for result in await asyncio.gather(*under_way, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, RaftKVError | asyncio.CancelledError):
                logger.error("snapshot_failed", error=repr(result))
        await self._sending.close()
        await self._receiving.close()
