"""The demo's nodes: what they say of themselves, and waiting for it, always with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from raftkv.cli.demo.load import Writers
from raftkv.model import NodeId
from raftkv.node.status import NodeStatus
from raftkv.processes.cluster import NodeProcess, ProcessCluster
from raftkv.processes.stage import Stage

T = TypeVar("T")


class DemoFailed(Exception):
    """An event of the demo did not happen in time, or a node's process ended by itself."""


class DemoStage(Stage):
    """Asks the nodes and waits for them; fails as soon as one ends that nobody killed."""

    deadline_s = 30.0  # all of it takes a second or two when it works
    ask_s = 1.0
    failed = DemoFailed

    def __init__(self, cluster: ProcessCluster) -> None:
        super().__init__(cluster)
        self.writers: Writers | None = None
        self.expected: set[NodeId] = set()
        """Who should be running."""

    def asked(self) -> list[NodeId]:
        return sorted(self.expected)

    def start(self, *node_ids: NodeId) -> None:
        """Start the processes of these nodes; does not wait until they serve."""
        for node_id in node_ids:
            self.cluster.nodes[node_id].start()
            self.expected.add(node_id)

    def kill(self, *node_ids: NodeId) -> None:
        """SIGKILL to all of them, then wait until they are gone."""
        self.expected -= set(node_ids)
        self.cluster.kill(*node_ids)

    def check(self) -> None:
        """Raises `DemoFailed` when a node has ended by itself, and what a writer failed with."""
        for node_id in sorted(self.expected):
            node = self.cluster.nodes[node_id]
            if not node.is_running:
                raise DemoFailed(f"node {node_id} ended by itself; the end of its log:\n{tail(node)}")
        if self.writers is not None:
            self.writers.check()

    async def within(self, work: Awaitable[T], what: str) -> T:
        """Wait for `work`. Raises `DemoFailed` at the deadline, or as soon as a node ends by itself."""
        task = asyncio.ensure_future(work)

        async def finished() -> asyncio.Future[T] | None:
            return task if task.done() else None

        try:
            return (await self.until(finished, what)).result()
        finally:
            task.cancel()

    async def leader(self) -> NodeStatus:
        """The leader that a majority follows."""

        async def find() -> NodeStatus | None:
            statuses = await self.statuses()
            for status in statuses:
                followers = sum(other.leader == status.node_id and other.term == status.term for other in statuses)
                if status.role == "leader" and followers > len(status.membership.voters) // 2:
                    return status
            return None

        return await self.until(find, "a leader")

    async def caught_up(self, node_id: NodeId, index: int) -> NodeStatus:
        """Wait until a node has applied everything up to `index`."""

        async def look() -> NodeStatus | None:
            status = await self.status(node_id)
            return status if status is not None and status.applied_index >= index else None

        return await self.until(look, f"node {node_id} applying entry {index}")

    async def at_rest(self) -> list[NodeStatus]:
        """Wait until all nodes have applied the same last entry, which is committed."""

        async def look() -> list[NodeStatus] | None:
            statuses = await self.statuses()
            places = {place for each in statuses for place in (each.last_index, each.commit_index, each.applied_index)}
            return statuses if len(statuses) == len(self.expected) and len(places) == 1 else None

        return await self.until(look, "all nodes at the same entry")


def tail(node: NodeProcess, lines: int = 15) -> str:
    """The end of what a node's process printed."""
    text = node.log_path.read_text(errors="replace") if node.log_path.exists() else "(it printed nothing)"
    return "\n".join(text.splitlines()[-lines:])
