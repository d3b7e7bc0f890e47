"""Worlds that hypothesis leads: what happens next is drawn step by step, and a failure shrinks to a short program."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from raftkv.errors import Indeterminate, NotAccepted, Rejected, SessionExpired
from raftkv.kv import KeyValue
from raftkv.testing.faults.nemesis import Nemesis, fault_kinds
from raftkv.testing.judging.checks import all_checks
from raftkv.testing.judging.history import History
from raftkv.testing.judging.operation import counter, register
from raftkv.testing.judging.search import Verdict
from raftkv.testing.judging.verdicts import judge
from raftkv.testing.judging.watching import Watch
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop, elapse
from raftkv.testing.world.unheard import quiet
from tests.campaign.large import IS_LARGE

KEYS = st.sampled_from([b"c1", b"r1"])


def model(state: Any, operation: Any) -> tuple[Any, Any]:
    """A counter or a register, by the key."""
    return counter(state or 0, operation) if operation.key == b"c1" else register(state, operation)


class World(RuleBasedStateMachine):
    """A cluster, two clients, and any fault at any time."""

    @initialize(seed=st.integers(0, 2**16), size=st.sampled_from([3, 1, 5]))
    def begin(self, seed: int, size: int) -> None:
        """Start a cluster, and wait for a leader."""
        self.quiet = quiet()
        self.quiet.__enter__()
        self.loop = SimLoop()
        self.history = History()
        self.tasks: list[asyncio.Task[None]] = []
        self.numbers = 0
        self.run(self._start(seed, size))

    async def _start(self, seed: int, size: int) -> None:
        self.cluster = SimCluster(KeyValue, size, seed=seed)
        self.nemesis = Nemesis(self.cluster, random.Random(seed))
        self.watch = Watch(self.cluster, all_checks())
        await self.cluster.start()
        await self.cluster.until_leader()
        self.clients = [self.cluster.client(deadline_s=8.0, sessions=True) for _ in range(2)]

    def run(self, work: Any) -> Any:
        """Let the world go on until `work` is done."""
        return self.loop.run_until_complete(work)

    @rule(kind=st.sampled_from(fault_kinds()), chance=st.integers(0, 2**16))
    def strike(self, kind: str, chance: int) -> None:
        """Something goes wrong, or is mended."""
        self.run(self.nemesis.strike(kind, chance))

    @rule(seconds=st.sampled_from([0.01, 0.2, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.run(elapse(seconds))

    @rule(client=st.integers(0, 1), key=KEYS, writes=st.booleans())
    def call(self, client: int, key: bytes, writes: bool) -> None:
        """A client calls, and does not wait."""
        self.tasks.append(self.loop.create_task(self._call(client, key, writes)))

    async def _call(self, number: int, key: bytes, writes: bool) -> None:
        remote: Any = self.clients[number].remote
        self.numbers += 1
        value = b"%d" % self.numbers
        name = "read" if not writes else "increment" if key == b"c1" else "write"
        argument = {"increment": 1, "write": value}.get(name)
        operation = self.history.call(len(self.tasks), key, name, argument, self.loop.time())
        result: Any = None
        try:
            if name == "increment":
                result = await remote.increment(key)
            elif name == "write":
                await remote.put(key, value)
            elif (item := await remote.get(key)) is not None:
                result = int(item.value) if key == b"c1" else item.value
            elif key == b"c1":
                result = 0
        except (Indeterminate, SessionExpired):
            return
        except (NotAccepted, Rejected):
            self.history.refused(operation)
            return
        self.history.returned(operation, result, self.loop.time())

    @invariant()
    def nothing_is_broken(self) -> None:
        """All invariants hold after every step."""
        if hasattr(self, "watch"):
            self.run(self._look())

    async def _look(self) -> None:
        self.watch.look()

    def teardown(self) -> None:
        """Mend everything: then there is progress, all replicas are equal, and the history is one of one machine."""
        if not hasattr(self, "clients"):
            return
        try:
            self.run(self._end())
        finally:
            self.quiet.__exit__(None, None, None)
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            self.run(self._all(left))
            self.loop.close()
        judgement = judge(self.history.operations, model, None)
        assert judgement.verdict is Verdict.LINEARIZABLE, judgement.describe()

    async def _end(self) -> None:
        await self.nemesis.mend()
        await self._all(self.tasks)
        # Of those that were told before, none need find a cluster whose only node has moved meanwhile.
        async with self.cluster.client(deadline_s=8.0) as told_anew:
            await told_anew.put(b"mended", b"")
        await self.cluster.until_equal()
        self.watch.look()

    async def _all(self, tasks: Any) -> None:
        await asyncio.gather(*tasks, return_exceptions=True)


World.TestCase.settings = settings(
    max_examples=60 if IS_LARGE else 15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestWorld = World.TestCase
"""Whatever the order of faults, calls and time: nothing is lost, and it recovers."""
