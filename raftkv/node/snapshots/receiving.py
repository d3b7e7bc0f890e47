"""The follower's end of a transfer: hands messages to the `SnapshotReceiver`, and a complete snapshot to the core."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raftkv import failpoints
from raftkv.core.messages import InstallSnapshot
from raftkv.logs import EventLog
from raftkv.node.body import Body
from raftkv.node.workers import error_of
from raftkv.snapshot import (
    ReceiverStep,
    Refusal,
    SnapshotChunk,
    SnapshotOffer,
    SnapshotReceiver,
    SnapshotRefused,
    SnapshotStore,
    TransferProgress,
)

logger = EventLog(__name__)

QUEUE_MAX = 64
"""How many messages may wait for the disk. A sender has fewer under way; if there are more, they are dropped."""

failpoints.declare(
    __name__,
    {
        "receive.arrived": "a snapshot has arrived, and the core does not know",
    },
)


class Receiving:
    """Takes in one snapshot at a time, and only from the leader of the present term.

    Invariants: the receiver's file work is done on the background worker, in the order of the messages;
    at most `QUEUE_MAX` of them wait there.
    """

    def __init__(
        self,
        body: Body,
        store: SnapshotStore,
        cluster_id: Callable[[], str],
        take_in: Callable[[InstallSnapshot], None],
    ) -> None:
        """`take_in` hands a message to the core."""
        self._body = body
        self._store = store
        self._cluster_id = cluster_id
        self._take_in = take_in
        self._receiver = SnapshotReceiver(
            store,
            node_id=body.node_id,
            cluster_id=cluster_id(),
            reserve_bytes=body.config.segment_bytes,
        )
        self._queued = 0
        self._work: dict[asyncio.Future[ReceiverStep], None] = {}

    def on_message(self, message: SnapshotOffer | SnapshotChunk) -> None:
        """Take in an offer or a chunk. A deposed leader's offer is refused (F65); a leader unknown here is ignored."""
        raft = self._body.raft
        if message.term < raft.term:
            if isinstance(message, SnapshotOffer):
                self._refuse(message)
            return
        if message.term != raft.term or message.sender != raft.leader or raft.installing is not None:
            return  # the leader offers it again soon; by then it is known, or what is under way has ended
        if self._queued >= QUEUE_MAX:
            return
        self._receiver.cluster_id = self._cluster_id()
        if isinstance(message, SnapshotOffer):
            self._run(self._body.world.background_worker.run(self._receiver.on_offer, message))
        else:
            self._run(self._body.world.background_worker.run(self._receiver.on_chunk, message))

    def _refuse(self, offer: SnapshotOffer) -> None:
        raft = self._body.raft
        refusal = SnapshotRefused(
            sender=raft.node_id,
            to=offer.sender,
            term=offer.term,
            digest=b"",
            reason=Refusal.STALE,
            text=f"term {offer.term} is over, this is term {raft.term}",
        )
        self._body.transport.send(offer.sender, refusal)

    def _run(self, future: asyncio.Future[ReceiverStep]) -> None:
        self._queued += 1
        self._work[future] = None
        future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[ReceiverStep]) -> None:
        self._queued -= 1
        self._work.pop(future, None)
        body = self._body
        error = error_of(future)
        if future.cancelled() or body.failure is not None:
            return
        if error is not None:
            body.fail(error)
            return
        step = future.result()
        for reply in step.replies:
            body.transport.send(reply.to, reply)
        if step.snapshot is not None:
            self._arrived(step)
        elif self._receiver.is_preparing:
            self._run(body.world.background_worker.run(self._receiver.prepare))

    def _arrived(self, step: ReceiverStep) -> None:
        """A snapshot is complete and durable. The core decides whether it is still of use."""
        raft, snapshot = self._body.raft, step.snapshot
        assert snapshot is not None, "only called with a snapshot"
        failpoints.reach("receive.arrived")
        leader = raft.leader
        if snapshot.index <= min(raft.commit_index, raft.durable_index):
            # The log has the snapshot's last entry, so the snapshot needn't be treated as one ahead of the log.
            settled = self._body.world.background_worker.run(self._store.settle)
            settled.add_done_callback(self._body.check_background)
        if leader is not None and leader != raft.node_id:
            self._take_in(InstallSnapshot(sender=leader, to=raft.node_id, term=raft.term, snapshot=snapshot))
        logger.info("snapshot_arrived", index=snapshot.index, term=snapshot.term)

    def check_stall(self) -> None:
        """Drop a transfer for which nothing has come for too long; its files stay for the next transfer."""
        body = self._body
        if self._receiver.is_stalled(asyncio.get_running_loop().time(), body.config.snapshot_stall_s):
            body.world.background_worker.run(self._receiver.suspend)
            logger.warning("snapshot_transfer_stalled", seconds=body.config.snapshot_stall_s)

    async def close(self) -> None:
        """Wait for the file work that is under way, and drop the transfer."""
        await asyncio.gather(*self._work, return_exceptions=True)
        await self._body.world.background_worker.run(self._receiver.suspend)

    def progress(self) -> TransferProgress | None:
        """How far the transfer to this node is; None when there is none."""
        return self._receiver.progress
