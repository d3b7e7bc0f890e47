"""Clients of simulated worlds that read much, of what is there and of what was deleted, at one index each time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from raftkv.client import Client
from raftkv.errors import Indeterminate, NotAccepted, SessionExpired, TooMuchWork, ViewExpired
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.workers import SCANS
from raftkv.worlds.workload import ROWS_EACH, Workload

SLOW, GONE, SEEN = "slow scan", "view that is gone", "view of one index"

SCANNED = (SLOW, GONE, SEEN)

WORLDS_PART = 0.3
"""Of all worlds have such clients: in the others nothing is kept from its turn by them."""


class Scanner:
    """A client that fills and deletes rows, and adds them up. Whatever it reads is a state that there was: the rows of
    one command are there together, and add up to nothing."""

    def __init__(self, seed: int, cluster: SimCluster) -> None:
        self._dice = random.Random(f"what is scanned in {seed}")
        self._cluster = cluster
        self.is_wanted = self._dice.random() < WORLDS_PART

    async def act(self, client: Client[Workload], is_over: Callable[[], bool]) -> None:
        """Fill, delete and sum up rows until the world ends."""
        dice = self._dice
        try:
            while not is_over():
                await asyncio.sleep(dice.expovariate(2.0))
                try:
                    await dice.choice([self._litter, self._sum_up, self._look_twice, self._slow_down])(client)
                except (NotAccepted, Indeterminate, SessionExpired, TooMuchWork):
                    continue  # each of them is an honest end
        finally:
            for sim in self._cluster.nodes.values():
                sim.unhang((SCANS,))  # whoever looks at what has become of it all may scan, too
            await client.close()

    async def _litter(self, client: Client[Workload]) -> None:
        await client.call("litter", self._dice.randrange(8), self._dice.random() < 0.5)

    async def _sum_up(self, client: Client[Workload]) -> None:
        self._check(await client.call("sum_up"))

    def _check(self, found: Any) -> None:
        count, total = found
        assert (count % ROWS_EACH, total) == (0, 0), f"a scan saw {count} rows that add up to {total}"

    async def _look_twice(self, client: Client[Workload]) -> None:
        """At one index, whatever is done between the two looks, and until the node holds that state no more."""
        view = await client.open_view()
        try:
            method = client.method("sum_up")
            first = await view.invoke(method, (), {}, 8.0)
            self._check(first)
            await self._litter(client)
            await asyncio.sleep(self._dice.choice([0.0, 1.0, 5.0]))
            second = await view.invoke(method, (), {}, 8.0)
            assert first == second, f"a view of index {view.index} had {first}, and then {second}"
            self._cluster.fired[SEEN] += 1
        except ViewExpired:
            self._cluster.fired[GONE] += 1
        finally:
            await view.close()

    async def _slow_down(self, client: Client[Workload]) -> None:
        """What reads much gets nowhere for a while, on the node that leads: all others go on there."""
        leader = self._cluster.leader
        if leader is None:
            return
        before = leader.scans.begun
        seconds = self._dice.choice([0.2, 2.0, 12.0]) * self._dice.uniform(0.5, 1.5)
        self._cluster.nodes[leader.node_id].hang_for(SCANS, seconds)
        try:
            await self._sum_up(client)
        finally:
            if leader.scans.begun > before:
                self._cluster.fired[SLOW] += 1
