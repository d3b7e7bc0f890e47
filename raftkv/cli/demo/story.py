"""What happens in the demo, one fault after the other, while the writers go on."""

from __future__ import annotations

import asyncio

import msgspec

from raftkv.cli.demo.load import Ledger, Writers
from raftkv.cli.demo.narrator import Narrator
from raftkv.cli.demo.stage import DemoStage
from raftkv.cli.demo.verdict import Readback, read_back, same_state
from raftkv.client import Admin
from raftkv.model import Index, NodeId
from raftkv.node.status import NodeStatus


class Figures(msgspec.Struct, kw_only=True):
    """The figures that the demo prints at its end."""

    acknowledged: int = 0
    unknown: int = 0
    """Writes whose outcome the client could not learn; each may be there or not."""
    refused: int = 0
    """Writes that were certainly not done, and said so."""
    writes_per_s: float = 0.0
    failovers_s: list[float] = []
    """From each SIGKILL of a leader to the first write that was sent later and acknowledged."""
    all_killed_s: float = 0.0
    """The same for SIGKILL of all nodes at once, with their starts."""
    compacted_to: dict[str, Index] = {}
    join_s: float = 0.0
    """From the new node's start to its vote."""
    join_snapshot_index: Index = 0
    nodes: list[Readback] = []
    same_state: bool = False
    seconds: float = 0.0

    @property
    def is_kept(self) -> bool:
        """Whether every acknowledged write is on every node, exactly once."""
        return bool(self.nodes) and self.same_state and all(node.is_whole for node in self.nodes)


class Story:
    """The demo's acts, in their order."""

    def __init__(self, stage: DemoStage, ledger: Ledger, writers: Writers, narrator: Narrator, *, act_s: float) -> None:
        self.stage = stage
        self.ledger = ledger
        self.writers = writers
        self.narrator = narrator
        self.figures = Figures()
        self._act_s = act_s
        self._rate_from = (0.0, 0)

    async def play(self, kills: int) -> Figures:
        """Play all acts. Raises `DemoFailed` when something does not happen in time."""
        await self.begin()
        for _ in range(kills):
            await self.kill_leader()
        await self.kill_all()
        await self.compact()
        await self.join()
        await self.judge()
        return self.figures

    async def begin(self) -> None:
        """Three nodes found a cluster, and writers begin."""
        founders = sorted(self.stage.cluster.nodes)
        with self.narrator.doing("three nodes start"):
            self.stage.start(*founders)
            leader = await self.stage.leader()
            self.writers.start()
            self.stage.writers = self.writers
            await self._write_on(0.0)
        pids = ", ".join(str(process.pid) for node in founders if (process := self.stage.cluster.nodes[node].process))
        self.narrator.say(
            f"[green]✓[/] {len(founders)} nodes serve (processes {pids}), node {leader.node_id} leads; "
            f"{len(self.ledger.increments)} writers begin"
        )
        self._rate_from = (asyncio.get_running_loop().time(), self.ledger.count)
        await self._write_on(self._act_s)

    async def kill_leader(self) -> None:
        """SIGKILL to the leader; another one is elected, and the old one comes back."""
        old = await self.stage.leader()
        with self.narrator.doing(f"leader {old.node_id} is killed"):
            seconds = await self._acknowledged_after_killing(old.node_id)
            new = await self.stage.leader()
        self.figures.failovers_s.append(seconds)
        self.narrator.say(
            f"[green]✓[/] leader {old.node_id} killed (SIGKILL): node {new.node_id} leads in term {new.term}, "
            f"the next write was acknowledged after [bold]{seconds * 1000:.0f} ms[/]"
        )
        await self._write_on(self._act_s)
        await self._bring_back(old.node_id)

    async def _bring_back(self, node_id: NodeId) -> None:
        leader = await self.stage.leader()
        began = self.narrator.seconds
        with self.narrator.doing(f"node {node_id} comes back"):
            self.stage.start(node_id)
            status = await self.stage.caught_up(node_id, leader.commit_index)
        self.narrator.say(
            f"[green]✓[/] node {node_id} came back and caught up to entry {status.applied_index:,} "
            f"in {self.narrator.seconds - began:.1f} s"
        )

    async def kill_all(self) -> None:
        """SIGKILL to everybody at once: what was acknowledged is on disk, or lost for all to see."""
        everybody = sorted(self.stage.expected)
        loop = asyncio.get_running_loop()
        with self.narrator.doing("all nodes are killed at once"):
            killed = loop.time()
            self.stage.kill(*everybody)
            self.stage.start(*everybody)
            answered = await self.stage.within(self.ledger.acknowledged_after(killed), "a write after all were killed")
        self.figures.all_killed_s = answered - killed
        self.narrator.say(
            f"[green]✓[/] all {len(everybody)} killed at once and started: "
            f"the next write was acknowledged after [bold]{answered - killed:.1f} s[/]"
        )
        await self._write_on(self._act_s)

    async def compact(self) -> None:
        """Snapshots on all nodes, so that the beginning of the log goes."""
        with self.narrator.doing("snapshots are taken"):
            for node_id in sorted(self.stage.expected):
                async with Admin([self.stage.cluster.nodes[node_id].member.client_address]) as admin:
                    await self.stage.within(admin.take_snapshot(), f"a snapshot of node {node_id}")
            statuses = await self.stage.until(self._compacted, "the compaction of all logs")
        self.figures.compacted_to = {str(status.node_id): status.first_index for status in statuses}
        least = min(status.first_index for status in statuses)
        self.narrator.say(
            f"[green]✓[/] snapshots taken while the writers went on: "
            f"entries 1 to {least - 1:,} are gone from every log, {statuses[0].last_index - least:,} are left"
        )

    async def _compacted(self) -> list[NodeStatus] | None:
        statuses = await self.stage.statuses()
        done = len(statuses) == len(self.stage.expected) and all(status.first_index > 1 for status in statuses)
        return statuses if done else None

    async def join(self) -> None:
        """A brand-new node gets a snapshot and the rest of the log, then a vote."""
        node = self.stage.cluster.add(max(self.stage.cluster.nodes) + 1)
        began = self.narrator.seconds
        with self.narrator.doing(f"node {node.node_id} joins"):
            self.stage.start(node.node_id)
            async with Admin(self.stage.cluster.addresses) as admin:
                await self.stage.within(admin.add_learner(node.member), "adding a node")
                status = await self.stage.until(lambda: self._installed(node.node_id), "installing a snapshot")
                await self.stage.within(admin.promote(node.node_id), "promoting the new node")
        self.figures.join_s = self.narrator.seconds - began
        self.figures.join_snapshot_index = status.snapshot_index or 0
        self.narrator.say(
            f"[green]✓[/] node {node.node_id}, brand-new, installed the snapshot of entry {status.snapshot_index:,}, "
            f"caught up from the log and has a vote, [bold]{self.figures.join_s:.1f} s[/] after its start"
        )
        await self._write_on(self._act_s)

    async def _installed(self, node_id: NodeId) -> NodeStatus | None:
        status = await self.stage.status(node_id)
        return status if status is not None and status.snapshots_installed > 0 else None

    async def judge(self) -> None:
        """Everything is read back from every node, and compared."""
        figures, ledger = self.figures, self.ledger
        began, count = self._rate_from
        figures.writes_per_s = (ledger.count - count) / (asyncio.get_running_loop().time() - began)
        with self.narrator.doing("everything is read back from every node"):
            self.stage.writers = None
            await self.stage.within(self.writers.stop(), "the end of the writers")
            figures.acknowledged, figures.unknown, figures.refused = ledger.count, ledger.unknown_count, ledger.refused
            rested = await self.stage.at_rest()
            figures.nodes = await self.stage.within(read_back(self.stage, ledger, rested), "reading everything back")
        figures.same_state = same_state(figures.nodes)
        figures.seconds = self.narrator.seconds

    async def _acknowledged_after_killing(self, *node_ids: NodeId) -> float:
        loop = asyncio.get_running_loop()
        killed = loop.time()
        self.stage.kill(*node_ids)
        answered = await self.stage.within(
            self.ledger.acknowledged_after(killed), "a write after the leader was killed"
        )
        return answered - killed

    async def _write_on(self, seconds: float) -> None:
        """Let the writers go on for a while: until something is acknowledged that was sent at its end."""
        end = asyncio.get_running_loop().time() + seconds
        await self.stage.within(self.ledger.acknowledged_after(end), "an acknowledged write")
