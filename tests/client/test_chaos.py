"""Whatever the cluster does, each command is applied once and its caller sees its result."""

from __future__ import annotations

import asyncio
import random

import pytest

from raftkv.client import Client
from raftkv.errors import Indeterminate, RaftKVError, Unavailable
from raftkv.kv import KeyValue
from raftkv.testing.world.loop import elapse
from raftkv.wire import Request, Response, Status
from tests.campaign.large import IS_LARGE
from tests.client.cluster import FakeCluster, FakeNode
from tests.client.worlds import run_world


class Chaos:
    """Moves leadership, breaks connections, drops answers, until `stop`. Counts what it did."""

    def __init__(self, cluster: FakeCluster, seed: int) -> None:
        self.cluster = cluster
        self.dice = random.Random(seed)
        self.done: dict[str, int] = {}
        self.healed = False

    async def run(self) -> None:
        events = [self.move, self.no_leader, self.cut, self.mute, self.deposed, self.busy]
        while not self.healed:
            await elapse(self.dice.uniform(0.01, 0.6))
            if self.healed:
                return
            event = self.dice.choice(events)
            self.done[event.__name__] = self.done.get(event.__name__, 0) + 1
            event(self.dice.choice(self.cluster.nodes))

    def heal(self) -> None:
        self.healed = True
        for node in self.cluster.nodes:
            node.script = node.behave
        self.cluster.leader = self.cluster.addresses[0]

    def _until_later(self, node: FakeNode) -> None:
        asyncio.get_running_loop().call_later(self.dice.uniform(0.05, 3), setattr, node, "script", node.behave)

    def move(self, node: FakeNode) -> None:
        self.cluster.leader = node.address

    def no_leader(self, _: FakeNode) -> None:
        self.cluster.leader = None
        asyncio.get_running_loop().call_later(0.3, self.move, self.dice.choice(self.cluster.nodes))

    def cut(self, node: FakeNode) -> None:
        node.break_connections()

    def mute(self, node: FakeNode) -> None:
        """The node does its work, but nobody hears of it: a network that is cut one way."""

        def script(request: Request) -> None:
            node.behave(request)

        node.script = script
        self._until_later(node)

    def deposed(self, node: FakeNode) -> None:
        """Half of the commands that the node appends get lost, and it can't tell which."""

        def script(request: Request) -> Response | None:
            if self.dice.random() < 0.5:
                node.behave(request)
            return Response(request.id, Status.INDETERMINATE, b"deposed")

        node.script = script
        self._until_later(node)

    def busy(self, node: FakeNode) -> None:
        node.script = lambda request: Response(request.id, Status.BUSY, b"busy")
        self._until_later(node)


@pytest.mark.parametrize("seed", range(20 if IS_LARGE else 6))
def test_every_increment_counts_once(seed: int) -> None:
    """F36, F74: each caller gets a result of its own, and the counter is the number of calls."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        chaos = Chaos(cluster, seed)
        task = asyncio.ensure_future(chaos.run())
        results: list[int] = []

        async def worker() -> None:
            for _ in range(15):
                results.append(await client.remote.increment.within(1000)(b"n"))
                await elapse(chaos.dice.uniform(0, 0.5))

        await asyncio.gather(*[worker() for _ in range(20)])
        chaos.heal()
        await task
        assert sorted(results) == list(range(1, 301))
        assert sum(chaos.done.values()) > 5

    run_world(story)


def test_without_sessions_every_increment_counts_at_most_once() -> None:
    """F36: results are unique, failures that say "not done" are not done, and doubt is said."""
    ends = {"done": 0, "unknown": 0, "refused": 0}

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        chaos = Chaos(cluster, seed)
        task = asyncio.ensure_future(chaos.run())
        results: list[int] = []
        unknown = refused = 0

        async def worker() -> None:
            nonlocal unknown, refused
            for _ in range(15):
                try:
                    results.append(await client.remote.increment.within(0.5)(b"n"))
                except Indeterminate:
                    unknown += 1
                except RaftKVError:
                    refused += 1
                await elapse(chaos.dice.uniform(0, 0.5))

        await asyncio.gather(*[worker() for _ in range(20)])
        chaos.heal()
        await task
        assert len(set(results)) == len(results)
        total = await client.remote.increment(b"n") - 1
        assert len(results) <= total <= len(results) + unknown
        assert len(results) + unknown + refused == 300
        ends["done"] += len(results)
        ends["unknown"] += unknown
        ends["refused"] += refused

    for seed in range(10):  # noqa: B007 (the story draws from it)
        run_world(story, sessions=False)
    assert all(count > 10 for count in ends.values()), ends


def test_chaos_without_end_is_unavailable() -> None:
    """The checks above can fail: a cluster that never accepts anything answers nobody."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        for node in cluster.nodes:
            node.script = lambda request: Response(request.id, Status.UNAVAILABLE, b"no quorum")
        with pytest.raises(Unavailable, match="no quorum"):
            await client.remote.increment.within(3)(b"n")

    run_world(story)
