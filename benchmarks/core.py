"""How fast the consensus core is by itself: three nodes in one process, messages handed over in memory.

Nothing is written or sent, so the figures say what the protocol's decisions cost, not what a cluster
does; the time of the three nodes adds up, as they share one thread.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

from raftkv.config import RaftConfig
from raftkv.core.log import LogView
from raftkv.core.messages import AppendEntries, Message
from raftkv.core.raft import Raft
from raftkv.entry import Entry
from raftkv.model import Membership

PAYLOAD = b"x" * 256
T = TypeVar("T")


class Memory:
    """Three cores and their logs; what each input costs is added up when `timed`."""

    def __init__(self, *, timed: bool = False) -> None:
        membership = Membership.of((1, 2, 3))
        self.rafts = {
            node_id: Raft(node_id=node_id, config=RaftConfig(), draw=lambda n: 0, log=LogView(membership=membership))
            for node_id in membership.voters
        }
        self.logs: dict[int, list[Entry]] = {node_id: [] for node_id in self.rafts}
        self.inboxes: dict[int, list[Message]] = {node_id: [] for node_id in self.rafts}
        self.costs: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._timed = timed
        self.rafts[1].campaign()
        self.run()
        assert self.rafts[1].is_leader

    def call(self, node_id: int, what: str, function: Callable[..., T], *args: object) -> T:
        """Call a core, and note what it cost if that is wanted."""
        if not self._timed:
            return function(*args)
        started = time.perf_counter()
        result = function(*args)
        self.costs[("leader" if node_id == 1 else "follower", what)] += time.perf_counter() - started
        return result

    def propose(self, count: int) -> None:
        """One batch of `count` commands, committed and applied by the leader."""
        payloads = [PAYLOAD] * count
        self.call(1, "propose", self.rafts[1].propose, payloads, 0)
        self.run()

    def run(self) -> None:
        """Hand over whatever is to be handed over, until there is nothing."""
        busy = True
        while busy:
            busy = False
            for node_id, raft in self.rafts.items():
                busy |= self._handle(node_id, raft)
            for node_id, inbox in self.inboxes.items():
                if inbox:
                    busy = True
                    messages, self.inboxes[node_id] = inbox, []
                    raft = self.rafts[node_id]
                    for message in messages:
                        self.call(node_id, "step " + type(message).__name__, raft.step, message)

    def _handle(self, node_id: int, raft: Raft) -> bool:
        ready = self.call(node_id, "ready", raft.ready)
        if ready is None:
            return False
        log = self.logs[node_id]
        log += ready.entries
        for message in [*ready.messages, *ready.durable_messages]:
            if isinstance(message, AppendEntries) and message.last_index > message.prev_index:
                message.entries = log[message.prev_index : message.last_index]
            self.inboxes[message.to].append(message)
        if ready.must_persist:
            self.call(node_id, "persisted", raft.persisted, ready.write)
        if ready.committed is not None:
            raft.applied(ready.committed[1])
        return True


def measure(batch: int, batches: int) -> tuple[float, float]:
    """Entries and batches committed a second, with `batch` entries a batch."""
    memory = Memory()
    started = time.perf_counter()
    for _ in range(batches):
        memory.propose(batch)
    seconds = time.perf_counter() - started
    assert memory.rafts[1].commit_index == 1 + batch * batches
    return batch * batches / seconds, batches / seconds


def costs(batch: int, batches: int) -> dict[str, float]:
    """Microseconds an entry of each kind of input, on the leader and on both followers together."""
    memory = Memory(timed=True)
    memory.costs.clear()
    for _ in range(batches):
        memory.propose(batch)
    scale = 1e6 / (batch * batches)
    return {f"{role}: {what}": cost * scale for (role, what), cost in sorted(memory.costs.items())}
