"""Loss of power: of one node, of the leader, of all at once, and in the middle of what a node does with names.

Each node's data directory is a file system of its own (`filesystem.Image`). A cut takes what was not synced, then
the process is killed, the image mounted again, and the node started on what is left. What was acknowledged is what
clients heard, and they have no part in the cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from raftkv.client import Admin
from raftkv.errors import RaftKVError
from raftkv.model import NodeId
from raftkv.testing.processes import NodeProcess
from raftkv.testing.real.fault import Fault
from raftkv.testing.real.filesystem import Image
from raftkv.testing.real.stage import Stage

DEAD_S = (0.0, 0.0, 0.02, 0.2)
"""For how long a process may go on after its disk is gone: it must not acknowledge anything in that time."""

WATCHED_S = 5.0
"""For a moment to be met; snapshots of small states take a few milliseconds, some hundred times as often."""


class PowerSupply:
    """Cuts the power of nodes, and brings them back."""

    def __init__(self, images: Mapping[NodeId, Image]) -> None:
        assert images, "nodes without images can't lose power"
        self.images = images
        self.kind = next(iter(images.values())).kind

    async def cut(self, stage: Stage, node_ids: Sequence[NodeId], dead_s: float = 0.0) -> None:
        """All of these at once; their processes are killed `dead_s` seconds later."""
        for node_id in node_ids:
            self.images[node_id].cut()
        if dead_s:
            await asyncio.sleep(dead_s)
        stage.cluster.kill(*node_ids)

    async def restore(self, stage: Stage, node_ids: Sequence[NodeId]) -> None:
        """Mount what is left, and start the nodes; returns when they answer."""
        for node_id in node_ids:
            image = self.images[node_id]
            await asyncio.to_thread(image.unmount)
            await asyncio.to_thread(image.mount)
            stage.cluster.nodes[node_id].start()
        for node_id in node_ids:
            await until_answers(stage, stage.cluster.nodes[node_id])


async def until_answers(stage: Stage, node: NodeProcess) -> None:
    """Wait until a node that was started says of itself that it serves. Raises `AssertionError` when it ends."""

    async def look() -> bool | None:
        assert node.is_running, f"node {node.node_id} has ended: see {node.log_path}"
        status = await stage.status(node.node_id)
        return (status is not None and status.stopped is None) or None

    await stage.until(look, f"node {node.node_id} answering")


class PowerCut(Fault):
    """The power of one node, mostly the leader, again and again."""

    rows = "F1 F2 F4 F7 F12"

    def __init__(
        self, supply: PowerSupply, dice: random.Random, times: int = 5, *, before_s: tuple[float, float] = (0.05, 0.3)
    ) -> None:
        self.kind = f"power cut of one node, {supply.kind}"
        self._supply, self._dice, self._times, self._before_s = supply, dice, times, before_s

    async def inject(self, stage: Stage) -> None:
        for _ in range(self._times):
            await asyncio.sleep(self._dice.uniform(*self._before_s))
            chosen = await self._choose(stage)
            dead_s = self._dice.choice(DEAD_S)
            stage.note(f"power of nodes {chosen} cut, their processes killed {dead_s:g} s later")
            await self._supply.cut(stage, chosen, dead_s)
            stage.met(self.kind)
            await asyncio.sleep(self._dice.choice((0.0, 0.0, 0.5)))
            await self._supply.restore(stage, chosen)

    async def _choose(self, stage: Stage) -> list[NodeId]:
        if self._dice.random() < 0.6:
            return [(await stage.leader()).node_id]
        return [self._dice.choice(sorted(stage.cluster.nodes))]

    def describe(self) -> str:
        return f"{self.kind}: {self._times} times"


class WholePowerCut(PowerCut):
    """The power of all nodes at once: what is left of what was acknowledged is on their disks, or nowhere."""

    rows = "F2 F4 F5 F7 F12"

    def __init__(
        self, supply: PowerSupply, dice: random.Random, times: int = 3, *, before_s: tuple[float, float] = (0.05, 0.3)
    ) -> None:
        super().__init__(supply, dice, times, before_s=before_s)
        self.kind = f"power cut of all nodes, {supply.kind}"

    async def _choose(self, stage: Stage) -> list[NodeId]:
        await stage.leader()  # else nothing was acknowledged since the last one
        return sorted(stage.cluster.nodes)


class Moment:
    """Something in a data directory that is there for a short while, or has just come to be."""

    def __init__(self, name: str, pattern: str, *, is_install: bool = False) -> None:
        self.name = name
        self._pattern = pattern
        self.is_install = is_install
        """Whether it comes when a snapshot is installed, not when one is taken."""

    def watch(self, data_dir: str) -> Callable[[], bool]:
        """A question that is answered with yes as soon as there is a name that was not there before."""
        root, before = Path(data_dir), self._names(data_dir)

        def has_come() -> bool:
            return bool(self._names(str(root)) - before)

        return has_come

    def _names(self, data_dir: str) -> set[str]:
        folder, _, begun = self._pattern.rpartition("/")
        with contextlib.suppress(FileNotFoundError):
            return {name for name in os.listdir(os.path.join(data_dir, folder)) if name.startswith(begun)}
        return set()


MOMENTS = (
    Moment("a snapshot being taken", "snapshots/tmp"),
    Moment("a snapshot just published", "snapshots/0"),
    Moment("a log segment just begun", "log/0"),
    Moment("a snapshot arriving", "snapshots/staging", is_install=True),
    Moment("a snapshot becoming the state", "state.", is_install=True),
)
"""When names change, which a cut takes back unless their directory was synced (F12, F59, F60)."""


class CutAtMoment(Fault):
    """The power of a node goes at one of `MOMENTS`. The cluster must take small snapshots and keep little log."""

    rows = "F12 F59 F60"

    def __init__(self, supply: PowerSupply, dice: random.Random, moments: Sequence[Moment] = MOMENTS) -> None:
        self.kind = f"power cut as names change, {supply.kind}"
        self._supply, self._dice, self._moments = supply, dice, moments

    async def inject(self, stage: Stage) -> None:
        for moment in self._moments:
            leader = await stage.leader()
            node_id = self._dice.choice(sorted(stage.cluster.nodes.keys() - {leader.node_id}))
            node = stage.cluster.nodes[node_id]
            if moment.is_install:
                await self._leave_behind(stage, node)
            if await self._wait_for(moment, node):
                await self._supply.cut(stage, [node_id])
                stage.note(f"power of node {node_id} cut: {moment.name}")
                stage.met(self.kind)
                await self._supply.restore(stage, [node_id])

    async def _leave_behind(self, stage: Stage, node: NodeProcess) -> None:
        """Down until the others' logs begin behind what it has."""
        last = max(status.last_index for status in await stage.statuses())
        stage.cluster.kill(node.node_id)

        async def look() -> bool | None:
            for other in stage.cluster.nodes.values():
                if other is not node:
                    await _take_snapshot(other)
            return min(status.first_index for status in await stage.statuses()) > last + 1 or None

        await stage.until(look, f"logs that begin behind entry {last}")
        node.start()

    async def _wait_for(self, moment: Moment, node: NodeProcess) -> bool:
        has_come = moment.watch(node.data_dir)
        taking = asyncio.ensure_future(_take_snapshot(node)) if not moment.is_install else None
        loop = asyncio.get_running_loop()
        end, met = loop.time() + WATCHED_S, False
        while not met and loop.time() < end:
            met = has_come()
            await asyncio.sleep(0)  # milliseconds are too long for what is there only for some of them
        if taking is not None:
            taking.cancel()
            await asyncio.wait([taking])
        return met

    def describe(self) -> str:
        return f"{self.kind}: {', '.join(moment.name for moment in self._moments)}"


async def _take_snapshot(node: NodeProcess) -> None:
    with contextlib.suppress(RaftKVError):
        async with Admin([node.own.client_address]) as admin:
            await admin.take_snapshot(5.0)
