"""What tests on real nodes share until they have a stage: bringing up, waiting, watching."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from raftkv.client import Admin, Client
from raftkv.errors import RaftKVError
from raftkv.testing.history import History
from raftkv.testing.processes import NodeProcess, ProcessCluster, free_ports
from raftkv.testing.workload import Clients, Workload

T = TypeVar("T")

DEADLINE_S = 60.0
"""For whatever is waited for; nearly all of it takes less than a second, on a machine that is idle."""

WORKLOAD = ("--machine", "raftkv.testing.workload:Workload")


async def until(condition: Callable[[], Awaitable[T | None]], what: str) -> T:
    """Ask again and again until there is an answer that is not None."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DEADLINE_S
    waiting = asyncio.Event()
    while (found := await condition()) is None:
        assert loop.time() < end, f"{what}: not within {DEADLINE_S:g} s"
        try:
            await asyncio.wait_for(waiting.wait(), 0.05)
        except TimeoutError:
            continue
    return found


async def leader_of(cluster: ProcessCluster) -> NodeProcess:
    """Who leads, as a majority says."""

    async def find() -> NodeProcess | None:
        said = await asyncio.gather(*[_leader_says(node) for node in cluster.nodes.values()])
        for node_id in {each for each in said if each is not None}:
            if said.count(node_id) > len(said) // 2:
                return cluster.nodes[node_id]
        return None

    return await until(find, "a leader")


async def _leader_says(node: NodeProcess) -> int | None:
    status = await status_of(node)
    return status["leader"] if status is not None else None


class Load:
    """Recorded clients at work."""

    def __init__(self, addresses: Sequence[str], seed: int) -> None:
        self._history = History()
        self._addresses = addresses
        self._clients = Clients(seed, self._history)

    @property
    def operations(self) -> int:
        """How many were begun."""
        return len(self._history.operations)

    async def more(self, count: int) -> None:
        """Wait until so many more have ended well."""
        wanted = self.answered + count

        async def enough() -> bool | None:
            return self.answered >= wanted or None

        await until(enough, f"{count} more operations")

    @property
    def answered(self) -> int:
        """How many ended with a result."""
        return sum(operation.returned < math.inf for operation in self._history.operations)

    async def run(self, count: int) -> None:
        """So many clients, until `stop`."""
        await asyncio.gather(*[self._clients.act(Client(Workload, self._addresses), number) for number in range(count)])

    async def stop(self, running: asyncio.Task[None]) -> None:
        """Let them end, and judge what they saw by all three checkers."""
        self._clients.stopping = True
        await asyncio.wait_for(running, DEADLINE_S)
        client = Client(Workload, self._addresses)
        try:
            problems = self._clients.problems(await self._clients.read_lists(client))
        finally:
            await client.close()
        assert problems == []


@asynccontextmanager
async def load(cluster: ProcessCluster, *, clients: int = 6, seed: int = 1) -> AsyncIterator[Load]:
    """Recorded clients while something is done to the cluster, judged at the end."""
    found = Load(cluster.addresses, seed)
    running = asyncio.ensure_future(found.run(clients))
    try:
        yield found
        await found.stop(running)
    finally:
        running.cancel()


def with_http(cluster: ProcessCluster) -> list[str]:
    """Give each node an HTTP port; returns their addresses."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(len(cluster.nodes))]
    for node, address in zip(cluster.nodes.values(), addresses, strict=True):
        node.arguments += ["--http", address]
    return addresses


def tell(story: Coroutine[Any, Any, None]) -> None:
    """Run a story to its end."""
    asyncio.run(story)


class Scene:
    """Where faults happen: what they did is counted, and said when a test fails."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self.cluster = cluster
        self.fired: Counter[str] = Counter()
        self.notes: list[str] = []

    def met(self, kind: str, times: int = 1) -> None:
        self.fired[kind] += times

    def note(self, text: str) -> None:
        self.notes.append(text)

    async def leader(self) -> NodeProcess:
        return await leader_of(self.cluster)


async def until_equal(cluster: ProcessCluster) -> None:
    """Wait until all nodes have applied the same last entry, with the same digest, and nothing is under way."""

    async def look() -> bool | None:
        said = [await status_of(node) for node in cluster.nodes.values()]
        places = {(each["applied_index"], each["last_index"], each["digest"]) for each in said if each is not None}
        return (None not in said and len(places) == 1) or None

    await until(look, "all nodes with the same state")


async def status_of(node: NodeProcess) -> dict[str, Any] | None:
    """What a node says of itself, asked past any proxy; None when it doesn't."""
    try:
        async with Admin([node.own.client_address]) as admin:
            return await admin.status(2.0)
    except RaftKVError:
        return None
