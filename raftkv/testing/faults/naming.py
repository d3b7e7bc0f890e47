"""Faults of a name service: names of nodes are found late, not at all, or at a wrong address."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from raftkv.model import NodeId
from raftkv.testing.world.cluster import SimCluster
from raftkv.transport.memory import NameAnswer

NAMES = ("slow name", "unknown name", "wrong name")

WHILE_S = (0.5, 8.0)
"""For how long one node is told so of one name, from and to, in virtual seconds."""


class NameFaults:
    """A `Naming` of a `MemoryNetwork`. Each kind of fault is counted when a look-up meets it.

    Nodes don't look up the name of a connected peer, so the connection breaks when a fault begins.
    """

    def __init__(self, cluster: SimCluster, dice: random.Random) -> None:
        self._cluster = cluster
        self._dice = dice
        self._told: dict[tuple[NodeId, str], tuple[str, NameAnswer]] = {}
        faults = (self._late, self._never, self._elsewhere)
        self.kinds: dict[str, Callable[[], Awaitable[bool]]] = {
            kind: self._making(kind, fault) for kind, fault in zip(NAMES, faults, strict=True)
        }

    def __call__(self, asker: NodeId, address: str) -> NameAnswer | None:
        found = self._told.get((asker, address))
        if found is None:
            return None
        kind, answer = found
        self._cluster.fired[kind] += 1
        return answer

    def calm(self) -> None:
        """End all faults: every name is found again."""
        self._told.clear()

    def _making(self, kind: str, fault: Callable[[str], NameAnswer]) -> Callable[[], Awaitable[bool]]:
        async def make() -> bool:
            nodes = list(self._cluster.nodes.values())
            if len(nodes) < 2:
                return False
            asker, asked = self._dice.sample(nodes, 2)
            way = (asker.place, asked.member.peer_address)
            self._told[way] = told = (kind, fault(asked.member.peer_address))
            self._cluster.network.reset(asker.place, asked.place)
            loop = asyncio.get_running_loop()
            loop.call_later(self._dice.uniform(*WHILE_S), self._end, way, told)
            return True

        return make

    def _end(self, way: tuple[NodeId, str], told: tuple[str, NameAnswer]) -> None:
        if self._told.get(way) is told:
            del self._told[way]

    def _late(self, address: str) -> NameAnswer:
        return NameAnswer((address,), self._dice.choice([0.05, 0.6, 3.0]) * self._dice.uniform(0.5, 1.5))

    def _never(self, address: str) -> NameAnswer:
        return NameAnswer((), self._dice.choice([0.0, 0.3, 2.0]))

    def _elsewhere(self, address: str) -> NameAnswer:
        """A wrong address: another node's, this node's, or one without a node."""
        others = [sim.member.peer_address for sim in self._cluster.nodes.values()]
        places = [place for place in (*others, "nowhere:1") if place != address]
        return NameAnswer((self._dice.choice(places),), self._dice.choice([0.0, 0.1]))
