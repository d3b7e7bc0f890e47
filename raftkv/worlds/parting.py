"""The end of some worlds: the states of nodes are damaged in memory, and whoever differs from a majority must stop.

It comes when all else is over and all nodes are equal, because nothing that is said or seen from then on can be judged
by what there was before.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import msgspec

from raftkv.errors import Diverged, NoAgreement, RaftKVError
from raftkv.model import NodeId
from raftkv.node import Node
from raftkv.testing.world.cluster import SimCluster

MINORITY, NOBODY = "minority whose state differs", "states without a majority"

PARTINGS = (MINORITY, NOBODY)

WORLDS_PART = 0.5
"""Of all worlds end so."""

STOPPED_WITHIN = 40
"""Election time-outs until whoever differs has stopped, and as many before until all are equal again."""

REST_S = 0.2
"""Between two commands: digests are told when something was applied."""


class Parting:
    """Damages the states of some voters, alike or each in its own way, and sees who goes on."""

    def __init__(self, seed: int, cluster: SimCluster) -> None:
        self._dice = random.Random(f"whose states differ in {seed}")
        self._cluster = cluster
        self.is_wanted = self._dice.random() < WORLDS_PART

    async def play(self) -> str | None:
        """Raises `AssertionError` when others stop than must; returns what it was, or None with a single voter."""
        cluster = self._cluster
        timeout_s = cluster.election_timeout_s
        await cluster.until_equal(STOPPED_WITHIN * timeout_s)
        leader = await self._until_told(STOPPED_WITHIN * timeout_s)
        membership = leader.raft.membership
        if len(membership.voters) < 2 or membership.is_joint:
            return None
        members = set(membership.all_nodes())
        sides = self._sides(membership.voters)
        for number, side in enumerate(sides):
            for node_id in side:
                self._damage(node_id, number)
        sides[0] |= members - set(membership.voters)  # learners have no say, and are as they were
        large = [side for side in sides if 2 * len(side & set(membership.voters)) > len(membership.voters)]
        kind, wrong = (Diverged, members - large[0]) if large else (NoAgreement, members)
        cluster.note(f"states differ: {sides}")
        await self._stopped(kind, wrong, members)
        return MINORITY if large else NOBODY

    async def _until_told(self, within_s: float) -> Node:
        """Wait until a leader knows that all voters have its state at its newest entry; returns that leader.

        All are at that entry then, until the loop's next turn. Else some would differ at an entry at which others have
        agreed before, as what repeats by itself may bring one at any time; and who has told its digest to an earlier
        leader tells it again for a newer entry only.
        """
        cluster = self._cluster
        async with asyncio.timeout(within_s):
            while True:
                async with cluster.client(deadline_s=within_s) as client:
                    await client.put(b"told", b"")
                await asyncio.sleep(cluster.election_timeout_s)
                leader = cluster.leader
                if leader is not None and _all_have_told(leader):
                    return leader

    def _sides(self, voters: Sequence[NodeId]) -> list[set[NodeId]]:
        """Draw who differs from whom; the first side is as it was, and may be empty."""
        while True:
            sides: list[set[NodeId]] = [set(), set(), set()]
            for voter in voters:
                sides[self._dice.choice((0, 0, 0, 1, 2))].add(voter)
            if sum(map(bool, sides)) > 1:
                return sides

    def _damage(self, node_id: NodeId, number: int) -> None:
        node = self._cluster.nodes[node_id].node
        assert node is not None, f"node {node_id} is down"
        runner = node.applier.runner
        runner.applied = msgspec.structs.replace(runner.applied, digest=runner.applied.digest ^ number)

    async def _stopped(self, kind: type[Diverged], wrong: set[NodeId], members: set[NodeId]) -> None:
        cluster = self._cluster
        within_s = STOPPED_WITHIN * cluster.election_timeout_s
        writing = asyncio.ensure_future(self._write())
        try:
            await cluster.until(lambda: self._failed(members) >= wrong, within_s, f"{wrong} stopped")
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        if wrong != members:
            async with cluster.client(deadline_s=within_s) as client:
                await client.put(b"parted", b"")
        failures = {each: getattr(cluster.nodes[each].node, "failure", None) for each in sorted(members)}
        stopped = {each: type(failure) for each, failure in failures.items() if failure is not None}
        assert stopped == dict.fromkeys(wrong, kind), f"{wrong} were to stop with {kind.__name__}, but: {failures}"

    def _failed(self, members: set[NodeId]) -> set[NodeId]:
        nodes = (self._cluster.nodes[each].node for each in members)
        return {node.node_id for node in nodes if node is not None and node.failure is not None}

    async def _write(self) -> None:
        """One command after the other, whatever becomes of it."""
        while True:
            client = self._cluster.client(deadline_s=1.0)
            try:
                await client.call("put", b"parting", b"")
            except RaftKVError:
                pass  # nobody may answer for a while, or ever
            finally:
                await client.close()
            await asyncio.sleep(REST_S)


def _all_have_told(leader: Node) -> bool:
    index, log = leader.applier.applied_index, leader.raft.log
    agree = leader.divergence.comparer.agree(index)
    return index == log.last_index and set(agree) >= set(leader.raft.membership.all_voters())
