"""Operators of a simulated world: they order transfers, snapshots and changes of the membership, which take time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from raftkv.errors import RaftKVError
from raftkv.model import NodeId
from raftkv.testing.faults.vandal import awake_leader
from raftkv.testing.world.cluster import SimCluster, SimNode

ADDED_MAX = 3
"""Nodes that a world adds beyond those it began with."""


class Operators:
    """Gives orders, and does not wait for their ends."""

    def __init__(
        self,
        cluster: SimCluster,
        dice: random.Random,
        start: Callable[[SimNode], Coroutine[Any, Any, None]],
    ) -> None:
        self._cluster = cluster
        self._dice = dice
        self._start = start
        self._operations: dict[asyncio.Future[None], bool] = {}
        """Each with whether it may change who is a member, or who is up."""
        self._next_id: NodeId = max(cluster.nodes) + 1
        self.kinds: dict[str, Callable[[], Awaitable[bool]]] = {
            "transfer": self._transfer,
            "snapshot": self._snapshot,
            "add": self._add,
            "promote": self._promote,
            "remove": self._remove,
            "clock reset": self._reset_clock,
            "move": self._move,
        }

    @property
    def is_changing(self) -> bool:
        """Whether an order is under way that may change the members, or stop or start nodes."""
        return any(self._operations.values())

    def spawn(self, work: Coroutine[Any, Any, object], *, changes: bool = True) -> None:
        """Begin an operator's command, which takes time, and may fail."""

        async def tolerant() -> None:
            with contextlib.suppress(RaftKVError, TimeoutError):
                await work

        def ended(task: asyncio.Future[None]) -> None:
            del self._operations[task]
            work.close()  # one that was cancelled before it began was never awaited

        task = asyncio.ensure_future(tolerant())
        self._operations[task] = changes
        task.add_done_callback(ended)

    async def give_up(self) -> None:
        """Cancel all orders that are under way."""
        for operation in list(self._operations):
            operation.cancel()
        await asyncio.gather(*self._operations, return_exceptions=True)

    def new_machine(self) -> SimNode:
        """Add a machine whose id was never used."""
        sim = self._cluster.add(self._next_id)
        self._next_id += 1
        sim.machine = self._cluster.later or self._cluster.machine  # it can run whatever is active by then
        return sim

    async def _transfer(self) -> bool:
        if (leader := awake_leader(self._cluster)) is None:
            return False
        voters = leader.raft.membership.voters
        self.spawn(leader.orders.transfer_leadership(self._dice.choice([None, *voters]), 5))
        return True

    async def _snapshot(self) -> bool:
        able = [node for node in self._cluster.running if not self._cluster.nodes[node.node_id].is_frozen]
        if not able:
            return False
        self.spawn(self._dice.choice(able).orders.take_snapshot())
        return True

    async def _reset_clock(self) -> bool:
        if (leader := awake_leader(self._cluster)) is None:
            return False
        self.spawn(leader.orders.reset_clock(5), changes=False)
        return True

    async def _add(self) -> bool:
        leader = awake_leader(self._cluster)
        if leader is None or self._next_id > len(self._cluster.founders) + ADDED_MAX:
            return False
        sim = self.new_machine()
        if self._dice.random() < 0.3:
            sim.crash_at_operation(self._dice.randint(1, 25))
        self.spawn(self._start(sim))
        self.spawn(leader.orders.add_learner(sim.member, 10))
        return True

    async def _move(self) -> bool:
        """Restart a node at other addresses, then change the membership; the next node moves only after that."""
        leader = awake_leader(self._cluster)
        if leader is None or self.is_changing:
            return False
        log = leader.raft.log
        if log.membership_index > leader.raft.commit_index:
            return False  # were it cut off, two would have moved, and none would find another
        membership, sims = leader.raft.membership, self._cluster.nodes.values()
        members = [sim for sim in sims if membership.member(sim.node_id) is not None]
        if any(membership.member(sim.node_id) != sim.member for sim in members):
            return False
        able = [sim for sim in members if sim.is_up and not sim.is_frozen and sim.harm is None]
        if not able:
            return False
        sim = self._dice.choice(able)
        sim.crash(power=False)
        sim.move()
        self.spawn(self._settle(sim))
        return True

    async def _settle(self, sim: SimNode) -> None:
        await self._start(sim)
        if (leader := awake_leader(self._cluster)) is not None:
            await leader.orders.update_member(sim.member, 10)

    async def _promote(self) -> bool:
        if (leader := awake_leader(self._cluster)) is None or not leader.raft.membership.learners:
            return False
        self.spawn(leader.orders.promote(self._dice.choice(leader.raft.membership.learners), 10))
        return True

    async def _remove(self) -> bool:
        leader = awake_leader(self._cluster)
        if leader is None or len(leader.raft.membership.voters) <= 2:
            return False
        # With a node that is lost, another one less might be one too many.
        harmed = [sim.node_id for sim in self._cluster.nodes.values() if sim.harm is not None]
        candidates = [node for node in leader.raft.membership.all_nodes() if not harmed or node in harmed]
        if not candidates:
            return False
        self.spawn(leader.orders.remove(self._dice.choice(candidates), 10))
        return True
