"""The end of some worlds: for a minute little comes, and the log must not grow for ever all the same (F35)."""

from __future__ import annotations

import asyncio
import random

from raftkv.core.log import LogView
from raftkv.model import Index
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.variety import SHORT_LOGS

CUT_WHILE_IDLE = "log that is cut while little comes"

WORLDS_PART = 0.3
"""Of all worlds with short logs end so; with others it takes too long, as time passes in ticks."""

BETWEEN_S = 1.0
"""From one command to the next, about."""

DEADLINE_S = 10.0


class Idling:
    """One client that writes now and then, until there were twice the entries after which a snapshot is due."""

    def __init__(self, seed: int, cluster: SimCluster) -> None:
        self._dice = random.Random(f"how little comes in {seed}")
        self._cluster = cluster
        self.is_wanted = self._dice.random() < WORLDS_PART

    async def play(self) -> bool:
        """Raises `AssertionError` if a log keeps more than twice those entries. Returns whether all members' were cut,
        which it is not about where logs are long."""
        leader = await self._cluster.until_leader()
        due = leader.body.config.snapshot_entries
        if due != SHORT_LOGS["snapshot_entries"]:
            return False
        before = self._starts()
        async with self._cluster.client(deadline_s=DEADLINE_S) as client:
            for number in range(2 * due + 1):
                await client.put(b"now and then", b"")
                await asyncio.sleep(self._dice.uniform(0.5, 1.5) * BETWEEN_S)
                for node_id, log in self._logs().items():
                    kept = log.last_index - log.start.index
                    assert number < due or kept <= 2 * due, (
                        f"node {node_id} keeps {kept} entries, a snapshot is due after {due}"
                    )
        after = self._starts()
        return all(after[node_id] > start for node_id, start in before.items())

    def _logs(self) -> dict[int, LogView]:
        leader = self._cluster.leader
        members = leader.raft.membership.all_nodes() if leader is not None else ()
        return {node.node_id: node.raft.log for node in self._cluster.running if node.node_id in members}

    def _starts(self) -> dict[int, Index]:
        return {node_id: log.start.index for node_id, log in self._logs().items()}
