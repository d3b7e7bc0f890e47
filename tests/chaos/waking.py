"""Reads and writes that lie at a stopped node's own port when it wakes: no answer may be too old."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from raftkv.client import Client, ClientOptions
from raftkv.errors import RaftKVError
from raftkv.processes.cluster import NodeProcess
from raftkv.worlds.workload import Workload
from tests.chaos.probe import unread_bytes
from tests.chaos.stage import ChaosStage

KEY = b"woken"
"""A counter that recorded clients have nothing to do with."""

READS = "reads answered by a node that woke"
"""What they count as."""

READS_AT_ONCE, WRITES_AT_ONCE = 8, 4

COUNT_S = 2.0
"""For the others to count once more; while too few of them know that the leader is silent, they can't."""


SENT_S, POLL_S = 5.0, 0.01
"""Who has no connection to the node any more sends nothing, which is right too: nobody waits for that for long."""


class Waking:
    """Clients connected to one node before it is stopped, and one that counts at the others meanwhile."""

    def __init__(self, stage: ChaosStage, node: NodeProcess, woken: Client[Workload], others: Client[Workload]) -> None:
        self._stage = stage
        self._node = node
        self._woken = woken
        self._others = others
        self._known = 0
        self._reads: list[asyncio.Task[Any]] = []
        self._writes: list[asyncio.Task[Any]] = []

    async def prepare(self) -> None:
        """Shortly before it wakes: count at the others, if they can by now, then ask the node itself."""
        with contextlib.suppress(RaftKVError):
            self._known = await self._others.call("increment", KEY)
        before = unread_bytes(self._node)
        self._reads = [asyncio.ensure_future(self._woken.call("get", KEY)) for _ in range(READS_AT_ONCE)]
        self._writes = [asyncio.ensure_future(self._woken.call("increment", KEY)) for _ in range(WRITES_AT_ONCE)]
        for _ in range(int(SENT_S / POLL_S)):
            await asyncio.sleep(POLL_S)
            if unread_bytes(self._node) > before:  # they are in the node's socket, and not only here
                break

    async def check(self) -> None:
        """Raises `AssertionError` for a stale answer; that there is none, as leadership was lost, is right."""
        reads = await asyncio.gather(*self._reads, return_exceptions=True)
        writes = await asyncio.gather(*self._writes, return_exceptions=True)
        for problem in [each for each in (*reads, *writes) if isinstance(each, BaseException)]:
            if not isinstance(problem, RaftKVError):
                raise problem
        values = [int(item.value) if item is not None else 0 for item in reads if not isinstance(item, BaseException)]
        assert all(value >= self._known for value in values), f"stale: {values}, but {self._known} was acknowledged"
        if self._known:
            self._stage.met(READS, len(values))
        numbers = [number for number in writes if not isinstance(number, BaseException)]
        assert all(number > self._known for number in numbers), f"counted {numbers} after {self._known}"
        assert len(set(numbers)) == len(numbers), f"counted to the same number twice: {numbers}"


@asynccontextmanager
async def awaited(stage: ChaosStage, node: NodeProcess) -> AsyncIterator[Waking]:
    """Connect to a node that is about to be stopped."""
    others = [each.own.client_address for each in stage.cluster.nodes.values() if each is not node]
    woken = Client(Workload, [node.own.client_address])
    counting = Client(Workload, others, options=ClientOptions(deadline_s=COUNT_S))
    try:
        with contextlib.suppress(RaftKVError):
            await woken.call("get", KEY)
        yield Waking(stage, node, woken, counting)
    finally:
        await woken.close()
        await counting.close()
