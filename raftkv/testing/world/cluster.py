"""A cluster of whole nodes in a simulated world: production code on simulated disks, network, clocks and time.

A node gets all its interfaces to the world from outside. Here they are simulated: a `SimDisk` that loses what was not
synced, a `MemoryNetwork` that can be cut, workers without threads, a clock that may be wrong, and dice that fall as the
seed says. One seed is one world.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any

from raftkv.client import Admin, Client, ClientOptions
from raftkv.config import Config
from raftkv.disk.simulated import Fault, SimDisk
from raftkv.errors import DiskError, NodeStopped
from raftkv.listener import ClientLimits
from raftkv.logs import LogHealth
from raftkv.machine import StateMachine
from raftkv.model import Member, NodeId
from raftkv.node import Node, Options, World, recover
from raftkv.server.serving import Serving, serve
from raftkv.state import MemoryStates
from raftkv.testing.world.clocks import WallClock
from raftkv.testing.world.harm import Harm
from raftkv.testing.world.loop import PROCESS, SimLoop
from raftkv.testing.world.operations import from_operation
from raftkv.testing.world.recorder import Recorder
from raftkv.testing.world.settings import CONFIG
from raftkv.testing.world.unheard import SINK
from raftkv.testing.world.variety import Habits, Variety
from raftkv.testing.world.workers import BACKGROUND, LOG, SCANS, THREADS, TRANSFERS, Crash, SimWorker
from raftkv.transport import MemoryNetwork, MemoryTransport

CLIENT = 0
"""Whom the network takes clients for."""

START_MS = 1_577_836_800_000


class _NodeStart:
    """One start of a node, with the interfaces that it was given."""

    def __init__(self, options: Options, transport: MemoryTransport, world: World) -> None:
        self.options = options
        self.transport = transport
        self.world = world
        self.starting: asyncio.Task[Node] | None = None
        """Who starts it; None once that is done."""


class SimNode:
    """One machine of the cluster: its disk and clock outlive the node's process."""

    def __init__(self, cluster: SimCluster, member: Member, place: NodeId | None = None) -> None:
        self.cluster = cluster
        self.member = member
        self.machine = cluster.machine
        """What its next process runs: the cluster's, or another version of it."""
        self.place = member.node_id if place is None else place
        """What the network calls this machine: its node's id, unless another machine has that id too."""
        self.disk = SimDisk()
        self.clock = WallClock(lambda: cluster.loop.time(), START_MS)
        self.dice = random.Random(cluster.dice.getrandbits(64))
        self.node: Node | None = None
        """The node that runs here; None while it recovers, too."""
        self._process: _NodeStart | None = None
        self.serving: Serving | None = None
        """None also while it starts."""
        self.workers: list[SimWorker] = []
        self.starts = 0
        self.moves = 0
        """How often its addresses have changed."""
        self.is_stopping = False
        self.is_frozen = False
        self.harm: Harm | None = None
        """What was done to its files, if anything: it need not come back, and nobody may be harmed by it."""
        self.durable_index = 0
        """What the log held durably when the node was last seen."""
        self.disk_s = 0.0005
        """About how long a piece of work on the disk takes."""
        self.log_fails = False
        """Whether whatever takes what it logs raises, as when its reader is gone."""

    @property
    def node_id(self) -> NodeId:
        return self.member.node_id

    @property
    def is_up(self) -> bool:
        """Whether there is a process; it may still be recovering."""
        return self._process is not None

    @property
    def config(self) -> Config | None:
        """The settings of the node's process; None while there is none."""
        return self._process.options.config if self._process is not None else None

    @property
    def is_starting(self) -> bool:
        """Whether the node's process is still recovering."""
        return self._process is not None and self._process.starting is not None

    @property
    def held_index(self) -> int:
        """The last entry that the node's log holds durably, even when the node has failed or is down."""
        node = self.node
        if node is None or self.is_impostor:
            return self.durable_index
        return node.opened.log.durable_index

    @property
    def is_impostor(self) -> bool:
        """Whether its files are not those with which the others have met it, so that it doesn't count any more."""
        return self.harm is not None and self.harm in (Harm.WIPED, Harm.OLDER_COPY)

    def world(self, rate: float = 1.0) -> World:
        """The node's interfaces to the world, with a clock of that rate; each start gets new workers."""
        self.workers = [
            SimWorker(lambda: self.dice.uniform(0.2, 2) * self.disk_s, self.crash) for _ in (*THREADS, SCANS)
        ]
        loop = asyncio.get_running_loop()
        self.clock.beat_at(rate)
        return World(
            disk=self.disk,
            states=MemoryStates(self.disk),
            log_worker=self.workers[LOG],
            background_worker=self.workers[BACKGROUND],
            transfer_worker=self.workers[TRANSFERS],
            scan_workers=(self.workers[SCANS],),
            sign_in_workers=(self.workers[SCANS],),
            clock=loop.time,
            pause=lambda seconds: None,
            now_ms=self.clock.now_ms,
            monotonic_ms=lambda: int(loop.time() * 1000 * rate),
            draw=self._draw,
            nonce=f"{self.place}.{self.starts}",
            log_health=LogHealth,  # what other worlds of this process lost is none of this one's business
        )

    def _take_line(self) -> None:
        if self.log_fails:
            self.cluster.fired["failing log"] += 1
            raise BrokenPipeError(errno.EPIPE, "simulated: nobody reads this log")

    def _draw(self, limit: int) -> int:
        if not self.cluster.draws_equal:
            return self.dice.randrange(limit)
        self.cluster.fired["equal time-outs"] += 1
        return 0

    def move(self) -> None:
        """Give the node other addresses, from its next start on."""
        self.moves += 1
        number = 1 + self.moves
        self.member = Member(self.node_id, f"peer-{self.node_id}:{number}", f"node-{self.node_id}:{number}")

    async def start(self, *, rebuild: bool = False) -> Node:
        """Start the node's process. Raises what `start_node` raises, and `NodeStopped` when it crashes meanwhile."""
        assert not self.is_up, f"node {self.node_id} is up"
        context = copy_context()
        context.run(PROCESS.set, self.place)
        context.run(SINK.set, self._take_line)
        # Set at once: the process may be stopped before its first step, and it must count as started then.
        process = self._process = context.run(self._make, rebuild)
        process.starting = asyncio.get_running_loop().create_task(self._start(process), context=context)
        try:
            return await process.starting
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            raise NodeStopped("it crashed while it started") from None

    def _make(self, rebuild: bool) -> _NodeStart:
        self.starts += 1
        self.is_stopping = False
        cluster = self.cluster
        is_founder = any(founder.node_id == self.node_id for founder in cluster.founders)
        founders = cluster.founders if is_founder else ()
        habits = Habits(cluster.config) if cluster.variety is None else cluster.variety.habits()
        cluster.fired.update(habits.kinds)
        options = Options(
            node_id=self.node_id,
            data_dir="/data",
            members=founders,
            peer_address=self.member.peer_address,
            client_address=self.member.client_address,
            rebuild=rebuild or self.harm is Harm.LOST_STATE,
            config=habits.config,
        )
        return _NodeStart(options, cluster.transport(self), self.world(habits.rate))

    async def _start(self, process: _NodeStart) -> Node:
        """Runs as the node's process: `freeze` stops all that it begins."""
        try:
            recovered = await recover(self.machine, process.options, process.transport, process.world)
            node = self.node = Node(recovered)
            serving = await serve(node, ClientLimits.of(self.cluster.config))
        except BaseException:
            if self._process is process:  # else it has crashed, and what is starting now is another process
                process.starting = None
                self.crash()
            raise
        process.starting = None
        for told in self.cluster.on_started:
            told(node)
        self.serving = serving
        self.cluster.network.listen(self.place, self.member.client_address, serving.listener.connection)
        return node

    def crash(self, *, power: bool = True) -> None:
        """The power goes out: what was not synced may be lost, as the dice say.

        Without `power` only the process ends: what it wrote is read by the next one, and still not durable.
        """
        if (process := self._process) is None:
            return
        self.cluster.note(f"{'crash' if power else 'kill'} {self.node_id}")
        self.thaw()
        node, self.node, self.serving, self._process = self.node, None, None, None
        if (starting := process.starting) is not None:
            self.cluster.fired["founding cut off"] += self.starts == 1
            process.starting = None
            starting.cancel()  # else it went on where it waits, and a process that is gone would listen
        if node is not None:
            if not self.is_impostor:
                self.durable_index = node.opened.log.durable_index
            node.abandon()
        else:
            process.transport.abort()
        for worker in self.workers:
            worker.die()
        self.cluster.network.drop(self.place)
        self.mend_disk()
        if power:
            self.disk.crash(self.dice)
        else:
            self.disk.kill()

    def mend_disk(self) -> None:
        """End all faults of the disk."""
        self.disk.fault = self.disk.read_fault = None
        self.disk.failed_write_keeps, self.disk.failed_sync_keeps = 0.0, False

    def freeze(self) -> None:
        """Stop the process, as SIGSTOP or the pause of a virtual machine does: time passes, and its inbox fills."""
        self.is_frozen = True
        self.cluster.network.freeze(self.place)
        self.cluster.loop.freeze(self.place)

    def thaw(self) -> None:
        """Let the process go on. It reads what came in meanwhile, before its timers tell it how late it is."""
        if self.is_frozen:
            self.is_frozen = False
            self.cluster.network.thaw(self.place)
            self.cluster.loop.thaw(self.place)

    def crash_at_operation(self, number: int) -> None:
        """The power goes out just before the `number`th operation on the disk from now."""

        def crash(kind: str, path: str) -> None:
            self.cluster.fired["crash in an operation"] += 1
            self.cluster.fired["crash in a recovery"] += self.is_starting
            if any(worker.is_working for worker in self.workers):
                raise Crash
            asyncio.get_running_loop().call_soon(self.crash)  # the loop itself is running this: crash right after it

        self.disk.fault = from_operation(number, crash)

    def hang(self, threads: Sequence[int] = THREADS) -> None:
        """Let the disk hang for these threads of the node, until `unhang`."""
        for number in threads:
            self.workers[number].stalled = True

    def unhang(self, threads: Sequence[int] = (*THREADS, SCANS)) -> None:
        """Let these threads go on with the work that they were given."""
        for number, worker in enumerate(self.workers):  # none of a node that has never been started
            worker.stalled &= number not in threads

    def hang_for(self, thread: int, seconds: float) -> None:
        """Let the disk hang for one of the node's threads for a while, independently of the others."""
        worker = self.workers[thread]
        worker.stalled = True
        self.cluster.loop.call_later(seconds, setattr, worker, "stalled", False)

    def fail_at_operation(self, number: int) -> None:
        """Let the `number`th disk operation from now fail, and every later one until a restart."""
        self.disk.fault = self._failing("failing disk", number)

    def cut_short_at_write(self, number: int, kept: float) -> None:
        """Let only the part `kept` of the `number`th write from now reach the disk, and fail all later writes until a
        restart."""
        self.disk.failed_write_keeps = kept
        self.disk.fault = self._failing("write cut short", number, "write")

    def fail_at_read(self, number: int) -> None:
        """Let the `number`th read from now fail, and every later one until a restart."""
        self.disk.read_fault = self._failing("failing read", number)

    def _failing(self, fault: str, number: int, only: str | None = None) -> Fault:
        def fail(kind: str, path: str) -> None:
            self.cluster.fired[fault] += 1
            raise DiskError(f"simulated: {kind} of {path} failed")

        return from_operation(number, fail, only)

    async def stop(self) -> None:
        """Stop the process gracefully, unless it has ended by itself or is still starting."""
        if self.node is None or self.serving is None:
            return
        node = self.node
        self.is_stopping = True
        await self.serving.stop()
        if self.node is node:
            if not self.is_impostor:
                self.durable_index = node.opened.log.durable_index
            self.node = self.serving = self._process = None
            self.cluster.network.drop(self.place)


class SimCluster:
    """Nodes, the network between them, and clients; to be used on a `SimLoop`."""

    def __init__(
        self,
        machine: type[StateMachine],
        size: int = 3,
        *,
        seed: int = 0,
        config: Config = CONFIG,
        delay_s: float = 0.001,
    ) -> None:
        self.machine = machine
        self.later: type[StateMachine] | None = None
        """A later version of the machine, if there is one to roll on."""
        self.config = config
        self.dice = random.Random(seed)
        self.network = MemoryNetwork(delay_s)
        self.events: list[str] = []
        self.fired: Counter[str] = Counter()
        """How often each kind of fault really met something."""
        self.recorder: Recorder | None = None
        """Who records what happens, if anybody does."""
        self.founders = tuple(self.member(node_id) for node_id in range(1, size + 1))
        self.nodes = {member.node_id: SimNode(self, member) for member in self.founders}
        self.variety: Variety | None = None
        """What sets nodes apart from each other, if anything does."""
        self.on_started: list[Callable[[Node], None]] = []
        """Who is told of each node that has recovered."""
        self.draws_equal = False
        """Whether all nodes draw the same: their time-outs are equal then, and as short as can be."""
        self.copies: list[SimNode] = []
        """Machines that run under the id of another one, on a copy of its files."""
        self.sign_in: dict[str, Any] = {}
        """How clients sign in that say nothing else: fields of `ClientOptions`."""
        self.wrongs: list[str] = []
        """What was let in or carried out and should have been refused."""

    @staticmethod
    def member(node_id: NodeId) -> Member:
        """The addresses of a node in this world."""
        return Member(node_id, f"peer-{node_id}:1", f"node-{node_id}:1")

    def faults(self) -> dict[str, int]:
        """How often each kind of fault has had an effect so far."""
        disks = [sim.disk for sim in self.nodes.values()]
        counted = {
            "full disk": sum(disk.times_full for disk in disks),
            "lost unsynced changes": sum(disk.lost_changes for disk in disks),
        }
        return {**self.fired, **{kind: times for kind, times in counted.items() if times}}

    def transport(self, sim: SimNode) -> MemoryTransport:
        """Make the transport of a node's process."""
        # A recorder knows nodes by their ids.
        recorder = self.recorder if sim.place == sim.node_id else None
        kind = MemoryTransport if recorder is None else recorder.transport
        address, place = sim.member.peer_address, sim.place
        return kind(self.network, sim.node_id, address, config=self.config, draw=sim.dice.randrange, place=place)

    def note(self, event: str) -> None:
        """Write down an event, for the text of a failure."""
        self.events.append(f"{asyncio.get_running_loop().time():.3f} {event}")

    def add(self, node_id: NodeId) -> SimNode:
        """Add a machine. Its node joins when it is started and added to the membership."""
        node = self.nodes[node_id] = SimNode(self, self.member(node_id))
        return node

    async def start(self) -> None:
        """Start every node that is not up."""
        for node in self.nodes.values():
            if not node.is_up:
                await node.start()

    async def stop(self) -> None:
        """End every node."""
        for node in self.nodes.values():
            if node.is_up:
                await node.stop()

    @property
    def loop(self) -> SimLoop:
        """The loop, whose time is the world's time."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop), "a simulated world needs a SimLoop"
        return loop

    @property
    def running(self) -> list[Node]:
        """The nodes that are up and have not stopped by themselves."""
        return [node.node for node in self.nodes.values() if node.node is not None and node.node.failure is None]

    @property
    def leader(self) -> Node | None:
        """The node that leads in the highest term; None without one."""
        leaders = [node for node in self.running if node.raft.is_leader]
        return max(leaders, key=lambda node: node.raft.term, default=None)

    @property
    def addresses(self) -> list[str]:
        return [node.member.client_address for node in self.nodes.values()]

    def client(self, *node_ids: NodeId, machine: type[StateMachine] | None = None, **options: Any) -> Client[Any]:
        """A client of the machine (or of another version of it) that is told of some nodes, or of all; `options` are
        fields of `ClientOptions`."""
        settings = ClientOptions(**{**self.sign_in, **options})
        chance = random.Random(self.dice.getrandbits(64))
        return Client(machine or self.machine, self._seeds(node_ids), options=settings, dial=self._dial, chance=chance)

    def admin(self, *node_ids: NodeId, **options: Any) -> Admin:
        """An operator's client that is told of some nodes, or of all; `options` are fields of `ClientOptions`."""
        addresses, chance = self._seeds(node_ids), random.Random(self.dice.getrandbits(64))
        return Admin(addresses, options=ClientOptions(**{**self.sign_in, **options}), dial=self._dial, chance=chance)

    def _seeds(self, node_ids: Sequence[NodeId]) -> list[str]:
        return [self.nodes[node_id].member.client_address for node_id in node_ids] or self.addresses

    async def _dial(self, factory: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
        await self.network.dial(CLIENT, factory, f"{host}:{port}")

    @property
    def election_timeout_s(self) -> float:
        """The election time-out in seconds of the node with the slowest clock; nodes draw one to two of it."""
        up = [sim for sim in self.nodes.values() if sim.node is None or sim.node.failure is None]
        configs = [self.config, *(sim.config for sim in up if sim.config is not None)]
        return max(config.election_timeout_ms for config in configs) / 1000

    async def until(self, condition: Callable[[], Any], within_s: float = 30.0, what: str = "") -> None:
        """Let time pass until `condition` holds. Raises `AssertionError` after `within_s` virtual seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while not condition():
            assert loop.time() < end, f"not within {within_s:g} s: {what or condition}\n" + self.describe()
            await asyncio.sleep(0.01)

    async def until_leader(self, within_s: float = 30.0) -> Node:
        """Wait until there is a leader that has an entry committed, and return its node."""
        await self.until(lambda: self.leader is not None and self.leader.raft.commit_index > 0, within_s, "a leader")
        assert self.leader is not None
        return self.leader

    async def until_equal(self, within_s: float = 60.0) -> None:
        """Wait until every member has applied everything, then compare states."""

        def equal() -> bool:
            leader = self.leader
            if leader is None:
                return False
            members = leader.raft.membership.all_nodes()
            found = [self.nodes[member].node for member in members if member in self.nodes]
            last = leader.raft.log.last_index
            return all(
                node is not None and node.failure is None and node.applier.applied_index == last for node in found
            )

        await self.until(equal, within_s, "all members at the same index")
        leader = await self.until_leader()
        members = leader.raft.membership.all_nodes()
        digests = {node.applier.runner.applied.digest for node in self.running if node.node_id in members}
        assert len(digests) == 1, f"digests differ: {digests}\n" + self.describe()

    def describe(self) -> str:
        """A line for each node, then the last events."""
        lines = []
        for sim in self.nodes.values():
            node = sim.node
            if node is None:
                lines.append(f"node {sim.node_id} is down")
            else:
                lines.append(node.raft.describe() + (f" STOPPED: {node.failure}" if node.failure else ""))
        return "\n".join([*lines, *self.events[-30:]])
