"""Where faults happen: a cluster of real processes, what was done to it, and questions to its nodes."""

from __future__ import annotations

import asyncio
import random
import ssl as tls
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar

from raftkv.client import Admin, ClientOptions
from raftkv.errors import RaftKVError
from raftkv.model import NodeId
from raftkv.processes.cluster import NodeProcess, ProcessCluster
from raftkv.processes.stage import Stage
from tests.chaos.filesystem import Image
from tests.chaos.proxy import LinkProxy
from tests.chaos.slowness import slowness

T = TypeVar("T")

DEADLINE_S = 60.0
"""For whatever is waited for, and more where the machine is slower; nearly all of it takes less than a second."""


class ChaosStage(Stage):
    """A cluster while faults are done to it.

    `fired` counts faults that really did something, by kind. `dice` is the only chance that faults take. Nodes are
    asked at the addresses where they listen, past any proxy.
    """

    deadline_s = DEADLINE_S
    ask_s = 2.0
    failed = AssertionError

    def __init__(
        self,
        cluster: ProcessCluster,
        dice: random.Random,
        directory: Path,
        proxy: LinkProxy | None = None,
        *,
        ssl: tls.SSLContext | None = None,
    ) -> None:
        super().__init__(cluster)
        self.ssl = ssl
        """With what operators' clients come, where there is TLS."""
        self.sign_in: ClientOptions | None = None
        """How they sign in, where they have to."""
        self.proxy = proxy
        """Stands on every link, if the cluster was made with `apart`."""
        self.dice = dice
        self.directory = directory
        self.images: dict[NodeId, Image] = {}
        """File systems that data directories were moved to, for losses of power; gone at the end of the scene."""
        self.departed: set[NodeId] = set()
        """Who was a member and never is again."""
        self.fired: Counter[str] = Counter()
        self.notes: list[str] = []
        self._began = time.monotonic()

    async def until(self, condition: Callable[[], Awaitable[T | None]], what: str, within_s: float | None = None) -> T:
        """As of every stage, but longer where the machine is slower."""
        seconds = self.deadline_s if within_s is None else within_s
        return await super().until(condition, what, seconds * slowness())

    def met(self, kind: str, times: int = 1) -> None:
        """The fault really did something: count it."""
        self.fired[kind] += times

    def note(self, text: str) -> None:
        """A line of the run's log, with the time since its beginning."""
        line = f"{time.monotonic() - self._began:8.3f} {text}"
        self.notes.append(line)
        with (self.directory / "run.log").open("a") as log:
            log.write(line + "\n")

    def operator(self, addresses: Iterable[str]) -> Admin:
        """An operator's client that is told of these addresses, and signs in as this stage's do."""
        return Admin(list(addresses), options=self.sign_in, ssl=self.ssl)

    def admin(self) -> Admin:
        """An operator's client that knows every node where it listens."""
        return self.operator(node.own.client_address for node in self.cluster.nodes.values())

    async def leader(self) -> NodeProcess:
        """Who leads now, as a majority of all nodes says. Raises `AssertionError` when nobody does in time."""

        async def find() -> NodeProcess | None:
            said = Counter(status.leader for status in await self.statuses() if status.leader is not None)
            for node_id, count in said.items():
                if count > len(self.cluster.nodes) // 2:
                    return self.cluster.nodes[node_id]
            return None

        return await self.until(find, "a leader that a majority follows")

    async def make_lead(self, node: NodeProcess) -> None:
        """Hand leadership over until this node has it."""

        async def ask() -> bool | None:
            if await self.leader() is node:
                return True
            try:
                async with self.admin() as admin:
                    await admin.transfer_leadership(node.node_id, 5.0)
            except RaftKVError as exc:
                self.note(f"node {node.node_id} is not to lead yet: {exc}")
            return None

        await self.until(ask, f"node {node.node_id} leading")

    async def restart(self, node: NodeProcess) -> None:
        """SIGTERM, which a node heeds, and start it again; returns when it answers. Raises `AssertionError`."""
        code = await asyncio.to_thread(node.terminate)
        assert code == 0, f"node {node.node_id} ended with {code} after SIGTERM"
        node.start()

        async def is_back() -> bool | None:
            assert node.is_running, f"node {node.node_id} has ended: see {node.log_path}"
            return await self.status(node.node_id) is not None or None

        await self.until(is_back, f"node {node.node_id} back")

    async def until_equal(self) -> None:
        """Wait until every node has applied the same last entry, with the same digest of the state."""

        async def look() -> bool | None:
            statuses = await self.statuses()
            places = {(each.applied_index, each.last_index, each.digest) for each in statuses}
            return (len(statuses) == len(self.cluster.nodes) and len(places) == 1) or None

        await self.until(look, "all nodes with the same state")
