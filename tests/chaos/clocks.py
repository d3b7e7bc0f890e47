"""Wall clocks that jump by years or go fast, of the leader or of another node."""

from __future__ import annotations

import random
import time

from raftkv.processes.cluster import NodeProcess
from tests.chaos import host
from tests.chaos.fault import RealFault
from tests.chaos.host import HostClock
from tests.chaos.stage import ChaosStage

TEN_YEARS_MS = 10 * 365 * 86_400_000

FAST = 100.0
"""A clock of this rate is off by more than the bound (10 s) within a blink."""

STOPPED = 0.0
"""A clock that shows the same time for ever: it takes as long as the bound until that is noticed."""

RATES = (FAST, -FAST, 4.0, STOPPED)
"""Of a clock that does not jump."""


class ClockWrong(RealFault):
    """One node's wall clock jumps ten years ahead or behind, or goes at another rate, and is set right again.

    Log time stays within its bound of the right time, and whose clock it is is said, the leader's or a follower's.
    """

    kind = "a clock that jumps"
    rate = "a clock of a wrong rate"
    """Its kind when it does not jump."""
    rows = "F82"

    def __init__(self, dice: random.Random, clock: HostClock | None = None, *, of_leader: bool | None = None) -> None:
        self._dice = dice
        self._clock = clock if clock is not None else HostClock(dice.choice((TEN_YEARS_MS, -TEN_YEARS_MS)))
        if self._clock.rate != 1.0:
            self.kind = self.rate
        self._is_leader = of_leader if of_leader is not None else dice.random() < 0.7
        self._node: NodeProcess | None = None

    async def inject(self, stage: ChaosStage) -> None:
        leader = await stage.leader()
        others = [node for node in stage.cluster.nodes.values() if node is not leader]
        node = self._node = self._dice.choice(others)
        path = stage.directory / f"clock-{node.node_id}.json"
        host.say(path, HostClock())
        node.module = host.MODULE
        node.environment[host.CLOCK] = str(path)
        await stage.restart(node)
        if self._is_leader:
            await stage.make_lead(node)
        before_ms = await self._log_time_ms(stage)
        stage.note(f"the clock of node {node.node_id} goes wrong")
        host.say(path, HostClock(self._clock.ahead_ms, self._clock.rate, time.monotonic_ns()))
        said = await stage.until(lambda: self._is_said(stage, node), f"node {node.node_id} doubted")
        stage.note(said)
        time_ms = await self._log_time_ms(stage)
        assert time_ms >= before_ms, f"log time went from {before_ms} to {time_ms}"
        stage.met(self.kind)

    async def _is_said(self, stage: ChaosStage, node: NodeProcess) -> str | None:
        """What whoever leads says of the clock, if anything; it is to be this node, if it was."""
        if self._is_leader:
            await stage.make_lead(node)
        problems = [text for status in await stage.statuses() for text in status.clock_problems()]
        await self._log_time_ms(stage)
        return next((text for text in problems if f"node {node.node_id}" in text), None)

    async def _log_time_ms(self, stage: ChaosStage) -> int:
        """The furthest of any node. Raises `AssertionError` when it is further ahead of the right time than may be."""
        times = [status.clock for status in await stage.statuses() if status.clock is not None]
        furthest = max(times, key=lambda clock: clock.log_time_ms)
        right_ms = time.time_ns() // 1_000_000
        ahead_ms = furthest.log_time_ms - right_ms
        assert ahead_ms <= furthest.bound_ms, f"log time is {ahead_ms} ms ahead, which may be {furthest.bound_ms}"
        return furthest.log_time_ms

    async def heal(self, stage: ChaosStage) -> None:
        """Set it right; whose clock it was runs with it until its next start."""
        if self._node is None:
            return
        host.say(stage.directory / f"clock-{self._node.node_id}.json", HostClock())

        async def is_right() -> bool | None:
            statuses = await stage.statuses()
            return (bool(statuses) and not any(status.clock_problems() for status in statuses)) or None

        await self._log_time_ms(stage)
        await stage.until(is_right, "nobody with a wrong clock")
        await self._log_time_ms(stage)
        self._node.module = "raftkv"
        self._node.environment.pop(host.CLOCK, None)

    def describe(self) -> str:
        whose = "the leader's" if self._is_leader else "a follower's"
        return f"{self.kind}: {whose}, {self._clock.ahead_ms} ms ahead, at a rate of {self._clock.rate:g}"
