"""A link that is cut while a snapshot goes over it."""

from __future__ import annotations

import asyncio
import contextlib
import random

import msgspec

from raftkv.client import Admin, Client
from raftkv.errors import RaftKVError
from raftkv.kv import KeyValue
from raftkv.node.status import NodeStatus, PeerStatus
from tests.chaos.lane import Conditions
from tests.chaos.links import CUT, LinkFault
from tests.chaos.proxy import LinkProxy
from tests.chaos.stage import ChaosStage

PADDING = (24, 64 * 1024)
"""Values that make a snapshot large enough to be cut in its middle: how many, and bytes of each."""

SLOW = Conditions(bytes_s=400_000)
"""Some seconds for all of it."""

SETTINGS = ("--set", "keep_entries=20", "--set", "segment_bytes=4KiB", "--set", "snapshot_interval_s=0")
"""Of `raftkv serve`, so that a log is cut soon and a follower that was away for a while needs a snapshot."""

POLL_S = 0.05

PATIENCE_S = 45.0
"""For a follower to be left behind and its snapshot to begin; both take a second or two on an idle machine."""


class TransferCut(LinkFault):
    """A follower is kept away until it needs a snapshot; then the link is cut while that is on its way, and again.

    The cluster needs `SETTINGS`. It has met something once a transfer was cut that had begun and not ended.
    """

    kind = "a cut while a snapshot is sent"
    rows = "F66 F67"

    def __init__(self, proxy: LinkProxy, dice: random.Random, cuts: int = 2) -> None:
        super().__init__(proxy, dice)
        self._cuts = cuts
        self._met = 0
        self._first = asyncio.Event()

    @property
    def done_so_far(self) -> int:
        return self._met

    def times(self) -> int:
        return self._met

    async def begin(self, stage: ChaosStage) -> None:
        """Returns when the first transfer was cut, or when none will be."""
        await super().begin(stage)
        assert self._task is not None
        first = asyncio.ensure_future(self._first.wait())
        await asyncio.wait([self._task, first], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        first.cancel()

    async def go_on(self, stage: ChaosStage) -> None:
        """On a busy machine a transfer may be over before it was seen, or another node lead: then with another one."""
        while not self._met:
            await self._cut(stage)

    async def _cut(self, stage: ChaosStage) -> None:
        self.proxy.heal()
        leader = (await stage.leader()).node_id
        follower = self.dice.choice([node_id for node_id in self.proxy.nodes if node_id != leader])
        away = [way for way in self.proxy.ways if follower in way]
        there = [(leader, follower)]
        self.proxy.put(away, CUT)
        stage.note(f"node {follower} is kept away, so that it will need a snapshot of node {leader}")
        await self._fill(stage)
        async with Admin([stage.cluster.nodes[leader].own.client_address]) as admin:
            await self._leave_behind(admin, follower)
            for number in range(self._cuts):
                self.proxy.heal()
                self.proxy.put(there, SLOW)
                if not await self._is_under_way(admin, follower):
                    return
                stage.note(f"cut {number + 1} of {self._cuts} while the snapshot is sent")
                self.proxy.put(away, CUT)
                self._met += 1
                self._first.set()
                await asyncio.sleep(self.dice.uniform(0.2, 3.5))
            self.proxy.heal()

    async def _fill(self, stage: ChaosStage) -> None:
        """Make the state large."""
        count, size = PADDING
        client = Client(KeyValue, stage.cluster.addresses)
        try:
            for number in range(count):
                with contextlib.suppress(RaftKVError):
                    await client.call("put", b"padding%d" % number, self.dice.randbytes(size))
        finally:
            await client.close()

    async def _leave_behind(self, admin: Admin, follower: int) -> None:
        """Snapshots and writes until the leader's log begins behind what the follower has."""
        while True:
            with contextlib.suppress(RaftKVError):
                await admin.take_snapshot()
                status = msgspec.convert(await admin.status(), NodeStatus)
                peer = _peer(status, follower)
                if peer is not None and peer.match_index is not None and peer.match_index < status.first_index - 1:
                    return
            await asyncio.sleep(POLL_S)

    async def _is_under_way(self, admin: Admin, follower: int) -> bool:
        """Wait for the middle of the transfer; False when it ended before it was seen, or the leader is another."""
        was_seen = False
        while True:
            status = msgspec.convert(await admin.status(), NodeStatus)
            peer = _peer(status, follower)
            if status.role != "leader" or peer is None:
                return False
            if peer.snapshot is not None and peer.snapshot.sent_bytes > peer.snapshot.total_bytes // 10:
                return True
            was_seen = was_seen or peer.flow == "snapshot"
            if was_seen and peer.flow == "replicate":
                return False
            await asyncio.sleep(POLL_S)

    def describe(self) -> str:
        return f"{self.kind}: {self._cuts} times"


def _peer(status: NodeStatus, node_id: int) -> PeerStatus | None:
    return next((peer for peer in status.peers if peer.node_id == node_id), None)
