"""All that a node does with snapshots: takes them, sends them, receives them and installs them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raftkv.core.messages import InstallSnapshot
from raftkv.errors import RaftKVError, SnapshotCorruption
from raftkv.logs import EventLog
from raftkv.model import Index, NodeId, SnapshotMeta
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.recovery import Recovered
from raftkv.node.scans import Scans
from raftkv.node.snapshots.flushing import Flushing
from raftkv.node.snapshots.installing import Installing
from raftkv.node.snapshots.receiving import Receiving
from raftkv.node.snapshots.sending import Sending
from raftkv.node.snapshots.taking import Taking
from raftkv.node.status import SnapshotProgress
from raftkv.node.writer import Writer
from raftkv.snapshot import SnapshotChunk, SnapshotMessage, SnapshotOffer

logger = EventLog("raftkv")


class Snapshotter:
    """The four of them, each a part of its own, behind one door."""

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
        """`take_in` gives a message to the core."""
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
            # Should what the log begins behind be damaged, there must be another one before a follower needs it.
            must_take=newest < opened.view.start.index,
        )
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
        """Snapshots that were taken here since the start."""
        return self._taking.taken

    @property
    def installed(self) -> int:
        """Snapshots that were installed here since the start."""
        return self._installing.installed

    @property
    def state_rot(self) -> dict[str, str]:
        """Damaged files of the live state, by name; whoever finds one puts it here."""
        return self._taking.state_rot

    def look(self) -> None:
        """Now and then: make the state durable, let go of transfers that stall, take a snapshot that is due."""
        self._flushing.maybe_flush()
        self._receiving.check_stall()
        self._taking.maybe_take()

    async def take(self) -> Index:
        """Take a snapshot now; see `Taking.take`."""
        return await self._taking.take()

    def damaged(self, snapshot: SnapshotMeta, error: SnapshotCorruption) -> None:
        """A snapshot is not whole; see `Taking.damaged`."""
        self._taking.damaged(snapshot, error)

    def send(self, to: NodeId, snapshot: SnapshotMeta) -> None:
        """The core wants `to` to have `snapshot`; the core hears of the end by `snapshot_sent`."""
        self._sending.begin(to, snapshot)

    def install(self, snapshot: SnapshotMeta, keeps_log: bool) -> None:
        """The core wants a snapshot that has arrived to be the state; it hears of the end by `snapshot_installed`."""
        self._installing.begin(snapshot, keeps_log)

    def on_message(self, message: SnapshotMessage) -> None:
        """A peer's part of a transfer."""
        if self._body.has_ended:
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

    def stop(self) -> None:
        """Send no more. The node has ended, so nothing else is begun either."""
        self._sending.cancel()

    def abandon(self) -> None:
        """Let go of everything at once, as a crash does."""
        self._sending.abandon()
        for task in (self._taking.under_way, self._installing.under_way):
            if task is not None:
                task.cancel()

    async def wait(self) -> None:
        """Wait for what is under way."""
        under_way = [task for task in (self._taking.under_way, self._installing.under_way) if task is not None]
        for result in await asyncio.gather(*under_way, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, RaftKVError | asyncio.CancelledError):
                logger.error("snapshot_failed", error=repr(result))
        await self._sending.close()
        await self._receiving.close()
