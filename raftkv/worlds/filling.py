"""Simulated worlds that are filled and emptied: space is given back, whatever comes in between."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from raftkv.client import Client
from raftkv.errors import Indeterminate, NotAccepted, RaftKVError, SessionExpired
from raftkv.kv.model import Delete, Put
from raftkv.model import NodeId
from raftkv.node import Node
from raftkv.snapshot.backup import SealedHead
from raftkv.testing.world.cluster import SimCluster
from raftkv.wire import BackupAsk, BackupRead
from raftkv.worlds.workload import Workload

GIVEN_BACK, LENT = "space that is given back", "backup that holds what was deleted"

FILLED = (GIVEN_BACK, LENT)

WORLDS_PART = 0.3
"""Of all worlds are filled and emptied: in the others hardly anything is ever deleted."""

EACH, VALUE_BYTES = 6, 200
"""Keys of one command, and the bytes of each: less than any world's limit of a command."""

COMMANDS = 12

GIVEN_BACK_WITHIN_S = 60.0
"""Once all is mended: deletions are waited for to end, for 15 s at most, and one of the entry before is tried again."""

READ_BYTES = 4096
LENT_S = 5.0
SNAPSHOT_S = 2.0
REST_S = 0.5
SEEN_S = 2.0
"""Nodes look some times a second how much there is: what comes and goes between two looks was never there."""


class Filling:
    """A client that fills the state and empties it, and at the end sees that every member has given the space back."""

    def __init__(self, seed: int, cluster: SimCluster) -> None:
        self._dice = random.Random(f"what is filled in {seed}")
        self._cluster = cluster
        self.is_wanted = self._dice.random() < WORLDS_PART
        self._given_back: dict[Node, int] = {}

    async def act(self, client: Client[Workload], is_over: Callable[[], bool]) -> None:
        """Fill and empty until the world ends."""
        lending = asyncio.ensure_future(self._lend_on())
        try:
            while not is_over():
                await asyncio.sleep(self._dice.expovariate(1.0))
                for step in self._steps(client):
                    if is_over():
                        break
                    try:
                        await step()
                    except (NotAccepted, Indeterminate, SessionExpired):
                        continue
                    self._count()
        finally:
            lending.cancel()
            await asyncio.gather(lending, return_exceptions=True)
            await client.close()

    def _steps(self, client: Client[Workload]) -> list[Callable[[], Awaitable[None]]]:
        """Of one time that it is filled and emptied, and left alone for a while."""
        fills = [partial(self._fill, client, number) for number in range(COMMANDS)]
        empties = [partial(self._empty, client, number) for number in range(COMMANDS)]
        takes = [partial(self._take_snapshot, node_id) for node_id in self._cluster.nodes]
        rests = [partial(asyncio.sleep, REST_S)] * self._dice.choice([0, 6, 12])
        return [*fills, *(takes if self._dice.random() < 0.5 else []), *empties, *rests]

    async def _fill(self, client: Client[Workload], number: int) -> None:
        await client.call("transact", [], [Put(_key(number, at), bytes(VALUE_BYTES)) for at in range(EACH)], [])

    async def _empty(self, client: Client[Workload], number: int) -> None:
        await client.call("transact", [], [Delete(_key(number, at)) for at in range(EACH)], [])

    async def _take_snapshot(self, node_id: NodeId) -> None:
        """Have a node hold what is deleted next, if it can."""
        async with self._cluster.admin(node_id) as admin:
            with contextlib.suppress(RaftKVError):  # it is down, or its disk is
                await admin.take_snapshot(SNAPSHOT_S)

    async def _lend_on(self) -> None:
        """Have one node after the other hold a snapshot for a backup, and read all of it a while later."""
        while True:
            await asyncio.sleep(self._dice.expovariate(1 / LENT_S))
            nodes = [node for node in self._cluster.running if node.applier.applied_index]
            if nodes:
                with contextlib.suppress(RaftKVError):  # the node has ended, or is busy
                    await self._lend(self._dice.choice(nodes))

    async def _lend(self, node: Node) -> None:
        held = SealedHead.seal(await node.orders.offer_backup(BackupAsk(stale=True), LENT_S)).sealed
        await asyncio.sleep(self._dice.uniform(0.0, LENT_S))
        total, found = held.manifest.total_bytes, 0
        while found < total:
            size = min(READ_BYTES, total - found)
            found += len(await node.orders.read_backup(BackupRead(held.digest, found, size)))
        self._cluster.fired[LENT] += 1

    def _count(self) -> None:
        """Of a node that has ended since it was looked at, what it did last is not counted."""
        for node in self._cluster.running:
            times = node.snapshots.reclaiming.times
            self._cluster.fired[GIVEN_BACK] += times - self._given_back.get(node, 0)
            self._given_back[node] = times

    async def judge(self, client: Client[Any]) -> None:
        """Fill more than there is otherwise, and empty it. Raises `AssertionError` when a member keeps the space."""
        cluster = self._cluster
        leader = await cluster.until_leader()
        store, floor = leader.applier.runner.store, leader.body.config.reclaim_bytes_min
        bytes_min = 2 * (store.approximate_bytes() + floor)
        commands = 1 + max(2 * store.keys_about() // EACH, bytes_min // (EACH * VALUE_BYTES))
        for number in range(commands):
            await self._fill(client, number)
        await cluster.until_equal()
        for node in self._members():
            await self._take_snapshot(node.node_id)
        await asyncio.sleep(SEEN_S)
        cluster.note("filled")
        for number in range(commands):
            await self._empty(client, number)
        cluster.note("emptied")
        loop = asyncio.get_running_loop()
        end = loop.time() + GIVEN_BACK_WITHIN_S
        while keeping := [node.node_id for node in self._members() if _keeps(node)]:
            assert loop.time() < end, f"{keeping} keep what was deleted {GIVEN_BACK_WITHIN_S:g} s ago:\n" + "\n".join(
                f"{node.node_id}: {_sizes(node)} of {node.applier.runner.store.approximate_bytes()}"
                for node in self._members()
            )
            await asyncio.sleep(1.0)
            await client.call("put", b"emptied", b"")  # without a new entry there is no new snapshot
        self._count()
        await cluster.until_equal()

    def _members(self) -> list[Node]:
        leader = self._cluster.leader
        members = leader.raft.membership.all_nodes() if leader is not None else ()
        return [node for node in self._cluster.running if node.node_id in members]


def _key(number: int, at: int) -> bytes:
    return b"filled %d.%d" % (number, at)


def _sizes(node: Node) -> list[int]:
    """Of the snapshots on the node's disk, the oldest first."""
    store = node.opened.snapshots
    return [store.manifest(each).manifest.total_bytes for each in store.list()]


def _keeps(node: Node) -> bool:
    """Whether any of its snapshots is far larger than the state."""
    most = 2 * node.applier.runner.store.approximate_bytes() + node.body.config.reclaim_bytes_min
    return any(size > 2 * most for size in _sizes(node))
