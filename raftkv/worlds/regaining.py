"""The end of some worlds: a node loses its state, and its log goes on behind the snapshot that it gets (F64)."""

from __future__ import annotations

import random

from raftkv.node import Node
from raftkv.testing.faults.harming import lose_state
from raftkv.testing.world.cluster import SimCluster, SimNode
from raftkv.testing.world.harm import Harm
from raftkv.worlds.tails import KEPT

WORLDS_PART = 0.3
"""Of all worlds end so, where logs are short: a whole log would be applied again instead."""

REGAINED_WITHIN = 40
"""Election time-outs until all are equal again."""

BEHIND = 3
"""Commands behind the snapshot."""


class Regaining:
    """Takes a follower's state and snapshots away while nothing else goes on."""

    def __init__(self, seed: int, cluster: SimCluster) -> None:
        self._dice = random.Random(f"who regains its state in {seed}")
        self._cluster = cluster
        self.is_wanted = self._dice.random() < WORLDS_PART

    async def play(self) -> bool:
        """Raises `AssertionError` when it does not get it back; returns whether its log was kept behind a snapshot."""
        cluster = self._cluster
        within_s = REGAINED_WITHIN * cluster.election_timeout_s
        await cluster.until_equal(within_s)
        leader = await cluster.until_leader()
        await leader.orders.take_snapshot()
        async with cluster.client(deadline_s=within_s) as client:
            for _ in range(BEHIND):
                await client.put(b"regained", b"")
        await cluster.until_equal(within_s)
        leader = await cluster.until_leader()
        able = [sim for sim in cluster.nodes.values() if sim.node is not None and self._is_able(sim.node, leader)]
        if not able:
            return False
        kept, last = cluster.fired[KEPT], leader.raft.log.last_index
        node = await self._lose(self._dice.choice(able))
        await cluster.until(lambda: node.applier.applied_index >= last, within_s, f"node {node.node_id} regained it")
        return cluster.fired[KEPT] > kept

    def _is_able(self, node: Node, leader: Node) -> bool:
        """Whether the leader's snapshot can take the place of its state, and is older than its log's end."""
        log, snapshot = node.opened.log, leader.raft.snapshot
        is_voter = node is not leader and node.node_id in leader.raft.membership.voters
        return is_voter and snapshot is not None and 1 < log.first_index <= snapshot.index < log.last_index

    async def _lose(self, sim: SimNode) -> Node:
        self._cluster.note(f"node {sim.node_id} loses its state, and its log goes on")
        await sim.stop()
        sim.harm = Harm.LOST_STATE
        lose_state(sim.disk)
        return await sim.start()
