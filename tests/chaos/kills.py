"""Processes killed, stopped for a while, and restarted one by one."""

from __future__ import annotations

import asyncio
import random
import signal

from raftkv.processes.cluster import NodeProcess
from tests.chaos.fault import RealFault
from tests.chaos.stage import ChaosStage
from tests.chaos.waking import awaited

PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""From what nobody notices to what costs the leader its place many times over."""

PAUSED_LONG_S = PAUSES_S[-1]

PAUSED_S = 4.0
"""Shorter pauses are repeated for about so long."""

REPEATED_MAX = 8


class LeaderKilled(RealFault):
    """SIGKILL to whoever leads, and again as soon as there is another, which had time to be of use."""

    kind = "the leader killed"
    rows = "F2 F26 F27"

    def __init__(self, dice: random.Random, times: int | None = None) -> None:
        self._dice = dice
        self._times = times if times is not None else dice.randint(8, 12)
        self._gap_s = dice.uniform(0.1, 0.5)

    async def inject(self, stage: ChaosStage) -> None:
        for _ in range(self._times):
            leader = await stage.leader()
            stage.note(f"SIGKILL to node {leader.node_id}, which leads")
            stage.cluster.kill(leader.node_id)
            stage.met(self.kind)
            await asyncio.sleep(self._gap_s)
            leader.start()

    def describe(self) -> str:
        return f"{self.kind}: {self._times} times, back after {self._gap_s:.1f} s"


class NodesKilled(RealFault):
    """SIGKILL to several nodes at once, mostly to all of them, four times: what was acknowledged is on their disks."""

    kind = "nodes killed at once"
    rows = "F4 F6 F8"

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._gap_s = dice.uniform(0.0, 1.0)

    async def inject(self, stage: ChaosStage) -> None:
        ids = sorted(stage.cluster.nodes)
        for _ in range(4):
            await stage.leader()  # else nothing was acknowledged since the last time
            chosen = ids if self._dice.random() < 0.7 else self._dice.sample(ids, k=2)
            stage.note(f"SIGKILL to nodes {chosen}")
            stage.cluster.kill(*chosen)
            stage.met(self.kind, len(chosen))
            await asyncio.sleep(self._gap_s)
            stage.cluster.start_all()

    async def heal(self, stage: ChaosStage) -> None:
        stage.cluster.start_all()

    def describe(self) -> str:
        return f"{self.kind}: back after {self._gap_s:.1f} s"


class Paused(RealFault):
    """SIGSTOP to the leader or another node, with reads and writes that wait for it when it wakes."""

    kind = "a node paused"
    long = "a node paused for half a minute"
    """Its kind from `PAUSED_LONG_S` on."""
    rows = "F16 F72"

    def __init__(self, dice: random.Random, seconds: float | None = None, *, of_leader: bool | None = None) -> None:
        self._dice = dice
        drawn = dice.choices(PAUSES_S, weights=(4, 4, 4, 4, 2, 1, 0.2))[0]
        self._seconds = seconds if seconds is not None else drawn
        self._times = max(1, min(REPEATED_MAX, int(PAUSED_S / self._seconds)))
        self._is_leader = of_leader if of_leader is not None else dice.random() < 0.7
        if self._seconds >= PAUSED_LONG_S:
            self.kind = self.long

    async def inject(self, stage: ChaosStage) -> None:
        for _ in range(self._times):
            node = await self._choose(stage)
            stage.note(f"SIGSTOP to node {node.node_id} for {self._seconds:g} s")
            async with awaited(stage, node) as wakes:
                node.signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(self._seconds)
                    await wakes.prepare()
                finally:
                    node.signal(signal.SIGCONT)
                await wakes.check()
            stage.met(self.kind)

    async def _choose(self, stage: ChaosStage) -> NodeProcess:
        leader = await stage.leader()
        others = [node for node in stage.cluster.nodes.values() if node.node_id != leader.node_id]
        return leader if self._is_leader else self._dice.choice(others)

    def describe(self) -> str:
        who = "the leader" if self._is_leader else "a follower"
        return f"{self.kind}: {who} for {self._seconds:g} s, {self._times} times"


class RollingRestart(RealFault):
    """SIGTERM to one node after the other, each back before the next goes."""

    kind = "a rolling restart"
    rows = "F42"

    async def inject(self, stage: ChaosStage) -> None:
        for node in list(stage.cluster.nodes.values()):
            await stage.leader()
            stage.note(f"SIGTERM to node {node.node_id}")
            await stage.restart(node)
            stage.met(self.kind)

    def describe(self) -> str:
        return self.kind
