"""Rolling upgrades of a simulated world: nodes are restarted with a later version of the application, or back with the
earlier one, one after the other, whatever else goes on.

The operator keeps to two rules, as README asks: a node goes back only while another one still runs the earlier version,
and no further node goes forward before the one that went back has gone forward again. So the later version can't become
active while a node of the earlier one is up, and no node may ever stop for it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from raftkv.machine import StateMachine
from raftkv.node import Node
from raftkv.testing.faults.vandal import awake_leader
from raftkv.testing.world.cluster import SimCluster, SimNode

FORWARD, BACK, ORDERED = "node of a later version", "node back at the earlier version", "upgrade that is ordered"

ROLLED = (FORWARD, BACK, ORDERED)


class Rolling:
    """Restarts nodes with either version of the machine; without a later one it does nothing."""

    def __init__(
        self, cluster: SimCluster, dice: random.Random, spawn: Callable[..., None], start: Callable[[SimNode], Any]
    ) -> None:
        self._cluster = cluster
        self._dice = dice
        self._spawn = spawn
        self._start: Callable[[SimNode], Coroutine[Any, Any, None]] = start
        self._back: set[int] = set()
        """The nodes that went back, and not forward again."""
        self.kinds: dict[str, Callable[[], Awaitable[bool]]] = {
            FORWARD: self._go_forward,
            BACK: self._go_back,
            ORDERED: self._order,
        }

    async def _go_forward(self) -> bool:
        sims = [
            sim for sim in self._able() if not self._is_later(sim) and (not self._back or sim.node_id in self._back)
        ]
        if not sims:
            return False
        sim = self._dice.choice(sims)
        self._back.discard(sim.node_id)
        self._restart(sim, self._cluster.later)
        return True

    async def _go_back(self) -> bool:
        leader, sims = awake_leader(self._cluster), self._able()
        if leader is None or self.active != 1 or self._back:
            return False
        earlier = [sim for sim in self._members(leader) if not self._is_later(sim)]
        later = [sim for sim in sims if self._is_later(sim) and leader.raft.membership.member(sim.node_id) is not None]
        if not earlier or not later or leader.raft.log.membership.is_joint:
            return False
        sim = self._dice.choice(later)
        self._back.add(sim.node_id)
        self._restart(sim, self._cluster.machine)
        return True

    async def _order(self) -> bool:
        """An operator who does not wait for the leader's own decision, or is to take it."""
        leader = awake_leader(self._cluster)
        if leader is None or self._cluster.later is None:
            return False
        self._spawn(leader.orders.upgrade(None, 10), changes=False)
        return True

    @property
    def active(self) -> int:
        """The highest version that is known to be active anywhere."""
        return max((node.applier.runner.active.version for node in self._cluster.running), default=0)

    def all_forward(self) -> None:
        """Install the later version on every node; those that are up end for it."""
        if self._cluster.later is None:
            return
        self._back.clear()
        for sim in self._cluster.nodes.values():
            if not self._is_later(sim):
                sim.crash(power=False)
                sim.machine = self._cluster.later

    def _able(self) -> list[SimNode]:
        if self._cluster.later is None:
            return []
        return [sim for sim in self._cluster.nodes.values() if not sim.is_frozen]

    def _members(self, leader: Node) -> list[SimNode]:
        nodes = self._cluster.nodes
        return [nodes[member] for member in leader.raft.membership.all_nodes() if member in nodes]

    def _is_later(self, sim: SimNode) -> bool:
        return sim.machine is self._cluster.later

    def _restart(self, sim: SimNode, machine: type[StateMachine] | None) -> None:
        assert machine is not None, "who rolls has something to roll on"
        sim.crash(power=False)
        sim.machine = machine
        self._spawn(self._start(sim))
