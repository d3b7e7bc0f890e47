"""A node's snapshots: the one interface to the parts that take, send, receive and install them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from raftkv.core.messages import InstallSnapshot
from raftkv.durations import Durations
from raftkv.errors import RaftKVError, SnapshotCorruption
from raftkv.logs import EventLog
from raftkv.model import Index, NodeId, SnapshotMeta
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.recovery import Recovered
from raftkv.node.scans import Scans
from raftkv.node.snapshots.flushing import Flushing
from raftkv.node.snapshots.installing import Installing
from raftkv.node.snapshots.lending import Lending
from raftkv.node.snapshots.receiving import Receiving
from raftkv.node.snapshots.reclaiming import Reclaiming
from raftkv.node.snapshots.sending import Sending
from raftkv.node.snapshots.taking import Taking
from raftkv.node.writer import Writer
from raftkv.snapshot import SnapshotChunk, SnapshotMessage, SnapshotOffer, TransferProgress

logger = EventLog(__name__)


class Snapshotter:
    """Passes calls of the node and the core on to the parts of this folder, and builds them."""

    def __init__(
        self,
        body: Body,
        recovered: Recovered,
        *,
        applier: Applier,
        scans: Scans,
        writer: Writer,
        cluster_id: Callable[[], str],
        take_in: Callable[[InstallSnapshot], None],
    ) -> None:
        """`take_in` hands a message to the core."""
        opened = recovered.opened
        store = opened.snapshots
        newest = opened.snapshot.index if opened.snapshot is not None else 0
        self._body = body
        self._sending = Sending(body, store, on_damaged=self.damaged)
        self._receiving = Receiving(body, store, cluster_id, take_in)
        self._flushing = Flushing(body, applier)
        self._taking = Taking(
            body,
            applier,
            self._flushing,
            opened.log,
            store,
            cluster_id=cluster_id,
            before_checkpoint=recovered.host.before_checkpoint,
            # No snapshot here covers the log's beginning, so there must be a new one before a follower needs it.
            must_take=newest < opened.view.start.index,
        )
        self.reclaiming = Reclaiming(body, applier, self._flushing, self._taking, store)
        self.lending = Lending(body, store, self._taking)
        """For backups."""
        self._installing = Installing(
            body,
            applier,
            scans,
            writer,
            taking=self._taking,
            flushing=self._flushing,
            log=opened.log,
            vote=opened.vote,
            store=store,
            new_runner=recovered.new_runner,
        )

    @property
    def taken(self) -> int:
        """How many snapshots were taken here since the start."""
        return self._taking.taken

    @property
    def installed(self) -> int:
        """How many snapshots were installed here since the start."""
        return self._installing.installed

    def took(self) -> dict[str, Durations]:
        """How long snapshots took here: to take one, to install one, and to send one to another node."""
        return {
            "snapshot": self._taking.took.so_far(),
            "install": self._installing.took.so_far(),
            "transfer": self._sending.took.so_far(),
        }

    @property
    def state_rot(self) -> dict[str, str]:
        """What is wrong with damaged files of the live state, by file name. The scrubber adds and removes entries."""
        return self._taking.state_rot

    @property
    def is_due(self) -> bool:
        """Whether enough has happened since the last snapshot for another one."""
        return self._taking.is_due

    @property
    def problem(self) -> str | None:
        """Why the last snapshot was not taken here; None when it was."""
        return self._taking.problem

    def look(self) -> None:
        """Called four times a second: flush the state, drop a transfer that stalls, let go
        of what no backup reads any more, take a snapshot, if one is due; give space back after deletions."""
        self._flushing.maybe_flush()
        self._receiving.check_stall()
        self.lending.sweep()
        self.reclaiming.look()
        if not self.reclaiming.holds_off:
            self._taking.maybe_take()

    async def take(self) -> Index:
        """See `Taking.take`."""
        return await self._taking.take()

    def damaged(self, snapshot: SnapshotMeta, error: SnapshotCorruption) -> None:
        """See `Taking.damaged`."""
        self._taking.damaged(snapshot, error)

    def send(self, to: NodeId, snapshot: SnapshotMeta) -> None:
        """Send `snapshot` to the node `to`. At the end `Raft.snapshot_sent` is called."""
        self._sending.begin(to, snapshot)

    def install(self, snapshot: SnapshotMeta, keeps_log: bool) -> None:
        """Make a snapshot that has arrived the state. At the end `Raft.snapshot_installed` is called."""
        self._installing.begin(snapshot, keeps_log)

    def on_message(self, message: SnapshotMessage) -> None:
        """A message from the other end of a transfer."""
        if self._body.has_ended:
            return
        if isinstance(message, SnapshotOffer | SnapshotChunk):
            self._receiving.on_message(message)
        else:
            self._sending.on_reply(message)

    def role_changed(self) -> None:
        """The term or role has changed: end the transfers that this node began as the leader of an older term."""
        self._sending.cancel()

    def sending(self, to: NodeId) -> TransferProgress | None:
        """How far the transfer to the node `to` is; None when there is none."""
        return self._sending.progress(to)

    def receiving(self) -> TransferProgress | None:
        """How far the transfer to this node is; None when there is none."""
        return self._receiving.progress()

    def stop(self) -> None:
        """Send no more. The other parts see for themselves that the node has ended, and begin nothing."""
        self._sending.cancel()

    def abandon(self) -> None:
        """Drop everything at once, as a crash does."""
        self._sending.abandon()
        for task in self._under_way():
            task.cancel()

    def _under_way(self) -> list[asyncio.Task[Any]]:
        tasks = (self.reclaiming.under_way, self._taking.under_way, self._installing.under_way)
        return [task for task in tasks if task is not None]

    async def wait(self) -> None:
        """Wait for the work that is under way."""
        for result in await asyncio.gather(*self._under_way(), return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, RaftKVError | asyncio.CancelledError):
                logger.error("snapshot_failed", error=repr(result))
        await self._sending.close()
        await self._receiving.close()
        await self.lending.close()
