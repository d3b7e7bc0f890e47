"""The faults of a simulated world. Its seed decides which kinds of faults it has, and draws each fault.

As in swarm testing, each world has only some kinds, and the seed says how often each comes. So a fault that would hide
another one is missing in many worlds (Groce et al., "Swarm testing", 2012).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from raftkv.errors import InvalidArgument, NodeStopped, RaftKVError
from raftkv.kv import KeyValue
from raftkv.node import Node
from raftkv.node.housekeeping import HOUSEKEEPING_S
from raftkv.testing.faults.mistakes import MISTAKES, Mistakes
from raftkv.testing.faults.naming import NAMES, NameFaults
from raftkv.testing.faults.noise import Noise
from raftkv.testing.faults.operators import Operators
from raftkv.testing.faults.rolling import Rolling
from raftkv.testing.faults.strangers import STRANGERS, Strangers
from raftkv.testing.faults.vandal import Vandal
from raftkv.testing.world.cluster import CLIENT, SimCluster, SimNode
from raftkv.testing.world.harm import Harm
from raftkv.testing.world.workers import THREADS

Fault: TypeAlias = Callable[[], Awaitable[bool]]
"""Does it, and says whether it met anything."""

CAPACITY_BYTES = 1 << 40

ORDERED_WITHIN = 40
"""Election time-outs until an order is carried out at the latest, once all that can be mended is."""

WORK_S = 0.2
"""What work under way takes at most, with a disk that works."""

NOISES = ("bit flip", "lost frame", "repeated frame", "frame out of order")

COUNTED_ELSEWHERE = {
    *NOISES,
    "crash in an operation",
    "failing disk",
    "write cut short",
    "failing read",
    "full disk",
    "failing log",
    "equal time-outs",
    *map(str, Harm),
    *MISTAKES,
    *STRANGERS,
    *NAMES,
}
"""Faults that lie in wait: they count when they meet something."""


async def _follow(sim: SimNode, leader: Node) -> None:
    """Change the membership to the new addresses of a node that has moved."""
    await leader.orders.update_member(sim.member, 10)


class Nemesis:
    """Breaks things for some time, then mends everything."""

    def __init__(self, cluster: SimCluster, dice: random.Random) -> None:
        self._cluster = cluster
        self._dice = dice
        self._pause_s = dice.choice([0.05, 0.3, 1.0])
        self._rolls_to_the_end = dice.random() < 0.7
        self._operators = Operators(cluster, dice, self._start)
        spawn = self._operators.spawn
        self._vandal = Vandal(
            cluster,
            random.Random(dice.getrandbits(64)),
            lambda: self.is_changing,
            lambda sim: spawn(self._start(sim)),
            lambda sim, disk: spawn(self._strangers.run_copy(sim, disk), changes=False),
        )
        self._strangers = Strangers(cluster, dice, spawn)
        self._rolling = Rolling(cluster, dice, spawn, self._start)
        benign = {**Mistakes(cluster, dice, spawn).kinds, **self._strangers.kinds}
        self._names = cluster.network.naming = NameFaults(cluster, dice)
        kinds: dict[str, Fault] = {
            "crash": self._crash,
            "crash in an operation": self._crash_in_operation,
            "crash of all": self._crash_all,
            "kill": self._kill,
            "pause": self._pause,
            "restart": self._restart,
            "graceful stop": self._stop,
            "cut": self._cut,
            "partition": self._partition,
            "one-way cut": self._cut_one_way,
            "cuts of any shape": self._shape,
            "heal": self._heal,
            "reset": self._reset,
            "slow network": self._slow_network,
            "slow link": self._slow_link,
            **{kind: self._noisy(kind) for kind in NOISES},
            "slow disk": self._slow_disk,
            "hanging disk": self._hang_disk,
            "hanging thread": self._hang_threads,
            "failing disk": self._fail_disk,
            "write cut short": self._cut_write_short,
            "failing read": self._fail_read,
            "full disk": self._fill_disk,
            "clock": self._clock,
            "clock that goes fast or slow": self._clock_rate,
            "equal time-outs": self._draw_equal,
            "failing log": self._fail_log,
            **self._names.kinds,
            **{str(harm): self._vandal.doing(harm) for harm in Harm},
            **self._operators.kinds,
            **self._rolling.kinds,
            **benign,
        }
        self._every = kinds
        always = {"restart", "heal", *self._operators.kinds, *self._rolling.kinds}
        # One node is harmed, once, so that simple kinds of harm don't take the place of those that need a story first.
        harm = dice.choice([*Harm])
        drawn = {name for name in kinds if name in always or dice.random() < 0.6}
        drawn = (drawn - {*map(str, Harm)}) | {harm}
        self.kinds = {name: fault for name, fault in kinds.items() if name in drawn}
        # Without mending there is hardly ever a leader, and harmless faults must not crowd out the others.
        mending = dice.choice([3, 6, 12])
        fixed = {"restart": mending, "heal": mending, **dict.fromkeys(benign, 1)}
        self._weights = [fixed.get(kind) or dice.choice([1, 3, 9]) for kind in self.kinds]
        self.noise = Noise(random.Random(dice.getrandbits(64)), cluster.fired)
        cluster.network.interference = self.noise

    async def run(self, duration_s: float) -> None:
        """Break things for some virtual seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + duration_s
        while loop.time() < end:
            await asyncio.sleep(self._dice.expovariate(1 / self._pause_s))
            (name,) = self._dice.choices(list(self.kinds), self._weights)
            await self._do(name)
            await self._vandal.retry()

    async def strike(self, kind: str, chance: int) -> None:
        """Cause one fault of this kind now; `chance` decides which node it meets, and how hard."""
        self._dice.seed(chance)
        await self._do(kind)

    async def _do(self, kind: str) -> None:
        self._cluster.note(kind)
        if await self._every[kind]() and kind not in COUNTED_ELSEWHERE:
            self._cluster.fired[kind] += 1

    @property
    def every_kind(self) -> list[str]:
        """All kinds of faults that `strike` knows, with those that this world does not cause by itself."""
        return list(self._every)

    @property
    def is_changing(self) -> bool:
        """Whether work is under way that may change the members, or stop or start nodes."""
        return self._operators.is_changing

    async def mend(self) -> None:
        """Heal the network, mend the disks, start all nodes, and replace those that are lost by new ones."""
        cluster = self._cluster
        cluster.network.heal()
        cluster.network.delay_s = 0.001
        cluster.network.delays.clear()
        cluster.draws_equal = False
        self.noise.calm()
        self._names.calm()
        for sim in cluster.nodes.values():
            sim.clock.set_right()
            sim.disk_s = 0.0005
            sim.disk.capacity_bytes = CAPACITY_BYTES
            sim.log_fails = False
            sim.unhang()
            sim.thaw()
        await self._operators.give_up()
        for sim in cluster.nodes.values():
            sim.mend_disk()
        if self._rolls_to_the_end:
            self._rolling.all_forward()
        # Not all nodes know yet which of them have just failed, or that their disks have room again.
        await asyncio.sleep(WORK_S + 2 * HOUSEKEEPING_S)
        for sim in cluster.nodes.values():
            if sim.node is not None and (sim.node.failure is not None or sim.is_stopping):
                sim.crash()
            if not sim.is_up:
                await self._start(sim)
        for sim in [sim for sim in cluster.nodes.values() if sim.moves and sim.harm is None and sim.is_up]:
            await self._insist(partial(_follow, sim))
        for sim in [sim for sim in cluster.nodes.values() if sim.harm is not None]:
            # Whoever lost what it had acknowledged may be doubted by the others, and counts nowhere then.
            if sim.is_impostor or not sim.is_up or sim.harm is Harm.ROT_AT_THE_END:
                await self._replace(sim)
        for sim in list(cluster.nodes.values()):
            await self._insist(lambda leader, sim=sim: self._finish_move(leader, sim))  # type: ignore[misc]

    async def raise_version(self, version: int) -> None:
        """Make a version active that all can run, where nodes don't do it by themselves."""
        await self._insist(lambda leader: leader.orders.upgrade(version, 10))

    async def _finish_move(self, leader: Node, sim: SimNode) -> None:
        """Write the new addresses of nodes that have moved into the membership, so that clients find them."""
        if leader.raft.membership.member(sim.node_id) not in (None, sim.member):
            await leader.orders.update_member(sim.member, 10)

    async def _replace(self, lost: SimNode) -> None:
        """Do what an operator does about a node that has lost its files: remove it, and add another one."""
        cluster = self._cluster
        cluster.note(f"replace {lost.node_id}")
        lost.crash()
        new = self._operators.new_machine()
        await self._start(new)
        await self._insist(lambda leader: leader.orders.remove(lost.node_id, 10))
        await self._insist(lambda leader: leader.orders.add_learner(new.member, 10))
        await self._insist(lambda leader: leader.orders.promote(new.node_id, 10))

    async def _insist(self, order: Callable[[Node], Awaitable[object]]) -> None:
        """Give an order until it is carried out; raises `AssertionError` when that takes too long."""
        error: Exception | None = None
        cluster = self._cluster
        end = cluster.loop.time() + ORDERED_WITHIN * cluster.election_timeout_s
        while cluster.loop.time() < end:
            try:
                await order(await cluster.until_leader(end - cluster.loop.time()))
            except InvalidArgument:
                return  # it was carried out before
            except (RaftKVError, TimeoutError) as exc:
                error = exc
                await asyncio.sleep(0.5)
            else:
                return
        raise AssertionError(f"an order of the operator's is not carried out: {error!r}\n{cluster.describe()}")

    def _any(self, *, up: bool, awake: bool = False) -> SimNode | None:
        found = [sim for sim in self._cluster.nodes.values() if sim.is_up == up and not (awake and sim.is_frozen)]
        return self._dice.choice(found) if found else None

    async def _start(self, sim: SimNode) -> None:
        """Start a node. If it crashes while it recovers, try again without the disk's faults."""
        for _ in range(3):
            try:
                await asyncio.wait_for(sim.start(), 30)
            except (TimeoutError, NodeStopped, asyncio.CancelledError):
                sim.crash()
                sim.mend_disk()
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
            else:
                return

    async def _crash(self) -> bool:
        if (sim := self._any(up=True)) is not None:
            sim.crash()
        return sim is not None

    async def _kill(self) -> bool:
        """End only the process. What it wrote and did not sync is still read, but a later power cut may lose it."""
        if (sim := self._any(up=True)) is not None:
            sim.crash(power=False)
        return sim is not None

    async def _crash_in_operation(self) -> bool:
        if (sim := self._any(up=True)) is not None:
            sim.crash_at_operation(self._dice.randint(1, 30))
        return sim is not None

    async def _crash_all(self) -> bool:
        for sim in self._cluster.nodes.values():
            sim.crash()
        return True

    async def _restart(self) -> bool:
        found = [
            sim
            for sim in self._cluster.nodes.values()
            if not sim.is_up or (sim.node is not None and sim.node.failure is not None)
        ]
        for sim in found:
            sim.crash(power=self._dice.random() < 0.5)
            sim.disk.capacity_bytes = CAPACITY_BYTES
            self._vandal.keep_copy(sim)
            if self._dice.random() < 0.2:
                sim.crash_at_operation(self._dice.randint(1, 15))
            self._operators.spawn(self._start(sim))
        return bool(found)

    async def _stop(self) -> bool:
        sim = self._any(up=True, awake=True)
        if sim is None or sim.serving is None or sim.is_stopping:
            return False
        sim.is_stopping = True  # at once: a second stop at the same moment would end before the first one has
        self._operators.spawn(sim.stop())
        return True

    async def _pause(self) -> bool:
        """Stop a process for a while. When it wakes, it reads messages that are old by then, and must not be misled."""
        sim = self._any(up=True, awake=True)
        if sim is None:
            return False
        sim.freeze()
        self._cluster.loop.call_later(self._dice.choice([0.1, 0.5, 2, 8]) * self._dice.uniform(0.5, 1.5), sim.thaw)
        return True

    def _two(self) -> tuple[int, int]:
        """Draw two nodes, or a node and the clients."""
        one, other = self._dice.sample([CLIENT, *sorted(self._cluster.nodes)], 2)
        return one, other

    async def _cut(self) -> bool:
        self._cluster.network.cut(*self._two())
        return True

    async def _cut_one_way(self) -> bool:
        self._cluster.network.cut(*self._two(), one_way=True)
        return True

    async def _shape(self) -> bool:
        """A partition of any shape: for each direction between two nodes the dice say whether it is cut."""
        ways = list(itertools.permutations(sorted(self._cluster.nodes), 2))
        cut = [way for way in ways if self._dice.random() < 0.4]
        for way in cut:
            self._cluster.network.cut(*way, one_way=True)
        return bool(cut)

    async def _partition(self) -> bool:
        ids = [CLIENT, *sorted(self._cluster.nodes)]
        self._dice.shuffle(ids)
        at = self._dice.randint(1, len(ids) - 1)
        for one in ids[:at]:
            for other in ids[at:]:
                self._cluster.network.cut(one, other)
        return True

    async def _heal(self) -> bool:
        self._cluster.network.heal()
        self.noise.calm()
        self._names.calm()
        return True

    async def _reset(self) -> bool:
        self._cluster.network.reset(*self._two())
        return True

    async def _slow_network(self) -> bool:
        self._cluster.network.delay_s = self._dice.choice([0.0, 0.001, 0.01, 0.05, 0.2])
        return True

    async def _slow_link(self) -> bool:
        self._cluster.network.delays[self._two()] = self._dice.choice([0.0, 0.02, 0.1, 0.5])
        return True

    def _noisy(self, kind: str) -> Fault:
        """Let a part of all frames meet this kind of noise until the network is healed."""

        async def begin() -> bool:
            self.noise.chances[kind] = self._dice.choice([0.002, 0.02, 0.1])
            return True

        return begin

    async def _slow_disk(self) -> bool:
        if (sim := self._any(up=True)) is not None:
            sim.disk_s = self._dice.choice([0.0001, 0.0005, 0.01, 0.1])
        return sim is not None

    async def _hang_disk(self) -> bool:
        if (sim := self._any(up=True)) is not None:
            sim.hang()
            asyncio.get_running_loop().call_later(self._dice.uniform(0.1, 3), sim.unhang)
        return sim is not None

    async def _hang_threads(self) -> bool:
        """Let the disk hang for some of a node's threads, each for its own time; they must not hold up the others."""
        if (sim := self._any(up=True)) is not None:
            for thread in self._dice.sample(THREADS, self._dice.randint(1, 2)):
                sim.hang_for(thread, self._dice.choice([0.2, 2.0, 12.0]) * self._dice.uniform(0.5, 1.5))
        return sim is not None

    async def _fail_disk(self) -> bool:
        """Let a disk operation fail. The node must stop at once, and trust nothing until it is started again.

        After a failed sync the data may be durable all the same.
        """
        if (sim := self._any(up=True)) is not None:
            sim.disk.failed_sync_keeps = self._dice.random() < 0.5
            sim.fail_at_operation(self._dice.randint(1, 20))
        return sim is not None

    async def _cut_write_short(self) -> bool:
        if (sim := self._any(up=True)) is not None:
            sim.cut_short_at_write(self._dice.randint(1, 10), self._dice.random())
        return sim is not None

    async def _fail_read(self) -> bool:
        """Let reads of entries, snapshots or small files fail. The node must stop, or do without them."""
        if (sim := self._any(up=True)) is not None:
            sim.fail_at_read(self._dice.randint(1, 4))
        return sim is not None

    async def _fill_disk(self) -> bool:
        """Fill one disk, or nearly; or bring all disks below their reserve for a while, so that no node has room."""
        if self._dice.random() < 0.5:
            sims = [each for each in self._cluster.nodes.values() if each.is_up]
            for each in sims:
                each.disk.capacity_bytes = int(each.disk.used_bytes() * 1.045)  # less than 5 % of it is free
            asyncio.get_running_loop().call_later(self._dice.uniform(2, 6), self._make_room, sims)
            return bool(sims)
        if (sim := self._any(up=True)) is not None:
            sim.disk.capacity_bytes = sim.disk.used_bytes() + self._dice.choice([0, 2_000, 20_000])
        return sim is not None

    async def _fail_log(self) -> bool:
        """Let every write to a node's log output fail for a while, also while the node stops or starts."""
        sim = self._dice.choice(list(self._cluster.nodes.values()))
        sim.log_fails = True
        asyncio.get_running_loop().call_later(self._dice.uniform(0.5, 8), setattr, sim, "log_fails", False)
        return True

    def _make_room(self, sims: list[SimNode]) -> None:
        for sim in sims:
            sim.disk.capacity_bytes = CAPACITY_BYTES

    async def _draw_equal(self) -> bool:
        """Let all nodes draw the same election time-out for a while, so that they campaign at the same time."""
        self._cluster.draws_equal = True
        asyncio.get_running_loop().call_later(self._dice.uniform(0.5, 4), self._draw_as_ever)
        return True

    def _draw_as_ever(self) -> None:
        self._cluster.draws_equal = False

    async def _clock(self) -> bool:
        """Set one clock wrong, or, seldom, all of them: then log time is ahead when they are right again."""
        sims = list(self._cluster.nodes.values())
        ms = self._dice.choice([0, -3_600_000, -500, 500, 10_000, 3_600_000])
        for sim in sims if self._dice.random() < 0.1 else [self._dice.choice(sims)]:
            sim.clock.set_wrong(ms)
        return True

    async def _clock_rate(self) -> bool:
        """Let a wall clock go fast or slow from now on; the machine's other clocks are not affected."""
        sim = self._dice.choice(list(self._cluster.nodes.values()))
        sim.clock.go_at(self._dice.choice([0.5, 0.9, 0.99, 1.0, 1.0, 1.01, 1.1, 2.0]))
        return True


def fault_kinds() -> list[str]:
    """The names of everything that can go wrong in a simulated world."""
    return Nemesis(SimCluster(KeyValue), random.Random(0)).every_kind
