"""Members come and go, while clients were told of only one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from raftkv.client import Admin, Client, ClientOptions
from raftkv.errors import RaftKVError
from raftkv.model import Membership
from raftkv.processes.cluster import NodeProcess
from raftkv.worlds.workload import Workload
from tests.chaos.fault import RealFault
from tests.chaos.power import until_answers
from tests.chaos.stage import DEADLINE_S, ChaosStage
from tests.chaos.tally import SERVED_S, Tally

JOINERS = 700
"""Ids from here on are of members that stay for one round."""

SEEDED = 2
"""Clients that know that one member."""

COUNTED = 10


class SeedGone(RealFault):
    """Clients that were told of one member lose it, and then the leader: what they have learnt must do.

    Two members are added. The one that clients know is replaced by the other and ends, or just dies; then the leader
    is killed. A majority is up all the time, so clients are served within the bound.
    """

    kind = "clients that know one member lose it and the leader"
    rows = "F80"

    def __init__(self, dice: random.Random) -> None:
        self._is_removed = dice.random() < 0.7
        self._joined: list[NodeProcess] = []

    async def inject(self, stage: ChaosStage) -> None:
        self._joined = [self._start(stage), self._start(stage)]
        for node in self._joined:
            await self._join(stage, node)
        seed, other = self._joined
        tallies = [
            Tally(b"seeded%d.%d" % (seed.node_id, number), self._client(seed.own.client_address))
            for number in range(SEEDED)
        ]
        try:
            await asyncio.gather(*[tally.more(COUNTED, DEADLINE_S) for tally in tallies])
            stage.note(f"node {seed.node_id}, which clients know, goes; node {other.node_id} stays")
            if self._is_removed:
                await self._remove(stage, seed)
            else:
                seed.kill()
            await asyncio.gather(*[tally.more(COUNTED) for tally in tallies])
            leader = await stage.leader()
            stage.note(f"SIGKILL to node {leader.node_id}, which leads")
            leader.kill()
            await asyncio.gather(*[tally.more(COUNTED) for tally in tallies])
            stage.met(self.kind)
            leader.start()
            for tally in tallies:
                await tally.stop(_addresses(stage))
        finally:
            await asyncio.gather(*[tally.close() for tally in tallies])

    def _client(self, address: str) -> Client[Workload]:
        return Client(Workload, [address], options=ClientOptions(deadline_s=SERVED_S))

    def _start(self, stage: ChaosStage) -> NodeProcess:
        node = stage.cluster.add(max(JOINERS, *stage.cluster.nodes, *stage.departed) + 1)
        node.start()
        return node

    async def _join(self, stage: ChaosStage, node: NodeProcess) -> None:
        await until_answers(stage, node)
        joined = node.node_id
        await _ordered(
            stage,
            f"node {joined} added",
            lambda admin: admin.add_learner(node.own, DEADLINE_S),
            lambda members: members.member(joined) is not None,
        )
        await _ordered(
            stage,
            f"node {joined} promoted",
            lambda admin: admin.promote(joined, DEADLINE_S),
            lambda members: joined in members.voters and not members.is_joint,
        )

    async def _remove(self, stage: ChaosStage, node: NodeProcess) -> None:
        gone = node.node_id
        await _ordered(
            stage,
            f"node {gone} removed",
            lambda admin: admin.remove(gone, DEADLINE_S),
            lambda members: gone not in members.all_nodes() and not members.is_joint,
        )
        node.kill()
        self._joined.remove(node)
        stage.departed.add(node.node_id)
        del stage.cluster.nodes[node.node_id]

    async def heal(self, stage: ChaosStage) -> None:
        """The founders are the only members again."""
        stage.cluster.start_all()
        for node in list(self._joined):
            await until_answers(stage, node)
            await self._remove(stage, node)

    def describe(self) -> str:
        return f"{self.kind}: it is {'replaced' if self._is_removed else 'killed'}"


async def _ordered(
    stage: ChaosStage,
    what: str,
    order: Callable[[Admin], Awaitable[object]],
    is_done: Callable[[Membership], bool],
) -> None:
    """Have it done, whoever leads: an order that a change of leaders has cut off may have been carried out or not."""

    async def look() -> bool | None:
        leader = await stage.leader()
        status = await stage.status(leader.node_id)
        if status is not None and is_done(status.membership):
            return True
        try:
            async with Admin(_founders(stage)) as admin:
                await order(admin)
        except RaftKVError as exc:
            stage.note(f"not {what} yet: {exc}")
        return None

    await stage.until(look, what)


def _addresses(stage: ChaosStage) -> list[str]:
    return [node.own.client_address for node in stage.cluster.nodes.values()]


def _founders(stage: ChaosStage) -> list[str]:
    return [stage.cluster.nodes[member.node_id].own.client_address for member in stage.cluster.founders]
