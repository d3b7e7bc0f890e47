"""A story of simulated worlds: a leader is deposed and can't know it, and is asked all the time meanwhile.

By chance this is rare. A leader that wakes from a pause counts the time that has passed before it reads anything, and
one that is cut off hears no answers; either steps down about when the others elect another one. Here their answers
come later and later, and are still on their way when nobody hears the leader any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from typing import Any

from raftkv.client import Client
from raftkv.core.roles import Leader
from raftkv.errors import RaftKVError
from raftkv.model import Index, NodeId
from raftkv.node import Node
from raftkv.testing.faults.vandal import awake_leader
from raftkv.testing.world.cluster import SimCluster, SimNode
from raftkv.worlds.workload import Workload

ASKED = "leader asked that was deposed"

WORLDS_PART = 0.9
"""Of all worlds have this story, again and again."""

LATE = 3.0
"""Election time-outs by which the others' answers are late in the end."""

STEP = 0.3
"""Election time-outs by which they are later each time, so that the leader never misses them for long."""

TAIL_ENTRIES = 100
"""Commands that the old leader takes and can't commit."""

NEW_ENTRIES = 60
"""Commands that the new leader commits: more than are kept in the log behind a snapshot."""

QUESTIONS_S = 0.02
"""Between two questions."""

PATIENT_S = 60.0
"""Who asks leaves no leader because it is silent."""

KEY = b"asked of the deposed"


class Deposed:
    """Plays the story with whoever leads. No answer may be older than what was known when its question was asked."""

    def __init__(self, seed: int, cluster: SimCluster) -> None:
        self._dice = random.Random(f"who is deposed in {seed}")
        self._cluster = cluster
        self._newest: Index = 0
        """The highest index of all that was answered."""
        self._calls: set[asyncio.Task[None]] = set()
        self.is_wanted = self._dice.random() < WORLDS_PART

    async def act(self) -> None:
        """Play it until this is cancelled."""
        while True:
            await asyncio.sleep(self._dice.uniform(0.2, 1.5))
            leader = awake_leader(self._cluster)
            if leader is not None and len(leader.raft.membership.voters) >= 3:
                await self._play(self._cluster.nodes[leader.node_id])

    async def _play(self, old: SimNode) -> None:
        cluster = self._cluster
        others = [node_id for node_id in cluster.nodes if node_id != old.node_id]
        asker = cluster.client(old.node_id, sessions=False, deadline_s=8.0, probe_s=PATIENT_S, silence_s=PATIENT_S)
        try:
            await self._ask(asker)  # so it is connected
            await self._answer_late(old, others)
            for other in others:
                cluster.network.cut(old.node_id, other, one_way=True)
            for _ in range(TAIL_ENTRIES):
                self._begin(self._write(asker))
            await self._ask_on(old, asker, others)
        finally:
            for other in others:
                cluster.network.delays.pop((other, old.node_id), None)
            cluster.network.heal()
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)
            await asker.close()

    async def _answer_late(self, old: SimNode, others: list[NodeId]) -> None:
        timeout_s = self._cluster.election_timeout_s
        for step in range(1, round(LATE / STEP) + 1):
            for other in others:
                self._cluster.network.delays[other, old.node_id] = step * STEP * timeout_s
            await asyncio.sleep(1.2 * STEP * timeout_s)

    async def _ask_on(self, old: SimNode, asker: Client[Workload], others: list[NodeId]) -> None:
        """Ask the old leader for as long as it leads in its own eyes, and write what it can't know as soon as another
        one can commit it. Half of the time nothing comes to it any more from then on: so it keeps the commands that it
        could not commit until a snapshot replaces them."""
        keeps_tail = self._dice.random() < 0.5
        change: asyncio.Task[None] | None = None
        while old.node is not None and old.node.raft.is_leader:
            new = self._cluster.leader
            is_other = new is not None and new is not old.node
            is_news = change is None and is_other
            if new is not None and is_news and _has_committed(new.raft.role, new.raft.commit_index):
                self._cluster.fired[ASKED] += 1
                change = self._begin(self._change(new))
                for other in others if keeps_tail else ():
                    self._cluster.network.cut(other, old.node_id, one_way=True)
                    self._cluster.network.reset(other, old.node_id)
            self._begin(self._ask(asker))
            await asyncio.sleep(QUESTIONS_S)
        if change is not None:
            await asyncio.wait([change])

    async def _change(self, new: Node) -> None:
        """Have the new leader commit, and take a snapshot that the old one will need."""
        writer = self._cluster.client(new.node_id, sessions=False, deadline_s=2.0)
        await asyncio.gather(*(self._write(writer) for _ in range(NEW_ENTRIES)))
        await writer.close()
        with contextlib.suppress(RaftKVError):  # whatever else happens in this world may be the reason
            await new.orders.take_snapshot()

    def _begin(self, call: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    async def _write(self, client: Client[Workload]) -> None:
        try:
            stamp: Any = await client.call("put", KEY, b"")
        except RaftKVError:
            return
        self._newest = max(self._newest, stamp.changed_index)

    async def _ask(self, client: Client[Workload]) -> None:
        newest = self._newest
        try:
            answer = await client.read("get", KEY)
        except RaftKVError:
            return
        if answer.index < newest:
            self._cluster.wrongs.append(
                f"an answer at index {answer.index} is out of date: {newest} was known when it was asked for"
            )
        self._newest = max(self._newest, answer.index)


def _has_committed(role: object, commit_index: Index) -> bool:
    return isinstance(role, Leader) and commit_index >= role.term_start
