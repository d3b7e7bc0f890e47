"""New clusters that begin with what an old one had: a backup restored, and a survivor recovered."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from raftkv.client import Admin, Client, ClientOptions
from raftkv.disk import RealDisk
from raftkv.node import World
from raftkv.node.recovering import regain
from raftkv.node.restoring import RestorePlan, restore
from raftkv.node.survivors import Survivor, compare, look_at
from raftkv.processes.cluster import NodeProcess, ProcessCluster
from raftkv.worlds.workload import Workload
from tests.chaos.clients import MACHINE
from tests.chaos.fault import RealFault
from tests.chaos.stage import DEADLINE_S, ChaosStage
from tests.chaos.tally import SERVED_S, Tally, counted

COUNTED = 10
AFTER = b"goes on"
PATIENCE = ClientOptions(deadline_s=2.0)
"""Of those who count in a cluster that will be gone: they must not wait long for it."""


class BackupRestored(RealFault):
    """While the cluster is under load, a backup of any of its nodes is made and restored as another cluster beside it.

    What was acknowledged before the backup began is in the new cluster, each once, and it goes on from there.
    """

    kind = "a backup restored"
    rows = "F87"

    def __init__(self, dice: random.Random, times: int = 2) -> None:
        self._dice = dice
        self._sizes = [dice.choice([1, 3]) for _ in range(times)]

    async def inject(self, stage: ChaosStage) -> None:
        for size in self._sizes:
            number = stage.fired[self.kind]
            tally = Tally(b"backed up %d" % number, Client(Workload, stage.cluster.addresses))
            try:
                await tally.more(COUNTED)
                await self._restore(stage, stage.directory / f"restored-{number}", size, tally)
                stage.met(self.kind)
                await tally.stop(stage.cluster.addresses)
            finally:
                await tally.close()

    async def _restore(self, stage: ChaosStage, directory: Path, size: int, tally: Tally) -> None:
        node = self._dice.choice([each for each in stage.cluster.nodes.values() if each.is_running])
        before, path = tally.reached, str(directory) + ".backup"
        async with Admin([node.own.client_address]) as admin:
            made = await admin.backup(path, deadline_s=DEADLINE_S)
        stage.note(f"a backup of node {node.node_id} at {made.snapshot.id}, {before} acknowledged before")
        with ProcessCluster(directory, size, arguments=MACHINE, launch=stage.cluster.launch) as cluster:
            for each in cluster.nodes.values():
                plan = RestorePlan(
                    node_id=each.node_id,
                    data_dir=each.data_dir,
                    members=tuple(cluster.founders),
                    cluster_name=directory.name,
                )
                await asyncio.to_thread(restore, World.real(), path, plan)
            cluster.start_all()
            own = ChaosStage(cluster, self._dice, directory)
            await own.leader()
            value = await counted(tally.key, cluster.addresses)
            most = tally.reached + tally.unknown + 1
            assert before <= value <= most, f"the backup has {value}: {before} were acknowledged before, {most} ever"
            await goes_on(own)

    def describe(self) -> str:
        return f"{self.kind}: with {' and '.join(map(str, self._sizes))} founders"


class SurvivorRecovered(RealFault):
    """A small cluster under load loses all of its nodes at once, and not all of the disks; a survivor goes on alone.

    Of two disks out of three the better one has everything that was acknowledged. A single one has everything that all
    of them had had before.
    """

    kind = "a survivor recovered"
    rows = "F87"

    def __init__(self, dice: random.Random, times: int = 2) -> None:
        self._dice = dice
        self._disks = [dice.choice([1, 2]) for _ in range(times)]

    async def inject(self, stage: ChaosStage) -> None:
        for disks in self._disks:
            directory = stage.directory / f"lost-{stage.fired[self.kind]}"
            with ProcessCluster(directory, 3, arguments=MACHINE, launch=stage.cluster.launch) as cluster:
                await self._lose(stage, ChaosStage(cluster, self._dice, directory), disks)
            stage.met(self.kind)

    async def _lose(self, stage: ChaosStage, own: ChaosStage, disks: int) -> None:
        cluster = own.cluster
        cluster.start_all()
        await own.leader()
        tally = Tally(b"survives", Client(Workload, cluster.addresses, options=PATIENCE))
        try:
            await tally.more(COUNTED, DEADLINE_S)
            sure = await self._had_by_all(own, tally)
            await tally.more(COUNTED)
            cluster.kill_all()
            await tally.end()
            kept = self._dice.sample([*cluster.nodes.values()], k=disks)
            best = await asyncio.to_thread(_best_of, kept)
            stage.note(f"of nodes {[each.node_id for each in kept]} node {best.node_id} goes on, at {best.last_index}")
            node = cluster.nodes[best.node_id]
            await asyncio.to_thread(regain, World.real(), node.data_dir, nothing_lost=disks == 2)
            node.arguments = _without_members(node)
            node.start()
            value = await counted(tally.key, [node.member.client_address])
            least = tally.reached if disks == 2 else sure
            assert least <= value <= tally.reached + tally.unknown, (
                f"node {node.node_id} has {value} of {tally.reached} that were acknowledged and {tally.unknown} that "
                f"may be, and must have {least}"
            )
            for other in [each for each in cluster.nodes.values() if each is not node]:
                del cluster.nodes[other.node_id]
            await goes_on(own)
        finally:
            await tally.close()

    async def _had_by_all(self, own: ChaosStage, tally: Tally) -> int:
        """How far it was counted when every node is known to have had it."""
        reached = tally.reached
        index = max(status.last_index for status in await own.statuses())

        async def look() -> bool | None:
            statuses = await own.statuses()
            return (len(statuses) == 3 and all(each.durable_index >= index for each in statuses)) or None

        await own.until(look, f"entry {index} on every disk")
        return reached

    def describe(self) -> str:
        return f"{self.kind}: with {' and '.join(map(str, self._disks))} disks left of three"


def _best_of(nodes: list[NodeProcess]) -> Survivor:
    found = compare([look_at(RealDisk(), node.data_dir) for node in nodes])
    assert found.best is not None, [each.problems for each in found.survivors]
    return found.best


def _without_members(node: NodeProcess) -> list[str]:
    """The same command, for a directory that knows its members."""
    kept, skips = [], False
    for word in node.arguments:
        if not skips and word != "--member":
            kept.append(word)
        skips = word == "--member"
    return kept


async def goes_on(stage: ChaosStage) -> None:
    """It takes writes, and every node comes to the same state."""
    tally = Tally(AFTER, Client(Workload, stage.cluster.addresses))
    try:
        await tally.more(COUNTED, SERVED_S)
        await tally.stop(stage.cluster.addresses)
    finally:
        await tally.close()
    await stage.until_equal()
