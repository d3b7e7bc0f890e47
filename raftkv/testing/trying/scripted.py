"""Plays a script in a world: clients with sessions make its calls, its faults happen, and all nodes recover."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from raftkv.errors import RaftKVError
from raftkv.machine import StateMachine
from raftkv.testing.faults.nemesis import Nemesis
from raftkv.testing.judging.check import Check
from raftkv.testing.judging.checks import all_checks
from raftkv.testing.judging.failure import Cause, CounterExample, Failure
from raftkv.testing.judging.logtime import LogTimeIsBounded
from raftkv.testing.judging.watching import look, watched
from raftkv.testing.trying.script import Call, Fault, Script
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import Deadlock, SimLoop
from raftkv.testing.world.unheard import quiet

DEADLINE_S = 8.0
"""Of a call, in virtual seconds: several elections fit in."""

RECOVER_S = 1.0
"""Nodes that are down are started again, and the network is healed, about this often: scripts hold what breaks."""


class ScriptedWorld(ABC):
    """One script in one world. `run` raises `CounterExample`."""

    def __init__(self, script: Script, observe: Callable[[SimCluster], None] | None) -> None:
        """`observe` is called with the cluster before it starts."""
        self._script = script
        self._observe = observe
        self._dice = random.Random(script.seed)
        self._start_s = 0.0

    @abstractmethod
    def _cluster(self, seed: int) -> SimCluster:
        """The cluster, not started."""

    @abstractmethod
    def _class_of(self, call: Call) -> type[StateMachine]:
        """The class that the client of a call has."""

    @abstractmethod
    async def _call(self, client: Any, call: Call) -> None:
        """Make a call, and remember what came of it."""

    @abstractmethod
    async def _settle(self, cluster: SimCluster) -> None:
        """Called when all calls have ended and everything is mended."""

    def _more_checks(self) -> list[Check]:
        """What else is looked at all the time."""
        return []

    async def _strike(self, cluster: SimCluster, nemesis: Nemesis, fault: Fault) -> None:
        """Let a fault of the script happen."""
        await nemesis.strike(fault.kind, fault.chance)

    def run(self) -> None:
        """Play it in virtual time."""
        try:
            with quiet():
                SimLoop().run(self._run())
        except Failure as exc:
            raise CounterExample(Cause.BROKEN, str(exc)) from exc
        except (AssertionError, RaftKVError, TimeoutError, Deadlock) as exc:
            raise CounterExample(Cause.BROKEN, f"{type(exc).__name__}: {exc}") from exc

    async def _run(self) -> SimCluster:
        """The cluster as it is at the end, when all nodes are equal."""
        cluster = self._cluster(self._dice.getrandbits(64))
        if self._observe is not None:
            self._observe(cluster)
        nemesis = Nemesis(cluster, random.Random(self._dice.getrandbits(64)))
        checks = [*all_checks(), LogTimeIsBounded(), *self._more_checks()]
        await watched(cluster, checks, self._play(cluster, nemesis))
        look(cluster, checks)
        return cluster

    async def _play(self, cluster: SimCluster, nemesis: Nemesis) -> None:
        await cluster.start()
        await cluster.until_leader()
        self._start_s = cluster.loop.time()
        numbers = sorted({call.client for call in self._script.calls})
        clients = [asyncio.ensure_future(self._client(cluster, number)) for number in numbers]
        recovery = asyncio.ensure_future(self._recover(nemesis))
        try:
            for fault in sorted(self._script.faults, key=lambda fault: fault.at_ms):
                await self._until(fault.at_ms)
                await self._strike(cluster, nemesis, fault)
            await asyncio.wait([asyncio.gather(*clients)], timeout=RECOVER_S)
        finally:
            recovery.cancel()
            await asyncio.gather(recovery, return_exceptions=True)
        await nemesis.mend()
        cluster.note("mended")
        await cluster.until_leader(60)
        await asyncio.wait_for(asyncio.gather(*clients), 60 + DEADLINE_S * len(self._script.calls))
        await self._settle(cluster)
        await cluster.until_equal()

    async def _recover(self, nemesis: Nemesis) -> None:
        dice = random.Random(self._script.seed)
        while True:
            await asyncio.sleep(dice.uniform(0.5, 1.5) * RECOVER_S)
            await nemesis.strike(dice.choice(["restart", "heal"]), dice.getrandbits(32))

    async def _until(self, at_ms: int) -> None:
        left = self._start_s + at_ms / 1000 - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)

    async def _client(self, cluster: SimCluster, number: int) -> None:
        calls = sorted((call for call in self._script.calls if call.client == number), key=lambda call: call.at_ms)
        # In the order of the calls, and not of a set: clients draw from the world's dice when they are made.
        classes = dict.fromkeys(map(self._class_of, calls))
        clients = {kind: cluster.client(machine=kind, deadline_s=DEADLINE_S, sessions=True) for kind in classes}
        try:
            for call in calls:
                await self._until(call.at_ms)
                await self._call(clients[self._class_of(call)], call)
        finally:
            for client in clients.values():
                await client.close()
