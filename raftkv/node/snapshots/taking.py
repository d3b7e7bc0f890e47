"""Takes snapshots of the state while writes go on, and cuts the log behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from raftkv import failpoints
from raftkv.durations import Durations
from raftkv.errors import ChangeRefused, DiskFull, NodeStopped, SnapshotCorruption, Unavailable
from raftkv.log import Log
from raftkv.logs import EventLog
from raftkv.model import Index, SnapshotMeta
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.snapshots.flushing import Flushing
from raftkv.snapshot import SnapshotStore
from raftkv.state import Store

logger = EventLog(__name__)

NEEDED_ENTRIES_MAX = 1_000_000
"""So many entries at most are kept behind a snapshot for a follower that needs them: the core remembers some 24 bytes
of each."""

failpoints.declare(
    __name__,
    {
        "snapshot.begun": "a snapshot is about to be taken",
        "snapshot.before_told": "a snapshot is published, and the core does not know",
        "snapshot.before_log_cut": "the core has forgotten what a snapshot covers, and the log has not",
        "snapshot.before_prune": "the log is cut behind a snapshot, and old snapshots are still there",
    },
)


class Taking:
    """Takes one snapshot at a time, and none during an installation; cuts the log only behind a published snapshot."""

    def __init__(
        self,
        body: Body,
        applier: Applier,
        flushing: Flushing,
        log: Log,
        store: SnapshotStore,
        *,
        cluster_id: Callable[[], str],
        before_checkpoint: Callable[[Store], Awaitable[None]],
        must_take: bool,
    ) -> None:
        """`before_checkpoint` is awaited while nothing is applied; `must_take` makes a snapshot due at once."""
        self._body = body
        self._applier = applier
        self._flushing = flushing
        self._log = log
        self._store = store
        self._cluster_id = cluster_id
        self._before_checkpoint = before_checkpoint
        self._must_take = must_take
        self._not_before = 0.0
        self.under_way: asyncio.Task[Index] | None = None
        self.taken = 0
        """How many snapshots were taken since the start."""
        self.took = Durations()
        self.state_rot: dict[str, str] = {}
        """What is wrong with damaged files of the live state, by file name. While there are any, no snapshot is taken:
        it would get new checksums, and look sound."""
        self.problem: str | None = None
        """Why the last one was not taken; None when it was."""
        self._draw_interval()

    def _draw_interval(self) -> None:
        interval = self._body.config.snapshot_interval_s
        # Each node draws one to one and a half intervals, so that not all take snapshots at once.
        self._not_before = asyncio.get_running_loop().time() + interval * (1 + self._body.world.draw(512) / 1024)

    @property
    def is_due(self) -> bool:
        """Whether enough has happened since the last snapshot for another one."""
        raft, config, applied = self._body.raft, self._body.config, self._applier.applied_index
        newest = raft.snapshot.index if raft.snapshot is not None else 0
        return applied - newest >= config.snapshot_entries or (
            raft.log.bytes_between(max(newest, raft.log.start.index), applied) >= config.snapshot_log_bytes
        )

    def maybe_take(self) -> None:
        """Take a snapshot if enough has happened since the last one."""
        raft, applied = self._body.raft, self._applier.applied_index
        if not raft.log.membership_at(max(applied, raft.log.start.index)).voters:
            return  # the node has joined, and has not applied the first membership yet
        if self._body.has_ended or self.under_way is not None or raft.installing is not None or raft.wants_snapshot:
            return
        if self.state_rot:
            return
        urgent = (raft.snapshot_wanted or self._must_take) and applied > 0
        if not urgent and (not self.is_due or asyncio.get_running_loop().time() < self._not_before):
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
        if self.under_way is None:
            self.under_way = asyncio.ensure_future(self._take())
            self.under_way.add_done_callback(self._taken)
        return await asyncio.shield(self.under_way)

    def _taken(self, task: asyncio.Task[Index]) -> None:
        self.under_way = None
        if task.cancelled():
            return
        error = task.exception()
        self.problem = str(error) if error is not None else None
        if isinstance(error, NodeStopped) and not isinstance(error, DiskFull) and not self._body.has_ended:
            self._body.fail(error)

    async def _take(self) -> Index:
        body, loop = self._body, asyncio.get_running_loop()
        self._draw_interval()
        if self.state_rot:
            raise Unavailable(f"no snapshot is taken of a damaged state: {'; '.join(self.state_rot.values())}")
        raft, worker = body.raft, body.world.background_worker
        self._check_not_replaced()
        store = self._applier.runner.store
        # The first flush takes long, but commands are applied meanwhile.
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
        await worker.run(self._store.publish, draft, snapshot, cluster_id=self._cluster_id())
        self._must_take = False
        self._flushing.flushed(snapshot.index)
        self.taken += 1
        self.took.note(loop.time() - began)
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
        body.wake()
        return snapshot.index

    async def _checkpoint(self, draft: str) -> tuple[SnapshotMeta | None, float]:
        """Copy the state at one index into `draft`; returns its description, and for how many seconds nothing was
        applied. The description is None when there is such a snapshot already.

        The work is done on the background worker. The loop goes on, but no command is applied meanwhile.
        """
        body, loop = self._body, asyncio.get_running_loop()
        applier = self._applier
        store = applier.runner.store
        began = loop.time()
        applier.pause()
        try:
            self._check_not_replaced()
            await self._before_checkpoint(store)
            self._check_not_replaced()
            snapshot = self._describe(store)
            if not snapshot.membership.voters:
                raise Unavailable("this node does not know yet who the members are")
            if self._is_there(snapshot):
                return None, 0.0
            await body.world.background_worker.run(store.checkpoint, draft)
            self._check_not_replaced()
            return snapshot, loop.time() - began
        finally:
            if body.raft.installing is None and applier.runner.store is store:
                applier.resume(applier.runner)

    def _check_not_replaced(self) -> None:
        raft = self._body.raft
        if raft.installing is not None or raft.wants_snapshot:
            raise Unavailable("this node's state is being rebuilt from a snapshot")

    def _describe(self, store: Store) -> SnapshotMeta:
        """Describe the state as it is now. Its last entry is in the log, or is where the log begins."""
        log, applied = self._body.raft.log, store.applied
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

    def has_outsized(self, spare_bytes: int) -> bool:
        """Whether `shed` would drop any: none before the core knows of the newest, as it may still send another."""
        return self._body.raft.snapshot == self._store.latest() and bool(self._store.outsized(spare_bytes))

    @property
    def keeps_for_followers(self) -> bool:
        """Whether the log has more behind the newest snapshot than is kept where no follower needs it."""
        raft, config = self._body.raft, self._body.config
        snapshot = raft.snapshot
        return snapshot is not None and self._cut_index(snapshot.index, config.keep_bytes) > raft.log.start.index

    async def shed(self, spare_bytes: int, tail_bytes: int | None = None) -> None:
        """Drop snapshots that are more than twice as large as the newest one, and `spare_bytes` more; with `tail_bytes`
        also cut the log, so that it keeps no more than that behind the newest. For a state that has shrunk."""
        snapshot = self._body.raft.snapshot
        if tail_bytes is not None and snapshot is not None:
            await self._forget_behind(snapshot, tail_bytes)
        if self.has_outsized(spare_bytes):
            retired = self._store.retire_outsized(spare_bytes)
            await self._body.world.background_worker.run(self._store.prune, retired)

    async def _forget_behind(self, snapshot: SnapshotMeta, tail_bytes: int | None = None) -> None:
        """Cut the log behind a snapshot, and drop old snapshots. The log keeps a tail for slow followers, which would
        need a transfer otherwise; of `tail_bytes` at most, where the snapshot is the shorter way."""
        body = self._body
        index = self._cut_index(snapshot.index, tail_bytes)
        if index > body.raft.log.start.index:
            try:
                # The core first: entries that it does not send any more won't be looked for on disk.
                body.raft.compact(index)
            except ChangeRefused:
                return
            failpoints.reach("snapshot.before_log_cut")
            await body.world.log_worker.run(self._log.compact, index)
        failpoints.reach("snapshot.before_prune")
        retired = self._store.retire(body.config.snapshots_kept)
        await body.world.background_worker.run(self._store.prune, retired)

    def _cut_index(self, snapshot_index: Index, tail_bytes: int | None) -> Index:
        """Up to which index the log is cut: `keep_entries` stay, but not more than `keep_bytes` or `tail_bytes`; and,
        without `tail_bytes`, what a follower needs once it has installed a snapshot."""
        log, config = self._body.raft.log, self._body.config
        keep_bytes = config.keep_bytes if tail_bytes is None else min(config.keep_bytes, tail_bytes)
        low, high = max(log.start.index, snapshot_index - config.keep_entries), snapshot_index
        while low < high:
            middle = (low + high) // 2
            if log.bytes_between(middle, snapshot_index) <= keep_bytes:
                high = middle
            else:
                low = middle + 1
        return low if tail_bytes is not None else min(low, self._needed_behind(snapshot_index))

    def _needed_behind(self, snapshot_index: Index) -> Index:
        """Behind which index a follower needs the log, as long as that is the shorter way for it than this snapshot.

        A follower that installs one, or catches up after it, would else find that the log has been cut meanwhile, and
        install the next one, and so on for as long as clients write. The disk must have room for what is kept.
        """
        body = self._body
        needed, snapshot = body.raft.needed_behind, body.raft.snapshot
        if needed is None or snapshot is None or not body.raft.has_room:
            return snapshot_index
        needed = max(needed, snapshot_index - NEEDED_ENTRIES_MAX)
        if needed >= snapshot_index or body.raft.log.bytes_between(needed, snapshot_index) > self._store.size(snapshot):
            return snapshot_index
        return needed

    def damaged(self, snapshot: SnapshotMeta, error: SnapshotCorruption) -> None:
        """A snapshot is damaged: never use or offer it again, and take another one at once, if the state is sound."""
        self._store.mark_damaged(snapshot, str(error))
        self._must_take = True
        action = "taking another one" if not self.state_rot else "none: the state has the same damage"
        logger.error("snapshot_damaged", index=snapshot.index, error=str(error), action=action)
