"""Runs the node of one `SyncObj`: its event loop, its one TCP port, and its periodic work."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from raftkv.client import Admin, Client, ClientOptions, Dial
from raftkv.core.roles import Candidate, Leader, PreCandidate
from raftkv.disk import RealDisk
from raftkv.errors import NodeStopped, RaftKVError, Unavailable
from raftkv.listener import ClientLimits
from raftkv.logs import TextLog
from raftkv.machine import Runner
from raftkv.model import Index
from raftkv.node import Node, Options, World, recover
from raftkv.node.workers import settle
from raftkv.server.serving import serve
from raftkv.state import Store
from raftkv.syncobj.calls import Callback, Calls
from raftkv.syncobj.codeversions import Switches, explained
from raftkv.syncobj.door import DoorStreams
from raftkv.syncobj.duties import BARRIER, Duties
from raftkv.syncobj.founding import CLUSTER_NAME, Seeker
from raftkv.syncobj.machine import SyncObjMachine, machine_of
from raftkv.syncobj.objects import Objects
from raftkv.syncobj.settings import HostSettings
from raftkv.transport import Mesh, TransportLimits

logger = TextLog("raftkv.syncobj")
T = TypeVar("T")

BEAT_S = 0.05
"""How often the host looks at what has no event of its own."""
STOP_S = 15.0
"""How long `destroy` waits for the disk; then the thread is left to finish alone."""


class Host:
    """The node, its event loop, and the loop's thread (unless the application ticks it).

    A method says if it may be called on other threads than the loop's.
    """

    def __init__(self, settings: HostSettings, conf: Any, others: set[str], objects: Objects) -> None:
        self.settings = settings
        self.conf = conf
        self.others = others
        self.objects = objects
        self.calls = Calls(
            size_max=lambda: conf.commandsQueueSize,
            has_leader=lambda: self.leader_known,
            wait=lambda: bool(conf.commandsWaitLeader),
        )
        self.node: Node | None = None
        self._switches = Switches(
            admin=self.admin,
            begin=self.begin_task,
            catch_up=self.confirmed_barrier,
            tell=self.tell,
            wait=lambda: bool(conf.commandsWaitLeader),
        )
        self.duties = Duties(conf, objects, self.begin_task, settings.config.election_timeout_ms / 4000)
        self.ready = False
        self.error: RaftKVError | None = None
        self.started_at = time.monotonic()
        self._state = 0
        self._loop = new_loop()
        self._thread: threading.Thread | None = None
        self.on_tick: list[Callable[[], Any]] = []
        self.started = threading.Event()
        """Set when the node runs, or will never do so."""
        self._settled = threading.Event()
        self._stopped = threading.Event()
        self._ending = False
        self._started: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def begin(self) -> None:
        """Start the node. Returns when it runs, or when it has to wait, for its address or to be added to the cluster.

        Raises the error that keeps it from starting.
        """
        if self.conf.autoTick:
            self._thread = threading.Thread(target=self._serve, name="raftkv-syncobj", daemon=True)
            self._thread.start()
        else:
            self._started = self._loop.create_task(self._start())
            while not self._settled.is_set():
                self.tick(BEAT_S)
        self._settled.wait()
        if self.error is not None:
            self.end()
            raise self.error

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._started = self._loop.create_task(self._start())
        self._loop.run_forever()
        self._loop.close()
        self._stopped.set()

    def tick(self, seconds: float) -> None:
        """Run the loop when it has no thread: until a call of this process was answered, or for `seconds`."""
        delivered = self.calls.delivered
        end = time.monotonic() + seconds
        while not self._loop.is_closed():
            self._loop.call_later(max(0.0, min(0.002, end - time.monotonic())), self._loop.stop)
            self._loop.run_forever()
            if time.monotonic() >= end or self.calls.delivered != delivered:
                return

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run `work` on the loop and wait for it; from any other thread. Raises `TimeoutError`, or what `work` does."""
        if self._thread is None:
            return self._loop.run_until_complete(asyncio.wait_for(work, timeout))
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("this waits for the thread that calls it: don't call it from a callback")
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout), self._loop).result()

    def spawn(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Begin `work` on the loop; from any thread."""
        self._loop.call_soon_threadsafe(lambda: self.begin_task(work()))

    def end(self) -> None:
        """Stop the node; may be repeated. From any thread, and except on the loop's own it waits for the end."""
        if not self._ending:
            self._ending = True
            if self._thread is None:
                self._loop.run_until_complete(self._stop())
                self._loop.close()
                self._stopped.set()
            else:
                asyncio.run_coroutine_threadsafe(self._stop(), self._loop)
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._stopped.wait(STOP_S)

    @property
    def alive(self) -> bool:
        """Whether the loop's thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def leader_known(self) -> bool:
        """Whether this node knows of a leader. From any thread."""
        return self.node is not None and self.node.failure is None and self.node.raft.leader is not None

    async def _start(self) -> None:
        try:
            await self._open()
        except asyncio.CancelledError:
            raise
        except BaseException as exc:  # noqa: BLE001 (it is raised again where `begin` waits, or logged)
            error = explained(exc) if isinstance(exc, RaftKVError) else NodeStopped(f"{type(exc).__name__}: {exc}")
            error.__cause__ = exc.__cause__
            self.error = error
            logger.error("the node could not start: %s", error)
            self.calls.end()
        finally:
            self.started.set()
            self._settled.set()

    def _wait(self, reason: object) -> None:
        """Let `begin` return, because what the start waits for now may never happen."""
        if not self._settled.is_set():
            logger.warning("not started yet: %s", reason)
        self._settled.set()

    async def _open(self) -> None:
        settings = self.settings
        directory = settings.data_dir
        if directory is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="raftkv-syncobj-", ignore_cleanup_errors=True)
            directory = self._temporary.name
        seeker = Seeker(settings.address, self.others, settings.ssl_client, settings.data_dir is None, self._wait)
        place = await seeker.find(RealDisk(), directory)
        limits = TransportLimits.of(settings.config)
        streams = DoorStreams(
            settings.host,
            settings.port,
            limits=limits,
            retry_s=self.conf.bindRetryTime,
            retries_max=self.conf.maxBindRetries if self.conf.autoTick else max(1, self.conf.maxBindRetries),
            on_refused=self._wait,
            ssl_server=settings.ssl_server,
            ssl_client=settings.ssl_client,
        )
        draw = random.SystemRandom().randrange
        mesh = Mesh(place.node_id, streams, config=settings.config, draw=draw, limits=limits)
        options = Options(
            node_id=place.node_id,
            data_dir=directory,
            members=place.members,
            cluster_name=CLUSTER_NAME,
            peer_address=settings.address,
            config=settings.config,
        )
        self._machine = machine_of(self.objects, self.objects.codec.name, self.objects.methods)
        self.objects.origin = secrets.randbits(62)
        self.objects.on_results = self.calls.results
        world = World.real()
        try:
            node = Node(await recover(self._machine, options, mesh, world, self))
            self._serving = await serve(node, ClientLimits.of(settings.config))
        except BaseException:
            await world.close()
            raise
        self.node = node
        self.role_changed()
        streams.clients = self._serving.listener.connection
        self._begin_calls()
        self._beat()
        self.begin_task(self._become_ready())

    def _begin_calls(self) -> None:
        settings, node = self.settings, self.node
        assert node is not None
        options = ClientOptions(deadline_s=10.0)
        addresses = [settings.address, *sorted(self.others)]
        self._client: Client[SyncObjMachine] = Client(
            self._machine, addresses, options=options, dial=self._dialler(), ssl=settings.ssl_client
        )
        self.calls.begin(self._client, self.objects.origin, lambda: node.applier.applied_index, self._catch_up)

    def _catch_up(self) -> None:
        """Ask the leader what is committed, instead of waiting for its next heartbeat. It may fail without harm."""
        node = self.node
        if node is not None:
            with contextlib.suppress(RaftKVError):
                node.requests.query(BARRIER, False, lambda index, result: None)

    def _dialler(self) -> Dial:
        """Connect as clients do, but to this node where it listens: its address may lead elsewhere from here."""
        settings = self.settings

        async def dial(factory: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
            if f"{host}:{port}" == settings.address and settings.host not in ("0.0.0.0", "::"):  # noqa: S104
                host, port = settings.host, settings.port
            await asyncio.get_running_loop().create_connection(factory, host, port, ssl=settings.ssl_client)

        return dial

    async def _stop(self) -> None:
        self._ending = True
        self.calls.end()
        tasks = [task for task in (self._started, *self._tasks) if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._switches.end()
        try:
            if self.node is not None:
                # When a whole cluster ends, its last nodes would wait in vain for a majority.
                await self._client.close(end_session=False)
                await self._serving.stop()
        except Exception:  # an error here must not keep the rest from being closed
            logger.exception("the node did not stop cleanly")
        self.objects.release()
        if self._temporary is not None:
            self._temporary.cleanup()
        if self._thread is not None:
            self._loop.call_soon(self._loop.stop)

    def begin_task(self, work: Coroutine[Any, Any, Any]) -> None:
        """Begin `work` as a task, which is cancelled when the node ends."""
        if self._ending:
            work.close()
            return
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def barrier(self) -> Index:
        """Wait until this node has applied all that any node had acknowledged before this call; returns the index.

        Raises `NotAccepted` when no leader confirms it now.
        """
        if self.node is None:
            raise Unavailable("the node has not started")
        done: asyncio.Future[Index] = asyncio.get_running_loop().create_future()

        def answered(index: Index, result: bytes | RaftKVError) -> None:
            settle(done, result if isinstance(result, RaftKVError) else index)

        self.node.requests.query(BARRIER, False, answered)
        return await done

    async def confirmed_barrier(self) -> Index:
        """As `barrier`, but try again until a leader confirms it."""
        while True:
            try:
                return await self.barrier()
            except NodeStopped:
                raise
            except RaftKVError:
                await asyncio.sleep(BEAT_S)

    async def _become_ready(self) -> None:
        await self.confirmed_barrier()
        self.ready = True
        self.tell(self.conf.onReady)

    def tell(self, callback: Callable[..., Any] | None, *args: Any) -> None:
        """Call a callback of the application, if there is one."""
        if callback is None:
            return
        try:
            callback(*args)
        except Exception:  # what an application's callback raises harms nobody else
            logger.exception("a callback of the application failed")

    def switch(self, code_version: int, callback: Callback | None) -> None:
        """Enable a code version, after the calls that were made before. From any thread."""
        self.calls.put(partial(self._switches.begin, code_version), callback)

    def version_changed(self, old: int, new: int) -> None:
        """Called when the cluster has switched to another code version."""
        self._loop.call_soon(self.tell, self.conf.onCodeVersionChanged, old, new)

    def loaded(self, runner: Runner) -> None:
        """Load the objects from the machine's state, at the start and after a snapshot was installed."""
        assert isinstance(runner.instance, SyncObjMachine)
        self.objects.load(runner.instance)

    async def before_checkpoint(self, store: Store) -> None:
        """Make an image, if the calls since the last one have grown as large as it is."""
        await self.duties.make_image(store)

    def role_changed(self) -> None:
        """Called when the node's role, term or leader has changed."""
        state = self.state
        old, self._state = self._state, state
        if old != state:
            self._loop.call_soon(self.tell, self.conf.onStateChanged, old, state)

    @property
    def state(self) -> int:
        """The role as PySyncObj numbers it: follower 0, candidate 1, leader 2."""
        if self.node is None or self.node.failure is not None:
            return 0
        role = self.node.raft.role
        return 2 if isinstance(role, Leader) else 1 if isinstance(role, Candidate | PreCandidate) else 0

    def _beat(self) -> None:
        node = self.node
        if self._ending or node is None:
            return
        if node.failure is not None:
            self.error = explained(node.failure)
            logger.error("the node has stopped: %s", self.error)
            self.calls.end()
            return
        self._loop.call_later(BEAT_S, self._beat)
        self.calls.settle_passed()
        for callback in list(self.on_tick):
            self.tell(callback)
        self.duties.beat(node)

    def admin(self) -> Admin:
        """An operator's client, for changes of the membership; it finds the leader."""
        settings = self.settings
        addresses = [settings.address, *sorted(self.others)]
        return Admin(addresses, dial=self._dialler(), ssl=settings.ssl_client)


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop of uvloop if that is installed, else one of asyncio."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
