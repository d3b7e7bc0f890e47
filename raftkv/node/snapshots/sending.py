"""The leader's transfers of snapshots: drives one `SnapshotSender` for each follower that needs one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raftkv import failpoints
from raftkv.durations import Durations
from raftkv.errors import NodeStopped, SnapshotCorruption
from raftkv.logs import EventLog
from raftkv.model import NodeId, SnapshotMeta
from raftkv.node.body import Body
from raftkv.node.workers import error_of
from raftkv.snapshot import (
    ChunkPlan,
    Refusal,
    SenderStage,
    SnapshotChunk,
    SnapshotReply,
    SnapshotReport,
    SnapshotSender,
    SnapshotStore,
    TransferProgress,
    TransferSettings,
)

logger = EventLog(__name__)

failpoints.declare(
    __name__,
    {
        "transfer.before_offer": "a snapshot is about to be offered",
        "transfer.before_read": "a part of a snapshot is about to be read for a peer",
        "transfer.done": "a peer has all of a snapshot",
    },
)


class Transfer:
    """A transfer to one node: its sender, the timer of the sender's next step, and the read that is under way."""

    def __init__(self, sender: SnapshotSender) -> None:
        self.sender = sender
        self.began = asyncio.get_running_loop().time()
        self.timer: asyncio.TimerHandle | None = None
        self.reading: asyncio.Future[SnapshotChunk] | None = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Sending:
    """All transfers from this node. `snapshot_transfers_max` go on at a time, the others wait.

    Invariants: at most one transfer to a node; at most one read under way for each; the end of a transfer is reported
    to the core exactly once.
    """

    def __init__(
        self, body: Body, store: SnapshotStore, *, on_damaged: Callable[[SnapshotMeta, SnapshotCorruption], None]
    ) -> None:
        self._body = body
        self._store = store
        self._on_damaged = on_damaged
        self._transfers: dict[NodeId, Transfer] = {}
        self._waiting: dict[NodeId, SnapshotMeta] = {}
        self.took = Durations()
        """How long whole transfers took."""
        self._reads: dict[asyncio.Future[SnapshotChunk], None] = {}

    def begin(self, to: NodeId, snapshot: SnapshotMeta) -> None:
        """Send `snapshot` now, or when its turn comes. If it is on its way to that node already, it goes on."""
        transfer = self._transfers.get(to)
        if transfer is not None:
            if transfer.sender.snapshot == snapshot and transfer.sender.term == self._body.raft.term:
                return
            self._drop(to)
        self._waiting[to] = snapshot
        self._start_waiting()

    def _start_waiting(self) -> None:
        for to in list(self._waiting):
            if len(self._transfers) >= self._body.config.snapshot_transfers_max:
                return
            self._start(to, self._waiting.pop(to))

    def _start(self, to: NodeId, snapshot: SnapshotMeta) -> None:
        loop, raft = asyncio.get_running_loop(), self._body.raft
        try:
            sender = SnapshotSender(
                self._store,
                snapshot,
                node_id=raft.node_id,
                to=to,
                term=raft.term,
                settings=TransferSettings.of(self._body.config),
                now=loop.time(),
            )
        except SnapshotCorruption as exc:
            self._on_damaged(snapshot, exc)
            # Later, because the core is in the middle of a turn.
            loop.call_soon(self._report, to, False)
            return
        transfer = self._transfers[to] = Transfer(sender)
        logger.info("snapshot_transfer_begins", to=to, index=snapshot.index, bytes=sender.progress.total_bytes)
        self._pump(transfer)

    def _pump(self, transfer: Transfer) -> None:
        """Send what may be sent now. One chunk is read at a time; when it has been read, this is called again."""
        sender, loop = transfer.sender, asyncio.get_running_loop()
        transfer.stop_timer()
        while transfer.reading is None and self._transfers.get(sender.to) is transfer:
            action = sender.poll(loop.time())
            if isinstance(action, ChunkPlan):
                self._read(transfer, action)
                return
            if action is None:
                break
            failpoints.reach("transfer.before_offer")
            self._body.transport.send(sender.to, action)
        if sender.is_over:
            self._end(transfer)
        elif (at := sender.wake_at(loop.time())) is not None and transfer.reading is None:
            transfer.timer = loop.call_at(at, self._pump, transfer)

    def _read(self, transfer: Transfer, plan: ChunkPlan) -> None:
        failpoints.reach("transfer.before_read")
        future = self._body.world.transfer_worker.run(transfer.sender.read, plan)
        transfer.reading = future
        self._reads[future] = None
        future.add_done_callback(lambda done: self._have_read(transfer, plan, done))

    def _have_read(self, transfer: Transfer, plan: ChunkPlan, future: asyncio.Future[SnapshotChunk]) -> None:
        transfer.reading = None
        self._reads.pop(future, None)
        sender = transfer.sender
        error = error_of(future)
        if self._transfers.get(sender.to) is not transfer:
            sender.close()  # it was dropped while the disk was read
            return
        if isinstance(error, SnapshotCorruption):
            self._on_damaged(sender.snapshot, error)
            sender.fail(str(error))
        elif error is not None:
            self._body.fail(error)
            return
        elif not future.cancelled() and not self._body.transport.send(sender.to, future.result()):
            sender.not_sent(plan, asyncio.get_running_loop().time())
        self._pump(transfer)

    def on_reply(self, reply: SnapshotReply) -> None:
        """A message from a receiver."""
        transfer = self._transfers.get(reply.sender)
        if transfer is not None:
            transfer.sender.step(reply, asyncio.get_running_loop().time())
            self._pump(transfer)

    def _end(self, transfer: Transfer) -> None:
        sender = transfer.sender
        ok = sender.stage is SenderStage.DONE
        if ok:
            failpoints.reach("transfer.done")
            self.took.note(asyncio.get_running_loop().time() - transfer.began)
        elif sender.refusal is Refusal.BAD_FILE:
            self._verify(sender.snapshot)
        self._drop(sender.to)
        self._report(sender.to, ok)
        if ok:
            logger.info("snapshot_transfer_done", to=sender.to, index=sender.snapshot.index)
        else:
            logger.warning("snapshot_transfer_failed", to=sender.to, index=sender.snapshot.index, reason=sender.failure)
        self._start_waiting()

    def _verify(self, snapshot: SnapshotMeta) -> None:
        """Check the snapshot's files. A receiver got the same file twice with a wrong checksum, so it is damaged here,
        and would be sent again for ever."""

        def verified(future: asyncio.Future[SnapshotReport]) -> None:
            error = error_of(future)
            if isinstance(error, SnapshotCorruption):
                self._on_damaged(snapshot, error)
            elif error is not None:
                self._body.fail(error)

        self._body.world.background_worker.run(self._store.verify, snapshot).add_done_callback(verified)

    def _report(self, to: NodeId, ok: bool) -> None:
        if self._body.failure is None:
            self._body.raft.snapshot_sent(to, ok)
            self._body.wake()

    def _drop(self, to: NodeId) -> None:
        transfer = self._transfers.pop(to)
        transfer.stop_timer()
        if transfer.reading is None:
            transfer.sender.close()  # else `_have_read` closes it

    def cancel(self) -> None:
        """End all transfers without a report to the core, because this node does not lead any more, or stops."""
        self._waiting.clear()
        for to in list(self._transfers):
            self._drop(to)

    def abandon(self) -> None:
        """Drop everything at once and close nothing, as a crash does."""
        for transfer in self._transfers.values():
            transfer.stop_timer()
        self._transfers.clear()
        self._waiting.clear()

    async def close(self) -> None:
        """End all transfers, and wait for the reads that are under way."""
        self.cancel()
        results = await asyncio.gather(*self._reads, return_exceptions=True)
        for error in results:
            if isinstance(error, BaseException) and not isinstance(error, NodeStopped):
                logger.error("snapshot_read_failed", error=repr(error))

    def progress(self, to: NodeId) -> TransferProgress | None:
        """How far the transfer to the node `to` is; None when there is none."""
        transfer = self._transfers.get(to)
        return transfer.sender.progress if transfer is not None else None
