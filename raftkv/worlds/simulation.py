"""One seed, one world: a cluster under faults and load, looked at all the time, and at the end held to its promise."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from raftkv.client import Client
from raftkv.errors import RaftKVError
from raftkv.node import Node
from raftkv.testing.faults.nemesis import Nemesis
from raftkv.testing.judging.checks import CoreInvariantsAfterEachInput, all_checks
from raftkv.testing.judging.failure import Failure
from raftkv.testing.judging.history import History
from raftkv.testing.judging.logtime import LogTimeIsBounded
from raftkv.testing.judging.watching import look, watched
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import Deadlock, SimLoop
from raftkv.testing.world.settings import CONFIG
from raftkv.testing.world.unheard import quiet
from raftkv.testing.world.variety import Variety
from raftkv.worlds import later
from raftkv.worlds.deposed import Deposed
from raftkv.worlds.filling import Filling
from raftkv.worlds.idling import CUT_WHILE_IDLE, Idling
from raftkv.worlds.parting import Parting
from raftkv.worlds.regaining import Regaining
from raftkv.worlds.reminders import Reminding
from raftkv.worlds.repeating import Repeating, with_turns
from raftkv.worlds.rights import Signing
from raftkv.worlds.scanning import Scanner
from raftkv.worlds.sightings import Sightings
from raftkv.worlds.tails import KEPT, Tails
from raftkv.worlds.watching import Watching
from raftkv.worlds.workload import Clients, Workload

SIZES = (6, 6, 24, 4, 6, 1, 1)
"""How often worlds begin with one node, with two, and so on: most with three, as most clusters have."""


DEADLINE_S = 8.0
"""What a client waits for an answer, and as long for a session before it."""
GIVES_UP_WITHIN_S = 2 * DEADLINE_S + 1

LEADER_WITHIN, SERVED_WITHIN, ANSWERED_WITHIN, EQUAL_WITHIN = 15, 10, 20, 20
"""Election time-outs (`SimCluster.election_timeout_s`) that it takes at most, once everything is mended, until somebody
leads, one more command is done, all who still ask are answered, and all replicas are equal. Of 400 worlds the slowest
took 7, 2, 4 and 8: half of that is links that notice that they are dead, and dial again."""


RAISED_WITHIN = 20
"""Likewise, until the version is active that all nodes can run, with its upgrades done."""

FOUNDED_LATER_PART = 0.15
"""Of those begin with the later version."""

LATER_PART = 0.6
"""Of all worlds have nodes of two versions: in the others nothing is new."""


class WorldReport(msgspec.Struct):
    """The figures of a world that has run."""

    seed: int
    operations: int = 0
    unknown: int = 0
    undecided: int = 0
    """Keys of which it was not found out whether their history is linearizable."""
    refused: int = 0
    virtual_s: float = 0.0
    events: list[str] = []
    terms: int = 0
    snapshots: int = 0
    faults: dict[str, int] = {}
    """How often each kind of fault met something."""


class Simulation:
    """A world with clients that count, write, compare, append and read, each in a session of its own (`Clients`).

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
        self._size = size if size is not None else self._dice.choices(range(1, 8), SIZES)[0]
        self._duration_s = duration_s
        self._client_count = clients
        self.history = History()
        self._variety = Variety(CONFIG, random.Random(self._dice.getrandbits(64)))
        self._has_later = random.Random(f"versions in {seed}").random() < LATER_PART
        self._repeating = Repeating(seed)
        self._clients = Clients(seed, self.history, self._variety.command_bytes_max)
        self._lists: dict[Any, Any] = {}
        self.report = WorldReport(seed)

    def run(self) -> WorldReport:
        """Run the world. Raises `Failure`."""
        loop = SimLoop()
        try:
            with quiet():
                loop.run(self._run(loop))
        except (AssertionError, RaftKVError, TimeoutError, Deadlock) as exc:
            self.broken_at = loop.time() if self.broken_at is None else self.broken_at
            raise Failure(
                f"seed {self.seed}: {type(exc).__name__}: {exc}\nsee what happened: {self.command} --html FILE"
            ) from exc
        return self.report

    async def _run(self, loop: SimLoop) -> None:
        earlier, newer = (
            with_turns(each) if self._repeating.is_wanted else each for each in (Workload, later.Workload)
        )
        cluster = SimCluster(earlier, self._size, seed=self._dice.getrandbits(64), config=CONFIG)
        cluster.variety = self._variety
        self._reminding = Reminding(self.seed, cluster)
        self._watching = Watching(self.seed, cluster)
        self._filling = Filling(self.seed, cluster)
        self._signing = Signing(self.seed, cluster)
        if self._has_later:
            cluster.later = newer
        if self._observe is not None:
            self._observe(cluster)
            self.history.recorder = cluster.recorder
        inputs = CoreInvariantsAfterEachInput()
        inputs.attach(cluster)
        sightings = Sightings(cluster)
        Tails(cluster.fired).attach(cluster)
        checks = [*all_checks(), LogTimeIsBounded(), inputs, sightings]
        nemesis = Nemesis(cluster, random.Random(self._dice.getrandbits(64)))
        self.report.events = cluster.events
        try:
            await watched(cluster, checks, self._live(cluster, nemesis, sightings))
            look(cluster, checks)
        except AssertionError:
            self.broken_at = loop.time()
            raise
        self._judge(cluster, loop)
        idling = Idling(self.seed, cluster)
        if idling.is_wanted and await idling.play():
            self.report.faults[CUT_WHILE_IDLE] = 1
        regaining = Regaining(self.seed, cluster)
        if regaining.is_wanted and await regaining.play():
            self.report.faults[KEPT] = cluster.fired[KEPT]
        parting = Parting(self.seed, cluster)
        if parting.is_wanted and (kind := await parting.play()) is not None:
            self.report.faults[kind] = 1

    async def _live(self, cluster: SimCluster, nemesis: Nemesis, sightings: Sightings) -> None:
        """First whatever may go wrong does (safety), then everything is mended (liveness)."""
        told = random.Random(f"who is told of whom in {self.seed}")
        if cluster.later is not None and told.random() < FOUNDED_LATER_PART:
            for sim in cluster.nodes.values():
                sim.machine = cluster.later
        await cluster.start()
        await cluster.until_leader()
        if self._signing.is_wanted:
            await self._signing.settle_in()
        clients = []
        for _ in range(self._client_count):
            # Some are told of all founders, some of one only, which may be gone soon.
            seeds = told.sample(range(1, self._size + 1), told.randint(1, self._size))
            machine = cluster.later if cluster.later is not None and told.random() < 0.5 else None
            clients.append(cluster.client(*seeds, machine=machine, deadline_s=DEADLINE_S, sessions=True))
            sightings.watch(clients[-1], seeds)
        workers = [asyncio.ensure_future(self._clients.act(client, at)) for at, client in enumerate(clients)]
        scanner = Scanner(self.seed, cluster)
        if scanner.is_wanted:
            client = cluster.client(deadline_s=DEADLINE_S)
            workers.append(asyncio.ensure_future(scanner.act(client, lambda: self._clients.stopping)))
        if self._reminding.is_wanted:
            client = cluster.client(deadline_s=DEADLINE_S, sessions=True)
            workers.append(asyncio.ensure_future(self._reminding.act(client, lambda: self._clients.stopping)))
        if self._watching.is_wanted:
            self._watching.begin(lambda: cluster.client(deadline_s=DEADLINE_S))
            client = cluster.client(deadline_s=DEADLINE_S, sessions=True)
            workers.append(asyncio.ensure_future(self._watching.act(client, lambda: self._clients.stopping)))
        if self._filling.is_wanted:
            client = cluster.client(deadline_s=DEADLINE_S, sessions=True)
            workers.append(asyncio.ensure_future(self._filling.act(client, lambda: self._clients.stopping)))
        if self._signing.is_wanted:
            self._signing.begin(lambda: self._clients.stopping)
            workers.append(asyncio.ensure_future(self._signing.act(lambda: self._clients.stopping)))
        deposed = Deposed(self.seed, cluster)
        story = asyncio.ensure_future(deposed.act() if deposed.is_wanted else asyncio.sleep(0))
        try:
            await nemesis.run(self._duration_s)
            story.cancel()
            await asyncio.wait([story])
            if not story.cancelled():
                story.result()
            await nemesis.mend()
            cluster.note("mended")
            await self._settle(cluster, workers, clients, sightings, nemesis)
        finally:
            for worker in (*workers, story):
                worker.cancel()
            await asyncio.gather(*workers, story, self._watching.end(), self._signing.end(), return_exceptions=True)

    async def _settle(
        self,
        cluster: SimCluster,
        workers: Sequence[asyncio.Future[None]],
        clients: Sequence[Client[Any]],
        sightings: Sightings,
        nemesis: Nemesis,
    ) -> None:
        """With everything mended there is progress, and all replicas become equal (liveness)."""
        timeout_s = cluster.election_timeout_s
        leader = await cluster.until_leader(LEADER_WITHIN * timeout_s)
        async with cluster.client(deadline_s=SERVED_WITHIN * timeout_s) as last:
            await last.put(b"mended", b"")
        served = sightings.must_be_served()
        for client in served:
            await client.call("get", b"mended")
        self._clients.stopping = True
        answered = [worker for worker, client in zip(workers, clients, strict=False) if client in served]
        await asyncio.wait_for(asyncio.gather(*answered), ANSWERED_WITHIN * timeout_s)
        # Whoever knows of nobody that is there, as all have moved since it heard of them, asks for as long as it may.
        await asyncio.wait_for(asyncio.gather(*workers), GIVES_UP_WITHIN_S)
        self.report.terms = leader.raft.term
        if not leader.body.config.auto_upgrade:
            await nemesis.raise_version(_newest(cluster, leader))
        await cluster.until(lambda: _is_raised(cluster), RAISED_WITHIN * timeout_s, "what all can run is active")
        await cluster.until_equal(EQUAL_WITHIN * timeout_s)
        client = cluster.client(deadline_s=SERVED_WITHIN * timeout_s)
        self._lists = await self._clients.read_lists(client)
        await cluster.until(self._reminding.is_done, RAISED_WITHIN * timeout_s, "what was scheduled and is due was run")
        await self._reminding.judge(client)
        await self._watching.judge(client, ANSWERED_WITHIN * timeout_s + GIVES_UP_WITHIN_S)
        if self._repeating.is_wanted:
            await self._repeating.judge(client, cluster)
        if self._signing.is_wanted:
            await self._signing.judge(client)
        if self._filling.is_wanted:
            await self._filling.judge(client)
        await client.close()

    def _judge(self, cluster: SimCluster, loop: SimLoop) -> None:
        report = self.report
        report.operations, report.virtual_s = len(self.history.operations), loop.time()
        report.unknown, report.refused = self._clients.unknown, self._clients.refused
        report.snapshots = sum(node.snapshots.installed for node in cluster.running)
        report.faults = {**cluster.faults(), **self._clients.met(self._lists)}
        findings = self._clients.judge(self._lists)
        report.undecided = findings.undecided
        if findings.problems:
            self.broken_at = findings.broken_at
            raise AssertionError("\n".join(findings.problems))


def _is_raised(cluster: SimCluster) -> bool:
    """Whether the highest version that all members can run is active, with its upgrades done."""
    leader = cluster.leader
    kept = leader.applier.runner.active.kept if leader is not None else None
    if leader is None or kept is None:
        return False
    return not kept.left and not kept.failed and kept.version >= _newest(cluster, leader)


def _newest(cluster: SimCluster, leader: Node) -> int:
    """The highest version that all members can run."""
    return min(cluster.nodes[member].machine.version for member in leader.raft.membership.all_nodes())


def replay_command(seed: int, *, size: int | None = None, duration_s: float = 20.0, clients: int = 4) -> str:
    """What to type to see a world again."""
    words = ["raftkv replay", str(seed)]
    words += [f"--size {size}"] if size is not None else []
    words += [f"--virtual {duration_s:g}"] if duration_s != 20.0 else []
    words += [f"--clients {clients}"] if clients != 4 else []
    return " ".join(words)


def simulate(seed: int, **settings: int | float) -> WorldReport:
    """Run the world of `seed`; raises `Failure` when it breaks a promise."""
    return Simulation(seed, **settings).run()  # type: ignore[arg-type]
