"""One seed, one world: a cluster under faults and load, looked at all the time, and at the end held to its promise."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import msgspec

from raftkv.client import Client
from raftkv.errors import Indeterminate, NotAccepted, RaftKVError, Rejected, SessionExpired
from raftkv.kv import KeyValue
from raftkv.testing.checks import Check, all_checks
from raftkv.testing.cluster import CONFIG, SimCluster
from raftkv.testing.failure import Failure
from raftkv.testing.history import History, Operation, counter, register
from raftkv.testing.loop import Deadlock, SimLoop
from raftkv.testing.nemesis import Nemesis


class Report(msgspec.Struct):
    """What a world came to."""

    seed: int
    operations: int = 0
    unknown: int = 0
    refused: int = 0
    virtual_s: float = 0.0
    events: list[str] = []
    terms: int = 0
    snapshots: int = 0


class Simulation:
    """A world with clients that count, write, compare and read, each in a session of its own.

    Counters show whether a command was applied twice or not at all; registers whether a read was stale.
    `observe` is called with the world's cluster before its nodes start (`Trace.attach`).
    """

    def __init__(
        self,
        seed: int,
        *,
        size: int | None = None,
        duration_s: float = 20.0,
        clients: int = 4,
        observe: Callable[[SimCluster], None] | None = None,
    ) -> None:
        self.seed = seed
        self.broken_at: float | None = None
        """When it was clear that a promise is broken, in virtual seconds."""
        self.command = replay_command(seed, size=size, duration_s=duration_s, clients=clients)
        """What shows this world again."""
        self._observe = observe
        self._dice = random.Random(seed)
        self._size = size if size is not None else self._dice.choice([1, 3, 3, 3, 5])
        self._duration_s = duration_s
        self._clients = clients
        self._stopping = False
        self.history = History()
        self.report = Report(seed)

    def run(self) -> Report:
        """Run the world. Raises `Failure`."""
        loop = SimLoop()
        try:
            loop.run(self._run(loop))
        except (AssertionError, RaftKVError, TimeoutError, Deadlock) as exc:
            self.broken_at = loop.time() if self.broken_at is None else self.broken_at
            raise Failure(
                f"seed {self.seed}: {type(exc).__name__}: {exc}\nsee what happened: {self.command} --html FILE"
            ) from exc
        return self.report

    async def _run(self, loop: SimLoop) -> None:
        cluster = SimCluster(KeyValue, self._size, seed=self._dice.getrandbits(64), config=CONFIG)
        if self._observe is not None:
            self._observe(cluster)
            self.history.listener = cluster.trace
        checks = all_checks()
        nemesis = Nemesis(cluster, random.Random(self._dice.getrandbits(64)))
        self.report.events = cluster.events
        watcher = asyncio.ensure_future(self._watch(cluster, checks))
        workers: list[asyncio.Future[None]] = []
        try:
            await cluster.start()
            await cluster.until_leader()
            workers = [asyncio.ensure_future(self._work(cluster, number)) for number in range(self._clients)]
            await self._unless(watcher, nemesis.run(self._duration_s))
            await self._unless(watcher, nemesis.mend())
            cluster.note("mended")
            await self._unless(watcher, self._settle(cluster, workers))
            for check in checks:
                check.look(cluster)
        except AssertionError as exc:
            self.broken_at = loop.time()
            raise AssertionError(f"{exc}\n{cluster.describe()}") from exc
        finally:
            for task in (watcher, *workers):
                task.cancel()
            await asyncio.gather(watcher, *workers, return_exceptions=True)
        self._judge(cluster, loop)

    async def _unless(self, watcher: asyncio.Future[None], work: object) -> None:
        """Do `work`, but end at once when the watcher finds something."""
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        await asyncio.wait([watcher, task], return_when=asyncio.FIRST_COMPLETED)
        if watcher.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            watcher.result()
        task.result()

    async def _watch(self, cluster: SimCluster, checks: list[Check]) -> None:
        while True:
            await asyncio.sleep(0.02)
            for check in checks:
                try:
                    check.look(cluster)
                except AssertionError as exc:
                    raise AssertionError(f"{check.name}: {exc}\n{cluster.describe()}") from exc

    async def _settle(self, cluster: SimCluster, workers: list[asyncio.Future[None]]) -> None:
        """With everything mended there is progress, and all replicas become equal (liveness)."""
        leader = await cluster.until_leader(60)
        async with cluster.client(deadline_s=60) as last:
            await last.put(b"mended", b"")
        self._stopping = True
        await asyncio.wait_for(asyncio.gather(*workers), 120)
        self.report.terms = leader.raft.term
        await cluster.until_equal()

    # ------------------------------------------------------------------------------ load

    async def _work(self, cluster: SimCluster, number: int) -> None:
        dice = random.Random(f"{self.seed}.{number}")
        client = cluster.client(deadline_s=8.0, sessions=True)
        try:
            while not self._stopping:
                await asyncio.sleep(dice.expovariate(1 / 0.1))
                await self._operate(client, number, dice)
        finally:
            await client.close()

    async def _operate(self, client: Client[KeyValue], number: int, dice: random.Random) -> None:
        loop, remote = asyncio.get_running_loop(), client.remote
        kind = dice.choice(["increment", "increment", "read count", "write", "compare", "read"])
        key = (
            b"c%d" % dice.randrange(2)
            if "c" in kind[:1] + kind[-5:] and "count" in kind
            else b"r%d" % dice.randrange(2)
        )
        if kind == "increment":
            key = b"c%d" % dice.randrange(2)
        value = b"%d.%d" % (number, dice.randrange(10**6))
        old = b"%d.%d" % (number, 0) if dice.random() < 0.5 else None
        name = {"read count": "read"}.get(kind, kind)
        argument = {"increment": 1, "write": value, "compare": (old, value)}.get(kind)
        operation = self.history.call(number, key, name, argument, loop.time())
        try:
            if kind == "increment":
                result: object = await remote.increment(key)
            elif kind == "read count":
                found = await remote.get(key)
                result = int(found.value) if found is not None else 0
            elif kind == "write":
                await remote.put(key, value)
                result = None
            elif kind == "compare":
                result = await remote.compare_and_set(key, old, value)
            else:
                found = await remote.get(key)
                result = found.value if found is not None else None
        except (Indeterminate, SessionExpired):
            self.report.unknown += 1
        except (NotAccepted, Rejected):
            self.report.refused += 1
            self.history.refused(operation)
        except RaftKVError as exc:
            raise AssertionError(f"{name} ended with {exc!r}, which no client should see") from exc
        else:
            self.history.returned(operation, result, loop.time())

    # ------------------------------------------------------------------------------ the verdict

    def _judge(self, cluster: SimCluster, loop: SimLoop) -> None:
        report = self.report
        report.operations, report.virtual_s = len(self.history.operations), loop.time()
        report.snapshots = sum(node.snapshots.installed for node in cluster.running if hasattr(node, "snapshots"))
        problems = self.history.problems(_model, None)
        if problems:
            self.broken_at = self.history.broken_at(_model, None)
            raise AssertionError("\n".join(problems))


def _model(state: object, operation: Operation) -> tuple[object, object]:
    """Keys that begin with a c are counters, all others registers."""
    is_counter = bytes(operation.key)[:1] == b"c"  # type: ignore[call-overload]
    if is_counter:
        return counter(state or 0, operation)  # type: ignore[arg-type]
    return register(state, operation)


def replay_command(seed: int, *, size: int | None = None, duration_s: float = 20.0, clients: int = 4) -> str:
    """What to type to see a world again."""
    words = ["raftkv replay", str(seed)]
    words += [f"--size {size}"] if size is not None else []
    words += [f"--virtual {duration_s:g}"] if duration_s != 20.0 else []
    words += [f"--clients {clients}"] if clients != 4 else []
    return " ".join(words)


def simulate(seed: int, **settings: int | float) -> Report:
    """Run the world of `seed`; raises `Failure` when it breaks a promise."""
    return Simulation(seed, **settings).run()  # type: ignore[arg-type]
