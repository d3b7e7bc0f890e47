"""A node: builds its parts, passes ticks on to them, and stops them when going on could lose data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raftkv.access import Access
from raftkv.errors import DiskError, Diverged, NodeStopped, SafetyViolation, StateCorruption, WrongProcess
from raftkv.forks import leave, let_go_of_loop, tell_of_fork
from raftkv.logs import EventLog
from raftkv.machine import StateMachine
from raftkv.model import Index, Member, NodeId
from raftkv.node.accounts import Accounts
from raftkv.node.applier import AnswerClock, Applier
from raftkv.node.backups import Backups
from raftkv.node.body import Body
from raftkv.node.clock import ClockWatch
from raftkv.node.directory import close_directory
from raftkv.node.divergence import Divergence
from raftkv.node.engine import Engine
from raftkv.node.housekeeping import Housekeeping
from raftkv.node.leadership import Leadership
from raftkv.node.links import Links
from raftkv.node.membership import MembershipWatch
from raftkv.node.orders import Orders
from raftkv.node.paths import Options
from raftkv.node.peers.peers import Peers
from raftkv.node.peers.removal import removed, removed_since
from raftkv.node.polls import Polls
from raftkv.node.recovery import Hosting, NoHost, Recovered, recover
from raftkv.node.report import DiskParts, Report
from raftkv.node.requests import Requests
from raftkv.node.room import DiskRoom
from raftkv.node.scans import Scans
from raftkv.node.scrub import Scrubber
from raftkv.node.snapshots import Snapshotter
from raftkv.node.statefiles import mark_unfit
from raftkv.node.status import NodeStatus
from raftkv.node.ticks import Ticks
from raftkv.node.timers import Timers
from raftkv.node.upgrades import Upgrades
from raftkv.node.views import Views
from raftkv.node.waiters import Waiters
from raftkv.node.waiting import Commands, Queries
from raftkv.node.watchdog import DiskWatch
from raftkv.node.watches import Watches
from raftkv.node.workers import Worker
from raftkv.node.world import World
from raftkv.node.writer import Writer
from raftkv.transport import Transport
from raftkv.wire import Members

logger = EventLog(__name__)


class Node:
    """One member of a cluster: a replicated `StateMachine`.

    ```python
    options = Options(node_id=1, data_dir="n1", members=members)
    node = await start_node(Inventory, options, transport, World.real())
    ```

    A node is made of a directory that has been recovered, so it is complete from the start. All methods are called on
    the event loop's thread. If something makes the node unfit to go on (a damaged file, a failed sync, a diverged
    state), it stops: `stopped` gets the reason, requests get `NodeStopped`, and no vote or acknowledgement leaves the
    node any more.
    """

    def __init__(self, recovered: Recovered) -> None:
        self._loop = asyncio.get_running_loop()
        self._recovered = recovered
        self.opened = opened = recovered.opened
        self.raft = raft = recovered.raft
        self.transport = transport = recovered.transport
        world = recovered.world
        self.body = body = Body(
            raft, recovered.options, opened.live, world, transport, wake=lambda: self.engine.wake(), fail=self.fail
        )
        self._ticks = Ticks(body, self._tick, self._ticked)
        self.stopped: asyncio.Future[NodeStopped | None] = self._loop.create_future()
        """Done when the node has stopped; the result is the reason, or None after a call of `stop`."""
        self.waiters = Waiters(body)
        self.clock = ClockWatch(raft, body.config, world.now_ms, world.monotonic_ms)
        self.commands, self.queries = Commands(), Queries(self.opened.vote.boot)
        self._build_state_side(recovered)
        self.peers = Peers(
            body,
            recovered.machine,
            founding=opened.founding,
            vote=opened.vote,
            starts=opened.starts,
            known=opened.known,
            moved=opened.moved,
            active=lambda: self.applier.runner.active,
            access=lambda: recovered.in_force.access,
        )
        self._membership = MembershipWatch(raft, self.peers.membership_changed)
        self.upgrades = Upgrades(
            body,
            recovered.machine,
            self.applier,
            self.waiters,
            self.peers.admission.told,
            hold=lambda on: self.engine.hold(on),
        )
        self.divergence = Divergence(body, self.applier, self.commands, self.queries)
        self.snapshots = Snapshotter(
            body,
            recovered,
            applier=self.applier,
            scans=self.scans,
            writer=self.writer,
            cluster_id=lambda: self.peers.belonging.cluster_id,
            take_in=lambda message: self.engine.step(message),
        )
        self._build_loops()
        self.timers = Timers(body, self.applier, self.engine, recovered.firings)
        self.polls = Polls(body, self.engine, self.applier, self.scans)
        self.watches = Watches(body, self.engine, self.applier, self.scans, lambda: self.cluster_id)
        self.leadership = Leadership(body, self.applier)
        self.links = Links(body, self.engine, self.applier, self.peers, self.divergence, self.snapshots)
        self._build_doors(recovered)
        recovered.taken()
        tell_of_fork(self)

    def _build_state_side(self, recovered: Recovered) -> None:
        """Build the parts that apply commands, answer queries, and write the log."""
        body, config, world = self.body, self.body.config, self.body.world
        self.views = Views(config, world.clock, world.draw)
        self.scans = Scans(
            world.scan_workers,
            config,
            world.clock,
            world.pause,
            runner=lambda: self.applier.runner,
            on_failure=self.fail,
            others_wait=lambda: len(self.commands) > 0 or self.queries.count > 0 or not self.writer.is_idle,
            views=self.views,
        )
        self.applier = Applier(
            recovered.runner,
            self.opened.log,
            world.log_worker,
            self.commands,
            self.queries,
            batch_entries_max=config.apply_batch_entries_max,
            on_applied=self._applied,
            on_failure=self.fail,
            clock=AnswerClock(world.clock, self.clock.present_ms),
            go_on=self.scans.begin,
        )
        self.writer = Writer(
            world.log_worker,
            self.opened.log,
            self.opened.vote,
            clock=world.clock,
            on_durable=lambda write, messages: self.engine.durable(write, messages),
            on_failure=body.fail,
        )

    def _build_loops(self) -> None:
        """Build the parts that work by a timer."""
        body, opened, config, world = self.body, self.opened, self.body.config, self.body.world
        self.scrubber = Scrubber(
            disk=world.disk,
            worker=world.background_worker,
            log=opened.log,
            snapshots=opened.snapshots,
            state_directory=body.paths.state,
            state_rot=self.snapshots.state_rot,
            rate_bytes_s=config.scrub_rate_bytes_s,
            interval_s=config.scrub_interval_s,
            on_snapshot=self.snapshots.damaged,
            on_failure=self.fail,
        )
        self.engine = Engine(
            body,
            log=opened.log,
            writer=self.writer,
            applier=self.applier,
            commands=self.commands,
            queries=self.queries,
            count_time=self._ticks.count,
            send_snapshot=self.snapshots.send,
            install_snapshot=self.snapshots.install,
            on_role=self._role_changed,
        )
        watch = DiskWatch(config)
        self.room = DiskRoom(self.raft, self.engine, watch)
        self._housekeeping = Housekeeping(
            body,
            watch,
            self.room,
            self.writer,
            (
                lambda _: self.views.sweep(),
                self.clock.look,
                lambda _: self.peers.gossip.tell_again(),
                self.peers.ending.maybe_end,
                lambda _: self.peers.places.maybe_write_moved(),
                lambda _: self.snapshots.look(),
                lambda now: self.report.look(now),
            ),
        )

    def _build_doors(self, recovered: Recovered) -> None:
        """Build the parts that clients and operators call."""
        self.requests = Requests(
            self.body,
            self.engine,
            self.applier,
            self.scans,
            self.views,
            self.peers.ending,
            self.polls,
            self.watches,
            explain=self.upgrades.explained,
            explaining=self.upgrades.explaining,
        )
        self.orders = Orders(
            self.body,
            self.waiters,
            was_met=self.peers.was_met,
            clock=self.clock,
            snapshots=self.snapshots,
            upgrades=self.upgrades,
            backups=Backups(
                self.body, recovered.machine, self.engine, self.applier, self.snapshots, self.peers.belonging
            ),
            accounts=Accounts(self.body, self.engine, self.applier, self.peers.admission.told),
        )
        self.report: Report = Report(
            self.body,
            recovered,
            engine=self.engine,
            applier=self.applier,
            peers=self.peers,
            snapshots=self.snapshots,
            disk=DiskParts(self.writer, self.scrubber, self.room),
            clock=self.clock,
            deciding=(self.upgrades, self.timers),
            parked=lambda: len(self.polls) + len(self.watches),
        )

    async def start(self) -> None:
        """Take part in the cluster. Raises `NodeRemoved` if the node was removed, `DiskError`, or `ConfigError`; the
        node is closed then."""
        raft, world = self.raft, self.body.world
        try:
            if (since := removed_since(raft, raft.node_id)) is not None:
                raise removed(raft.node_id, since)
            self.room.saw(world.disk.free(self.body.paths.root))
            await self.transport.start(self.links)
        except BaseException:
            self.body.is_closing = True
            self.transport.abort()
            await world.background_worker.run(close_directory, self.opened)
            raise
        self._membership.look()
        self.upgrades.look()
        self._ticks.begin()
        self._housekeeping.begin()
        self.scrubber.start()
        if raft.membership.voters == (raft.node_id,):
            self.engine.observe_clocks()
            raft.campaign()  # there is no other voter, so there is no heartbeat to wait for
            self.engine.wake()
        if not raft.wants_snapshot:
            self.applier.hand_in(raft.commit_index)
        logger.info(
            "node_started",
            node=raft.node_id,
            cluster=self.cluster_id,
            term=raft.term,
            last=raft.log.last_index,
            applied=raft.applied_index,
            role=type(raft.role).__name__.lower(),
            durability="fsync before every acknowledgement",
        )

    async def stop(self) -> None:
        """Stop taking part, wait for the disk, and close everything. What was acknowledged is durable already."""
        body, world = self.body, self.body.world
        if body.is_closing:
            return
        body.is_closing = True
        failure = body.failure
        self._ticks.stop()
        self._housekeeping.stop()
        self._stop_parts(failure or NodeStopped("the node was asked to stop"))
        await self.transport.close()
        await self.snapshots.wait()
        await self.scans.hold()
        await self.writer.idle()
        await self._close_on(world.log_worker, self._close_log)
        await self._close_on(world.background_worker, lambda: self.applier.runner.store.close())
        await self._close_on(world.background_worker, self._close_files)
        await world.close()
        if not self.stopped.done():
            self.stopped.set_result(body.failure)
        if body.failure is None:
            logger.info("node_stopped", node=body.node_id)
        else:
            logger.error("node_stopped", node=body.node_id, reason=str(body.failure))
        if body.failure is not None and body.failure is not failure:
            raise body.failure

    def _stop_parts(self, reason: NodeStopped) -> None:
        """Begin no more work; whatever waits ends with `reason`."""
        self.engine.stop(reason)
        self.applier.stop()
        self.scrubber.stop()
        self.scans.stop(reason)
        self.polls.stop(reason)
        self.watches.stop(reason)
        self.leadership.look()
        self.snapshots.stop()
        self.waiters.look()

    def abandon(self) -> None:
        """Stop at once and close nothing, as a crash does; for simulated worlds."""
        self.body.is_closing = True
        self._ticks.stop()
        self._housekeeping.stop()
        self.engine.stopped = True
        self.applier.stop()
        self.scrubber.stop()
        self.snapshots.abandon()
        self.transport.abort()  # else its links would go on dialling, and a dead node would answer handshakes

    def after_fork(self) -> None:
        """In a child, the node is the parent's: it has no threads here, and its files must not be touched."""
        leave(self)  # else the child's end would close the store, which writes what is in its memory
        if self.body.is_closing:
            return
        let_go_of_loop(self._loop)
        self.body.is_closing = True
        self.body.failure = WrongProcess(
            f"node {self.node_id} runs in the process that started it; this is a child made by fork, "
            "which can ask it through a client, or start a node of its own"
        )

    async def _close_on(self, worker: Worker, close: Callable[[], None]) -> None:
        try:
            await worker.run(close)
        except (DiskError, StateCorruption) as exc:
            if self.failure is None:
                self._say_failed(self._set_failure(exc))
            else:
                # A disk that has failed once fails again; that must not hide why the node has stopped.
                logger.warning("not_closed", node=self.node_id, error=str(exc))

    def _close_log(self) -> None:
        opened = self.opened
        if self.failure is None:
            # So that a start notices if the log was replaced by an older one while the node was down.
            opened.vote.write(opened.vote.hard_state, opened.log.durable_index)
        opened.log.close()

    def _close_files(self) -> None:
        self.opened.vote.close()
        self.opened.lock.release()

    def fail(self, error: BaseException) -> None:
        """Stop serving and voting at once, because going on could lose data. `stopped` gets the reason."""
        if self.failure is not None:
            return
        if not isinstance(error, NodeStopped):
            wrapped = SafetyViolation(f"{type(error).__name__}: {error}: keep the files and report it")
            wrapped.__cause__ = error
            error = wrapped
        failure = self._set_failure(error)
        self._stop_parts(failure)
        if not self.stopped.done():
            self.stopped.set_result(failure)
        self._say_failed(failure)

    def _set_failure(self, error: NodeStopped) -> NodeStopped:
        """Make `error` the reason why this node has stopped; returns it, with what to do if it lacked that."""
        if isinstance(error, StateCorruption):
            hint = "Start the node again: it rebuilds its state from a snapshot and the log, or says what it lacks"
            error = StateCorruption(f"{error}. {hint}").with_traceback(error.__traceback__)
        self.body.failure = error
        if isinstance(error, StateCorruption | Diverged):
            # The state would open without an error: RocksDB checks a block only when it is read, and can't see that
            # a state has diverged.
            world = self.body.world
            world.background_worker.run(mark_unfit, world.disk, self.body.paths, error)
        return error

    def _say_failed(self, error: NodeStopped) -> None:
        logger.error("node_failed", node=self.node_id, error=type(error).__name__, reason=str(error))

    def _tick(self, count: int) -> None:
        """`count` ticks have passed."""
        self.engine.tick(count)
        self.divergence.tick()
        self.upgrades.look()
        self.timers.look()

    def _ticked(self) -> None:
        """Called each time the ticks were counted, even when none had passed."""
        if not self.body.has_ended:
            self._membership.look()
            self.polls.look()
            self.watches.tick()
            self.leadership.look()
        self.waiters.look()

    def _applied(self, index: Index) -> None:
        if self.raft.installing is None:
            self.raft.applied(index)
        if self.engine.holds or self.applier.runner.active.is_upgrading:
            self.upgrades.look()
        self.timers.applied(index)
        self.polls.look()
        self.watches.look()
        self.leadership.look()

    def _role_changed(self) -> None:
        raft = self.raft
        self.report.elections += raft.is_leader
        self.divergence.role_changed()
        self.polls.role_changed()
        self.leadership.look()
        self.snapshots.role_changed()
        logger.info(
            "role_changed",
            node=raft.node_id,
            role=type(raft.role).__name__.lower(),
            term=raft.term,
            leader=raft.leader,
            last=raft.log.last_index,
            commit=raft.commit_index,
        )
        self._recovered.host.role_changed()

    @property
    def failure(self) -> NodeStopped | None:
        """Why the node has stopped; None while it runs, and None after a mere call of `stop`."""
        return self.body.failure

    @property
    def is_closing(self) -> bool:
        """Whether `stop` was called."""
        return self.body.is_closing

    @property
    def node_id(self) -> NodeId:
        """The id that this node has in the membership."""
        return self.body.node_id

    @property
    def cluster_id(self) -> str:
        """Empty before the node has joined a cluster."""
        return self.peers.belonging.cluster_id

    @property
    def fingerprint(self) -> str:
        """Of the state machine: its name, and a hash of its methods and tables."""
        return self._recovered.machine.fingerprint()

    @property
    def leader(self) -> Member | None:
        """The leader as far as this node knows, with its addresses."""
        return self.peers.places.leader

    @property
    def members(self) -> Members:
        """Where the members listen for clients, by the newest membership that this node knows to be committed."""
        return self.peers.places.for_clients()

    def watch_members(self, changed: Callable[[], None]) -> None:
        """Have `changed` called when `members` may have changed. There is one watcher at most."""
        self.peers.places.watch(changed)

    @property
    def access(self) -> Access:
        """Who may do what, as far as this node has applied it."""
        return self._recovered.in_force.access

    def watch_access(self, changed: Callable[[], None]) -> None:
        """Have `changed` called when `access` is another one, or has changed. There is one watcher at most."""
        self._recovered.in_force.watch(changed)

    def status(self) -> NodeStatus:
        """What an operator may want to know. Raises `WrongProcess` in a child made by fork."""
        return self.report.status()


async def start_node(
    machine: type[StateMachine], options: Options, transport: Transport, world: World, host: Hosting = NoHost()
) -> Node:
    """Recover what is on disk, and start a node on it. Raises as `recover` and `Node.start` do."""
    node = Node(await recover(machine, options, transport, world, host))
    await node.start()
    return node
