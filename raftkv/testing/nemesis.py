"""What goes wrong in a simulated world: faults, drawn by the seed, of the kinds that this world has.

Swarm style: each world uses only some kinds, and each as hard as its seed says, so that a fault which hides another
is missing in many worlds (Groce et al., "Swarm testing", 2012).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from raftkv.errors import NodeStopped, RaftKVError
from raftkv.kv import KeyValue
from raftkv.testing.cluster import CLIENT, SimCluster, SimNode

Fault: TypeAlias = Callable[[], Awaitable[None]]

CAPACITY_BYTES = 1 << 40

ADDED_MAX = 3
"""Nodes that a world adds beyond those it began with."""


class Nemesis:
    """Breaks things until it is told to stop, then mends everything."""

    def __init__(self, cluster: SimCluster, dice: random.Random) -> None:
        self._cluster = cluster
        self._dice = dice
        self._stopping = False
        self._pause_s = dice.choice([0.05, 0.3, 1.0])
        kinds: dict[str, Fault] = {
            "crash": self._crash,
            "crash in an operation": self._crash_in_operation,
            "crash of all": self._crash_all,
            "restart": self._restart,
            "graceful stop": self._stop,
            "cut": self._cut,
            "partition": self._partition,
            "one-way cut": self._cut_one_way,
            "heal": self._heal,
            "reset": self._reset,
            "slow network": self._slow_network,
            "slow disk": self._slow_disk,
            "hanging disk": self._hang_disk,
            "failing disk": self._fail_disk,
            "full disk": self._fill_disk,
            "clock": self._clock,
            "transfer": self._transfer,
            "snapshot": self._snapshot,
            "add": self._add,
            "promote": self._promote,
            "remove": self._remove,
        }
        self._every = kinds
        always = {"restart", "heal", "transfer", "snapshot", "add", "promote", "remove"}
        self.kinds = {name: fault for name, fault in kinds.items() if name in always or dice.random() < 0.6}
        self._weights = [dice.choice([1, 3, 9]) for _ in self.kinds]
        self._next_id = max(cluster.nodes) + 1
        self._operations: dict[asyncio.Future[None], None] = {}

    async def run(self, duration_s: float) -> None:
        """Break things for some virtual seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + duration_s
        while loop.time() < end:
            await asyncio.sleep(self._dice.expovariate(1 / self._pause_s))
            (name,) = self._dice.choices(list(self.kinds), self._weights)
            self._cluster.note(name)
            await self.kinds[name]()

    async def strike(self, kind: str, chance: int) -> None:
        """Do one thing now, of any kind; which node it meets, and how hard, follows from `chance`."""
        self._dice = random.Random(chance)
        self._cluster.note(kind)
        await self._every[kind]()

    @property
    def every_kind(self) -> list[str]:
        """What `strike` can do, also what this world does not do by itself."""
        return list(self._every)

    async def mend(self) -> None:
        """Heal the network, mend the disks, start everybody."""
        cluster = self._cluster
        cluster.network.heal()
        cluster.network.delay_s = 0.001
        for sim in cluster.nodes.values():
            sim.clock_offset_ms = 0
            sim.disk_s = 0.0005
            sim.disk.capacity_bytes = CAPACITY_BYTES
            sim.unhang()
        for operation in list(self._operations):
            operation.cancel()
        await asyncio.gather(*self._operations, return_exceptions=True)
        for sim in cluster.nodes.values():
            sim.disk.fault = None
            if sim.node is not None and (sim.node.failure is not None or sim.is_stopping):
                sim.crash()
            if not sim.is_up:
                await self._start(sim)

    # ------------------------------------------------------------------------------ processes

    def _any(self, *, up: bool) -> SimNode | None:
        found = [sim for sim in self._cluster.nodes.values() if sim.is_up == up]
        return self._dice.choice(found) if found else None

    async def _start(self, sim: SimNode) -> None:
        """Start a node; one that crashes while it recovers is tried again without the fault."""
        for _ in range(3):
            try:
                await asyncio.wait_for(sim.start(), 30)
            except (TimeoutError, NodeStopped, asyncio.CancelledError):
                sim.crash()
                sim.disk.fault = None
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
            else:
                return

    async def _crash(self) -> None:
        if (sim := self._any(up=True)) is not None:
            sim.crash()

    async def _crash_in_operation(self) -> None:
        if (sim := self._any(up=True)) is not None:
            sim.crash_at_operation(self._dice.randint(1, 30))

    async def _crash_all(self) -> None:
        for sim in self._cluster.nodes.values():
            sim.crash()

    async def _restart(self) -> None:
        for sim in list(self._cluster.nodes.values()):
            if not sim.is_up or (sim.node is not None and sim.node.failure is not None):
                sim.crash()
                sim.disk.capacity_bytes = CAPACITY_BYTES
                if self._dice.random() < 0.2:
                    sim.crash_at_operation(self._dice.randint(1, 15))
                self._spawn(self._start(sim))

    async def _stop(self) -> None:
        sim = self._any(up=True)
        if sim is not None and sim.listener is not None and not sim.is_stopping:
            self._spawn(sim.stop())

    # ------------------------------------------------------------------------------ network

    def _two(self) -> tuple[int, int]:
        """Two nodes, or a node and the clients."""
        one, other = self._dice.sample([CLIENT, *sorted(self._cluster.nodes)], 2)
        return one, other

    async def _cut(self) -> None:
        self._cluster.network.cut(*self._two())

    async def _cut_one_way(self) -> None:
        self._cluster.network.cut(*self._two(), one_way=True)

    async def _partition(self) -> None:
        ids = [CLIENT, *sorted(self._cluster.nodes)]
        self._dice.shuffle(ids)
        at = self._dice.randint(1, len(ids) - 1)
        for one in ids[:at]:
            for other in ids[at:]:
                self._cluster.network.cut(one, other)

    async def _heal(self) -> None:
        self._cluster.network.heal()

    async def _reset(self) -> None:
        self._cluster.network.reset(*self._two())

    async def _slow_network(self) -> None:
        self._cluster.network.delay_s = self._dice.choice([0.0, 0.001, 0.01, 0.05, 0.2])

    # ------------------------------------------------------------------------------ machines

    async def _slow_disk(self) -> None:
        if (sim := self._any(up=True)) is not None:
            sim.disk_s = self._dice.choice([0.0001, 0.0005, 0.01, 0.1])

    async def _hang_disk(self) -> None:
        if (sim := self._any(up=True)) is not None:
            sim.hang()
            asyncio.get_running_loop().call_later(self._dice.uniform(0.1, 3), sim.unhang)

    async def _fail_disk(self) -> None:
        """Some operation fails: the node must stop at once, and trust nothing until it is started again."""
        if (sim := self._any(up=True)) is not None:
            sim.fail_at_operation(self._dice.randint(1, 20))

    async def _fill_disk(self) -> None:
        if (sim := self._any(up=True)) is not None:
            sim.disk.capacity_bytes = sim.disk.used_bytes() + self._dice.choice([0, 2_000, 20_000])

    async def _clock(self) -> None:
        sim = self._dice.choice(list(self._cluster.nodes.values()))
        sim.clock_offset_ms = self._dice.choice([0, -3_600_000, -500, 500, 10_000, 3_600_000])

    # ------------------------------------------------------------------------------ operators

    def _spawn(self, work: Awaitable[object]) -> None:
        """An operator's command takes its time, and may fail."""

        async def tolerant() -> None:
            with contextlib.suppress(RaftKVError, TimeoutError):
                await work

        task = asyncio.ensure_future(tolerant())
        self._operations[task] = None
        task.add_done_callback(self._operations.pop)

    async def _transfer(self) -> None:
        if (leader := self._cluster.leader) is not None:
            voters = leader.raft.membership.voters
            self._spawn(leader.transfer_leadership(self._dice.choice([None, *voters]), 5))

    async def _snapshot(self) -> None:
        sim = self._any(up=True)
        if sim is not None and sim.node is not None and sim.node.failure is None and hasattr(sim.node, "snapshots"):
            self._spawn(sim.node.take_snapshot())

    async def _add(self) -> None:
        cluster = self._cluster
        if (leader := cluster.leader) is None or self._next_id > len(cluster.founders) + ADDED_MAX:
            return
        sim = cluster.add(self._next_id)
        self._next_id += 1
        self._spawn(self._start(sim))
        self._spawn(leader.add_learner(sim.member, 10))

    async def _promote(self) -> None:
        if (leader := self._cluster.leader) is not None and leader.raft.membership.learners:
            self._spawn(leader.promote(self._dice.choice(leader.raft.membership.learners), 10))

    async def _remove(self) -> None:
        leader = self._cluster.leader
        if leader is not None and len(leader.raft.membership.voters) > 2:
            self._spawn(leader.remove(self._dice.choice(leader.raft.membership.all_nodes()), 10))


def fault_kinds() -> list[str]:
    """The names of everything that can go wrong in a simulated world."""
    return Nemesis(SimCluster(KeyValue), random.Random(0)).every_kind
