"""Gives space back after many keys were deleted, without waiting for later writes.

A deletion is a write, too: it takes space until the database rewrites what it is about, and what it is about stays on
the disk as long as a snapshot links to it, or the log has the entries that once wrote it. All three go with later
writes, some day. When enough was deleted, and nothing more is for a moment, this part does not wait for them: it
flushes the deletions (the database then rewrites what they are about, in its own threads, a file at a time), takes a
snapshot if the state has shrunk much, drops older ones that are far larger, and cuts the log's tail to the new size.

What the log keeps for a follower that is behind goes, too, as soon as the disk has no room for it.

What it costs is bounded: a part of the keys that there were has to be gone before any is rewritten, so it is no matter
how many come and go where about as many stay. Whenever it was not worth it, that part is twice as large.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from raftkv.errors import RaftKVError, Unavailable
from raftkv.logs import EventLog
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.snapshots.flushing import Flushing
from raftkv.node.snapshots.taking import Taking
from raftkv.snapshot import SnapshotStore
from raftkv.state import Store

logger = EventLog(__name__)

T = TypeVar("T")

PART_MIN, PART_MAX = 16, 2
"""One in so many keys has to be gone: at first few of them, as these may be the large ones; at last half of them, as
no snapshot would be replaced for less if all were alike."""
QUIET_S = 2.0
"""Deletions that follow each other are one thing: it is waited for their end …"""
LATEST_S = 15.0
"""… but not longer than this."""
REWRITING_S_MAX = 120.0
"""A database that has not rewritten its files by then goes on doing so; the next deletions look after the rest."""
LOOK_S = 0.25
HOLD_OFF_S = 10.0
"""A snapshot that is due otherwise waits for so long: one that was taken before the files are rewritten would keep the
old ones, and there is no second one of the same entry."""


class Reclaiming:
    """Looks after one store's deletions; one piece of work at a time, and none while the state is replaced."""

    def __init__(
        self, body: Body, applier: Applier, flushing: Flushing, taking: Taking, snapshots: SnapshotStore
    ) -> None:
        self._body = body
        self._applier = applier
        self._flushing = flushing
        self._taking = taking
        self._snapshots = snapshots
        self._store: Store | None = None
        self._most = 0
        """About how many keys there were at most, since it was looked after them …"""
        self._part = PART_MIN
        """… and of them one in so many has to be gone."""
        self._seen = 0
        """Deletions up to here were looked after …"""
        self._last = 0
        """… and these were there at the last look."""
        self._first_at = self._last_at = 0.0
        """When the first of the others was seen, and the last."""
        self._began_at = 0.0
        self._lacks_snapshot = False
        """Whether the state has shrunk, and no snapshot has yet."""
        self.times = 0
        """How often space was given back."""
        self.under_way: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Called four times a second: begin if there is something to win."""
        body = self._body
        if body.has_ended or self.under_way is not None or body.raft.installing is not None or body.raft.wants_snapshot:
            return
        if self._is_due(asyncio.get_running_loop().time()):
            self.under_way = asyncio.ensure_future(self._reclaim())
        elif self._lacks_snapshot and self._has_new_entries():
            self.under_way = asyncio.ensure_future(self._renew(self._applier.runner.store))
        elif self._taking.has_outsized(self._spare_bytes):
            # One that was being sent or copied for a backup until now.
            self.under_way = asyncio.ensure_future(self._taking.shed(self._spare_bytes))
        elif not body.raft.has_room and self._taking.keeps_for_followers:
            # Nobody may write, so no snapshot comes by which it would be given up.
            self.under_way = asyncio.ensure_future(self._taking.shed(self._spare_bytes, body.config.keep_bytes))
        if self.under_way is not None:
            self._began_at = asyncio.get_running_loop().time()
            self.under_way.add_done_callback(self._ended)

    @property
    def _spare_bytes(self) -> int:
        return self._body.config.reclaim_bytes_min

    @property
    def holds_off(self) -> bool:
        """Whether a snapshot that is due should wait a moment."""
        return self.under_way is not None and asyncio.get_running_loop().time() - self._began_at < HOLD_OFF_S

    def _is_due(self, now: float) -> bool:
        store = self._applier.runner.store
        if store is not self._store:
            self._store, self._lacks_snapshot = store, False
            self._begin_anew(store)
            self._part = PART_MIN
        keys, deletions = store.keys_about(), store.deletions
        self._most = max(self._most, keys)
        if deletions == self._seen:
            return False
        if deletions != self._last:
            if self._last == self._seen:
                self._first_at = now
            self._last, self._last_at = deletions, now
        is_time = now - self._last_at >= QUIET_S or now - self._first_at >= LATEST_S
        gone = min(deletions - self._seen, self._most - keys)
        return is_time and gone > 0 and gone * self._part >= self._most

    def _begin_anew(self, store: Store) -> None:
        self._seen = self._last = store.deletions
        self._most = store.keys_about()

    def _has_new_entries(self) -> bool:
        newest = self._snapshots.latest()
        return newest is None or self._applier.runner.store.applied.index > newest.index

    async def _reclaim(self) -> None:
        store, loop = self._applier.runner.store, asyncio.get_running_loop()
        self._begin_anew(store)
        index = store.applied.index
        before = max(self._held_by_snapshot(), await self._work(store, store.approximate_bytes))
        if before < self._spare_bytes:
            return
        await self._work(store, store.flush)
        self._flushing.flushed(index)
        end = loop.time() + REWRITING_S_MAX
        while await self._work(store, store.is_rewriting) and loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)  # nobody tells when RocksDB is done
        after = await self._work(store, store.approximate_bytes)
        if before <= 2 * after + self._spare_bytes:
            self._part = max(PART_MAX, self._part // 2)
            return
        logger.info("state_has_shrunk", node=self._body.node_id, bytes_before=before, bytes_after=after)
        self._part = PART_MIN
        self._lacks_snapshot = True
        await self._renew(store)

    async def _renew(self, store: Store) -> None:
        """Take a snapshot of the state, and let go of what it replaces."""
        # Before each try, as the state may have grown meanwhile: then no snapshot will ever be as small as it was.
        size = await self._work(store, store.approximate_bytes)
        try:
            await self._taking.take()
        except RaftKVError as exc:  # what has to stop the node for it has done so
            self._lacks_snapshot = False
            logger.warning("space_not_reclaimed", node=self._body.node_id, error=str(exc))
            return
        if self._held_by_snapshot() > 2 * size + self._spare_bytes:
            return  # one of this very entry was taken before the files were rewritten; the next entry allows another
        self._lacks_snapshot = False
        await self._taking.shed(self._spare_bytes, max(size, self._spare_bytes))
        self.times += 1

    def _held_by_snapshot(self) -> int:
        newest = self._snapshots.latest()
        return 0 if newest is None else self._snapshots.manifest(newest).manifest.total_bytes

    async def _work(self, store: Store, work: Callable[[], T]) -> T:
        """Have the background worker do something with the store, which is closed there if another takes its place.

        So what is given before that is decided still finds it open. Raises `Unavailable` from then on.
        """
        body = self._body
        if body.has_ended or body.raft.installing is not None or self._applier.runner.store is not store:
            raise Unavailable("this node ends, or its state is being replaced")
        return await body.world.background_worker.run(work)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.under_way = None
        if task.cancelled() or (error := task.exception()) is None or isinstance(error, Unavailable):
            return
        if not self._body.has_ended:
            self._body.fail(error)
