"""A stage of real nodes: what they say of themselves, and waiting for it, always with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import ClassVar, TypeVar

import msgspec

from raftkv.client import Admin
from raftkv.errors import RaftKVError
from raftkv.model import NodeId
from raftkv.node.status import NodeStatus
from raftkv.processes.cluster import ProcessCluster

T = TypeVar("T")

POLL_S = 0.05


class Stage:
    """Asks the nodes of a cluster, at the addresses where they listen, and waits for what they say."""

    deadline_s: ClassVar[float]
    """For whatever is waited for."""
    ask_s: ClassVar[float]
    """For a node to say how it is."""
    failed: ClassVar[type[Exception]]
    """What is raised when something does not happen in time."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self.cluster = cluster

    def asked(self) -> Iterable[NodeId]:
        """The nodes that `statuses` asks."""
        return self.cluster.nodes

    def operator(self, addresses: Iterable[str]) -> Admin:
        """An operator's client that is told of these addresses; by default one that does not sign in."""
        return Admin(list(addresses))

    def check(self) -> None:
        """Raises an error after which waiting makes no sense; by default there is none."""

    async def status(self, node_id: NodeId) -> NodeStatus | None:
        """A node's status; None when it does not answer."""
        node = self.cluster.nodes[node_id]
        if not node.is_running:
            return None
        try:
            async with self.operator([node.own.client_address]) as admin:
                return msgspec.convert(await admin.status(self.ask_s), NodeStatus)
        except RaftKVError:
            return None

    async def statuses(self) -> list[NodeStatus]:
        """The statuses of the nodes that answer."""
        found = await asyncio.gather(*[self.status(node_id) for node_id in self.asked()])
        return [status for status in found if status is not None]

    async def until(self, condition: Callable[[], Awaitable[T | None]], what: str, within_s: float | None = None) -> T:
        """Ask again and again until there is an answer that is not None. Raises `failed`, and what `check` raises."""
        seconds = self.deadline_s if within_s is None else within_s
        end = time.monotonic() + seconds
        while True:
            self.check()
            if (found := await condition()) is not None:
                return found
            if time.monotonic() > end:
                raise self.failed(f"{what}: not within {seconds:g} s")
            await asyncio.sleep(POLL_S)
