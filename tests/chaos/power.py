"""Loss of power: of one node, of the leader, of all at once, and in the middle of what a node does with names.

Each node's data directory is a file system of its own (`filesystem.Image`). A cut takes what was not synced, then
the process is killed, the image mounted again, and the node started on what is left. Clients are not affected
by the cut: what they heard is what was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from raftkv.model import NodeId
from raftkv.processes.cluster import NodeProcess
from tests.chaos.damage import copy_directory, take_snapshot
from tests.chaos.fault import RealFault
from tests.chaos.filesystem import Image
from tests.chaos.stage import ChaosStage

DEAD_S = (0.0, 0.0, 0.02, 0.2)
"""For how long a process may go on after its disk is gone: it must not acknowledge anything in that time."""

WATCHED_S = 5.0
"""How long to wait for a moment. Snapshots of small states take only milliseconds, but there are hundreds of them."""


async def cut(stage: ChaosStage, node_ids: Sequence[NodeId], dead_s: float = 0.0) -> None:
    """The power of all of these at once; their processes are killed `dead_s` seconds later."""
    for node_id in node_ids:
        stage.images[node_id].cut()
    if dead_s:
        await asyncio.sleep(dead_s)
    stage.cluster.kill(*node_ids)


async def restore(stage: ChaosStage, node_ids: Sequence[NodeId]) -> None:
    """Mount what is left, and start the nodes; returns when they answer."""
    for node_id in node_ids:
        image = stage.images[node_id]
        await asyncio.to_thread(image.unmount)
        await asyncio.to_thread(image.mount)
        stage.cluster.nodes[node_id].start()
    for node_id in node_ids:
        await until_answers(stage, stage.cluster.nodes[node_id])


async def until_answers(stage: ChaosStage, node: NodeProcess) -> None:
    """Wait until a started node's status says that it serves. Raises `AssertionError` when it ends."""

    async def look() -> bool | None:
        assert node.is_running, f"node {node.node_id} has ended: see {node.log_path}"
        status = await stage.status(node.node_id)
        return (status is not None and status.stopped is None) or None

    await stage.until(look, f"node {node.node_id} answering")


def one_node(file_system: str) -> str:
    """The kind of fault that `PowerCut` is."""
    return f"power cut of one node, {file_system}"


def all_nodes(file_system: str) -> str:
    """The kind of fault that `WholePowerCut` is."""
    return f"power cut of all nodes, {file_system}"


class PowerCut(RealFault):
    """The power of one node, mostly the leader, again and again."""

    rows = "F1 F2 F4 F7 F12"

    def __init__(
        self, file_system: str, dice: random.Random, times: int = 12, *, before_s: tuple[float, float] = (0.05, 0.3)
    ) -> None:
        self.kind = one_node(file_system)
        self._file_system, self._dice, self._times, self._before_s = file_system, dice, times, before_s

    async def inject(self, stage: ChaosStage) -> None:
        await move_to(stage, self._file_system)
        for _ in range(self._times):
            await asyncio.sleep(self._dice.uniform(*self._before_s))
            chosen = await self._choose(stage)
            dead_s = self._dice.choice(DEAD_S)
            stage.note(f"power of nodes {chosen} cut, their processes killed {dead_s:g} s later")
            await cut(stage, chosen, dead_s)
            stage.met(self.kind)
            await asyncio.sleep(self._dice.choice((0.0, 0.0, 0.5)))
            await restore(stage, chosen)

    async def _choose(self, stage: ChaosStage) -> list[NodeId]:
        if self._dice.random() < 0.6:
            return [(await stage.leader()).node_id]
        return [self._dice.choice(sorted(stage.cluster.nodes))]

    def describe(self) -> str:
        return f"{self.kind}: {self._times} times"


class WholePowerCut(PowerCut):
    """The power of all nodes at once: what was acknowledged is on their disks, or lost."""

    rows = "F2 F4 F5 F7 F12"

    def __init__(
        self, file_system: str, dice: random.Random, times: int = 6, *, before_s: tuple[float, float] = (0.05, 0.3)
    ) -> None:
        super().__init__(file_system, dice, times, before_s=before_s)
        self.kind = all_nodes(file_system)

    async def _choose(self, stage: ChaosStage) -> list[NodeId]:
        await stage.leader()  # else nothing was acknowledged since the last one
        return sorted(stage.cluster.nodes)


class CutMoment:
    """A moment at which a name appears in a data directory, perhaps for a short while only."""

    def __init__(self, name: str, pattern: str, *, is_install: bool = False) -> None:
        self.name = name
        self._pattern = pattern
        self.is_install = is_install
        """Whether the moment is in the installing of a snapshot, and not in the taking of one."""

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
    CutMoment("a snapshot being taken", "snapshots/tmp"),
    CutMoment("a snapshot just published", "snapshots/0"),
    CutMoment("a log segment just begun", "log/0"),
    CutMoment("a snapshot arriving", "snapshots/staging", is_install=True),
    CutMoment("a snapshot becoming the state", "state.", is_install=True),
)
"""When names change, which a cut takes back unless their directory was synced (F12, F59, F60)."""


class CutAtMoment(RealFault):
    """The power of a node goes at one of `MOMENTS`. The cluster must take small snapshots and keep little log."""

    rows = "F12 F59 F60"

    def __init__(self, file_system: str, dice: random.Random, moments: Sequence[CutMoment] = MOMENTS) -> None:
        self.kind = f"power cut as names change, {file_system}"
        self._file_system, self._dice, self._moments = file_system, dice, moments

    async def inject(self, stage: ChaosStage) -> None:
        await move_to(stage, self._file_system)
        for moment in self._moments:
            leader = await stage.leader()
            node_id = self._dice.choice(sorted(stage.cluster.nodes.keys() - {leader.node_id}))
            node = stage.cluster.nodes[node_id]
            if moment.is_install:
                # Down until the others' logs begin behind its own end: then it needs a snapshot.
                node.kill()
                await leave_behind(stage, node)
                node.start()
            if await self._wait_for(moment, node):
                await cut(stage, [node_id])
                stage.note(f"power of node {node_id} cut: {moment.name}")
                stage.met(self.kind)
                await restore(stage, [node_id])

    async def _wait_for(self, moment: CutMoment, node: NodeProcess) -> bool:
        has_come = moment.watch(node.data_dir)
        taking = asyncio.ensure_future(take_snapshot(node)) if not moment.is_install else None
        loop = asyncio.get_running_loop()
        end, met = loop.time() + WATCHED_S, False
        while not met and loop.time() < end:
            met = has_come()
            await asyncio.sleep(0)  # a longer sleep could miss a name that is there for a few milliseconds only
        if taking is not None:
            taking.cancel()
            await asyncio.wait([taking])
        return met

    def describe(self) -> str:
        return f"{self.kind}: {', '.join(moment.name for moment in self._moments)}"


async def leave_behind(stage: ChaosStage, node: NodeProcess) -> None:
    """Wait until the other nodes' logs begin behind the end of a stopped node's log."""
    statuses = await stage.statuses()
    last = max((status.last_index for status in statuses), default=0)

    async def look() -> bool | None:
        others = [each for each in stage.cluster.nodes.values() if each is not node]
        await asyncio.gather(*[take_snapshot(other) for other in others])
        found = await stage.statuses()
        return (len(found) == len(others) and min(status.first_index for status in found) > last + 1) or None

    await stage.until(look, f"logs that begin behind entry {last}")


async def move_to(stage: ChaosStage, kind: str) -> None:
    """Move the nodes' directories to file systems of this kind of their own, unless they are on them already."""
    if stage.images and all(image.kind == kind for image in stage.images.values()):
        return
    stage.cluster.kill_all()
    await asyncio.to_thread(move_out, stage)
    await asyncio.to_thread(_move_in, stage, kind)
    stage.cluster.start_all()
    for node in stage.cluster.nodes.values():
        await until_answers(stage, node)


def _move_in(stage: ChaosStage, kind: str) -> None:
    for node in stage.cluster.nodes.values():
        place, moved = Path(node.data_dir), Path(node.data_dir + ".moved")
        image = stage.images[node.node_id] = Image(kind, Path(node.data_dir + f".{kind}"), place)
        place.rename(moved)
        image.make()
        image.mount()
        copy_directory(moved, place)
        image.sync()  # nodes rely on what they synced, wherever it was
        shutil.rmtree(moved)


def move_out(stage: ChaosStage) -> None:
    """Give the nodes, which must not run, plain directories again, with what can be read from their images."""
    for node_id, image in list(stage.images.items()):
        place, moved = (
            Path(stage.cluster.nodes[node_id].data_dir),
            Path(stage.cluster.nodes[node_id].data_dir + ".moved"),
        )
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            if image.is_mounted:
                image.unmount()  # after a cut, what is left can be read only when it is mounted again
            image.mount()
            copy_directory(place, moved)
        image.remove()
        if moved.exists():
            place.rmdir()
            moved.rename(place)
        del stage.images[node_id]
