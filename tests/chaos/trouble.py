"""Kills, pauses and cuts of one node after the other, while something else is done to a small cluster."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from raftkv.processes.cluster import NodeProcess
from tests.chaos.links import CUT
from tests.chaos.stage import ChaosStage

HOLD_S = (0.3, 2.0)
REST_S = (0.2, 1.0)

FAULTS = 3
"""At least: one of each kind."""

Served = Callable[[], Awaitable[None]]
"""Returns when clients have been served."""


class Trouble:
    """One node at a time is killed, stopped or cut off, so that a majority is there always. Before the next one clients
    must be served, so each pause of theirs is that of one fault."""

    def __init__(self, stage: ChaosStage, dice: random.Random, served: Served) -> None:
        """Without a proxy on the stage no node is cut off."""
        self._stage = stage
        self._dice = dice
        self._served = served
        self._kinds = [self._kill, self._stop, *([self._cut] if stage.proxy is not None else [])]
        self.times = 0
        self.going = asyncio.ensure_future(self._go_on())

    async def has_come(self, times: int) -> None:
        """Wait until there were so many. Raises `AssertionError`, and whatever went wrong in them."""

        async def look() -> bool | None:
            if self.going.done():
                self.going.result()
            return self.times >= times or None

        await self._stage.until(look, f"{times} faults meanwhile")

    async def _go_on(self) -> None:
        """One after the other, until it is cancelled."""
        while True:
            await self._once()
            await asyncio.sleep(self._dice.uniform(*REST_S))

    async def _once(self) -> None:
        """One fault, of any kind, that lasts for a moment; mostly of the leader."""
        leader = await self._stage.leader()
        node = leader if self._dice.random() < 0.6 else self._dice.choice([*self._stage.cluster.nodes.values()])
        kind = self._kinds[self.times % len(self._kinds)]
        try:
            await kind(node, self._dice.uniform(*HOLD_S))
        finally:
            self.end()
        self.times += 1
        await self._served()

    async def _kill(self, node: NodeProcess, seconds: float) -> None:
        self._stage.note(f"SIGKILL to node {node.node_id} for {seconds:.1f} s")
        node.kill()
        await asyncio.sleep(seconds)

    async def _stop(self, node: NodeProcess, seconds: float) -> None:
        self._stage.note(f"SIGSTOP to node {node.node_id} for {seconds:.1f} s")
        node.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)

    async def _cut(self, node: NodeProcess, seconds: float) -> None:
        self._stage.note(f"node {node.node_id} cut off from its peers for {seconds:.1f} s")
        assert self._stage.proxy is not None, "nodes are cut off by a proxy"
        self._stage.proxy.put([way for way in self._stage.proxy.ways if node.node_id in way], CUT)
        await asyncio.sleep(seconds)

    def end(self) -> None:
        """Every node runs, and reaches every other one."""
        if self._stage.proxy is not None:
            self._stage.proxy.heal()
        for node in self._stage.cluster.nodes.values():
            node.signal(signal.SIGCONT)
        self._stage.cluster.start_all()


@asynccontextmanager
async def troubled(stage: ChaosStage, dice: random.Random, served: Served) -> AsyncIterator[Trouble]:
    """Trouble as long as the block goes on; at its end all is well again. Raises what went wrong in it."""
    trouble = Trouble(stage, dice, served)
    try:
        yield trouble
    finally:
        trouble.going.cancel()
        await asyncio.wait([trouble.going])
        trouble.end()
    if not trouble.going.cancelled():
        trouble.going.result()
