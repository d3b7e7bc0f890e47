"""Clients of simulated worlds that watch rows: each change is told once, in order, whatever becomes of the nodes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from raftkv.client import Client
from raftkv.errors import Indeterminate, NotAccepted, SessionExpired
from raftkv.history import BEGINNING, Cursor
from raftkv.testing.world.cluster import SimCluster
from raftkv.worlds.workload import Workload

TOLD, RESUMED = "change that is watched", "watch that goes on elsewhere by its cursor"

WATCHED = (TOLD, RESUMED)

WORLDS_PART = 0.35
"""Of all worlds have such clients: in the others nothing is watched."""

WATCHERS = 2
KEYS = 4
RESUMES_PART = 0.1
"""After so many of its changes a watcher goes on with another client."""


class Watcher:
    """Hears of all changes from the beginning on. A row counts how often it was set, so one that is left out, told
    twice or out of order is noticed at once."""

    def __init__(self, cluster: SimCluster, dice: random.Random, client: Callable[[], Client[Workload]]) -> None:
        self._cluster = cluster
        self._dice = dice
        self._client = client
        self.counts: dict[int, int] = {}
        self._last: Cursor = BEGINNING

    async def act(self) -> None:
        """Watch until it is cancelled."""
        while True:
            client = self._client()
            watch = client.watch(Workload.counted, self._last)
            try:
                while self._dice.random() >= RESUMES_PART:
                    change = await anext(watch)
                    self._take(change.key, change.value, change.cursor)
                    self._last = change.cursor
                self._cluster.fired[RESUMED] += 1
            except NotAccepted:
                continue  # nobody has answered for long
            finally:
                await client.close(end_session=False)

    def _take(self, key: int, value: int | None, cursor: Cursor) -> None:
        before = self.counts.get(key, 0)
        assert cursor > self._last, f"a watcher at {self._last} was told of a change at {cursor}"
        assert value == before + 1, (
            f"a watcher at {self._last} knew {key} to be {before}, and was told that it is {value}"
        )
        self.counts[key] = before + 1
        self._cluster.fired[TOLD] += 1


class Watching:
    """A client that sets rows, and some that watch them."""

    def __init__(self, seed: int, cluster: SimCluster) -> None:
        self._dice = random.Random(f"what is watched in {seed}")
        self._cluster = cluster
        self.is_wanted = self._dice.random() < WORLDS_PART
        self._watchers: list[Watcher] = []
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, client: Callable[[], Client[Workload]]) -> None:
        """Have the watchers watch, each with clients of its own."""
        self._watchers = [
            Watcher(self._cluster, random.Random(self._dice.getrandbits(64)), client) for _ in range(WATCHERS)
        ]
        self._tasks = [asyncio.ensure_future(watcher.act()) for watcher in self._watchers]

    async def act(self, client: Client[Workload], is_over: Callable[[], bool]) -> None:
        """Set rows until the world ends."""
        try:
            while not is_over():
                await asyncio.sleep(self._dice.expovariate(5.0))
                try:
                    await client.call("count_up", self._dice.randrange(KEYS))
                except (NotAccepted, Indeterminate, SessionExpired):
                    continue
        finally:
            await client.close()

    async def judge(self, client: Client[Any], within_s: float) -> None:
        """Raises `AssertionError` when a watcher was told of something wrong, or was not told of all."""
        counts = dict(await client.call("counted_now"))

        def is_done() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return all(watcher.counts == counts for watcher in self._watchers)

        found = [watcher.counts for watcher in self._watchers]
        await self._cluster.until(is_done, within_s, f"watchers know {found} of {counts}")

    async def end(self) -> None:
        """Watch no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
