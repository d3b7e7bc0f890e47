"""A node: opens its directory, runs the engine, and answers for both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from raftkv import failpoints
from raftkv.addresses import is_elsewhere
from raftkv.core.raft import Raft
from raftkv.core.roles import Leader
from raftkv.errors import (
    ChangeRefused,
    DiskError,
    Diverged,
    Indeterminate,
    InvalidArgument,
    NodeStopped,
    NotCaughtUp,
    NotLeader,
    SafetyViolation,
    StateCorruption,
    Unavailable,
    WrongProcess,
)
from raftkv.forks import leave, let_go_of_loop, tell_of_fork
from raftkv.logs import EventLog
from raftkv.machine import CommandDone, QueryDone, Runner, StateMachine
from raftkv.model import Index, Member, Membership, NodeId
from raftkv.node.applier import Applier
from raftkv.node.clock import ClockWatch
from raftkv.node.directory import Opened, close_directory, is_new, open_directory
from raftkv.node.divergence import DigestComparer
from raftkv.node.engine import Engine
from raftkv.node.leaderless import Leaderless
from raftkv.node.links import Links
from raftkv.node.members import check_answers, check_is_there, who_answers, with_addresses, with_learner, without
from raftkv.node.moved import Moved
from raftkv.node.paths import Options, Paths
from raftkv.node.ports import Worker, error_of
from raftkv.node.removal import GRACE, removed, removed_since
from raftkv.node.room import Room
from raftkv.node.scans import Scans
from raftkv.node.scrub import Scrubber
from raftkv.node.snapshots import Snapshotter
from raftkv.node.statefiles import mark_unfit
from raftkv.node.status import ClockReset, NodeStatus, PeerStatus
from raftkv.node.views import Views
from raftkv.node.waiting import Commands, Queries, Query
from raftkv.node.watchdog import DiskWatch
from raftkv.node.world import World
from raftkv.node.writer import Writer
from raftkv.state import Store
from raftkv.transport import Transport
from raftkv.wire import DigestReport, Members

logger = EventLog("raftkv")

HOUSEKEEPING_S = 0.25
"""How often disk space, snapshot triggers and stalls are looked at."""

failpoints.declare(
    __name__,
    {
        "founding.listening": "the address of a new directory's node is taken, and nothing is written",
        "membership.before_append": "a change of the members was asked for",
        "membership.after_append": "a change of the members is in the leader's log in memory only",
        "membership.committed": "a change of the members is committed, and nobody was told",
        "transfer_leadership.begun": "leadership is about to be handed over",
    },
)


@cache
def package_version() -> str:
    """The installed version, or "0" when raftkv runs from a bare checkout. Looked up once: that reads files, for up to
    30 ms, and every look at a node's status asks for it on the loop."""
    try:
        return version("raftkv")
    except PackageNotFoundError:
        return "0"


class Node:
    """One member of a cluster: a replicated `StateMachine`.

    ```python
    node = Node(Inventory, Options(node_id=1, data_dir="n1", members=members), transport)
    await node.start()
    ```

    All methods are called on the event loop's thread. Whatever makes the node unfit to go on (a
    damaged file, a failed sync, a diverged state) stops it: `stopped` gets the reason, requests are
    answered with `NodeStopped`, and neither votes nor acknowledgements leave it any more.
    """

    def __init__(
        self, machine: type[StateMachine], options: Options, transport: Transport, world: World | None = None
    ) -> None:
        self.machine = machine
        options = self.options = msgspec.structs.replace(options, machine=machine.__name__)
        self.config = options.config
        self.transport = transport
        self.world = world if world is not None else World.real()
        self.paths = Paths(options.data_dir)
        self.failure: NodeStopped | None = None
        self._tick_s = self.config.tick_ms / 1000
        self._watch = DiskWatch(self.config)
        self._leaderless = Leaderless()
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._checking_space = False
        self._elections = 0
        self._closed = False
        self._is_open = False
        self._misplaced = ""
        self._moved: Moved | None = None
        self._ends_at: float | None = None
        """When this node ends, because it was removed."""
        self._membership_seen = (0, False)
        self._members_changed: Callable[[], None] = lambda: None

    # ------------------------------------------------------------------------------ life

    async def open(self) -> None:
        """Recover what is on disk, and take no part yet; `start` does the rest, and `stop` closes it again.

        For a new directory the address for peers is taken first: a cluster that nobody could reach is not founded.
        Raises as `start` does.
        """
        loop = self._loop = asyncio.get_running_loop()
        tell_of_fork(self)
        self.stopped: asyncio.Future[NodeStopped | None] = loop.create_future()
        """Done when the node has stopped: with the reason, or None when it was asked to."""
        try:
            if is_new(self.world.disk, self.paths):
                await self.transport.listen()
                failpoints.reach("founding.listening")
            await self._recover()
        except BaseException:
            self._closed = True
            self.transport.abort()
            raise
        self._is_open = True

    async def start(self) -> None:
        """Recover what is on disk, then take part. Raises a `NodeStopped` or `ConfigError` that says what to do."""
        if not self._is_open:
            await self.open()
        loop = self._loop
        try:
            if (since := removed_since(self.raft, self.raft.node_id)) is not None:
                raise removed(self.raft.node_id, since)
            self.room.saw(self.world.disk.free(self.paths.root))
            await self.transport.start(self.links)
        except BaseException:
            self._closed = True
            self.transport.abort()
            await self.world.background_worker.run(close_directory, self.opened)
            raise
        self._membership_changed(force=True)
        self._started_at = self._ticked_at = loop.time()
        self._tick()
        self._housekeep()
        self.scrubber.start()
        if self.raft.membership.voters == (self.raft.node_id,):
            self.engine.observe_clocks()
            self.raft.campaign()  # there is nobody to wait for
            self.engine.wake()
        if not self.raft.wants_snapshot:
            self.applier.hand_in(self.raft.commit_index)
        logger.info(
            "node_started",
            node=self.raft.node_id,
            cluster=self.links.cluster_id,
            term=self.raft.term,
            last=self.raft.log.last_index,
            applied=self.raft.applied_index,
            role=type(self.raft.role).__name__.lower(),
            durability="fsync before every acknowledgement",
        )

    async def _recover(self) -> None:
        """Recover from disk; a state whose damage shows only when it is read is rebuilt, once."""
        worker = self.world.background_worker
        for attempt in (1, 2):
            opened = await worker.run(open_directory, self.options, self.world)
            try:
                self._build(opened)
            except BaseException as exc:
                await worker.run(close_directory, opened)
                if not isinstance(exc, StateCorruption) or attempt == 2:
                    raise
                await worker.run(mark_unfit, self.world.disk, self.paths, exc)
                logger.error("state_damaged", node=self.options.node_id, error=str(exc))
            else:
                self.opened, self._moved = opened, opened.moved
                return

    def _build(self, opened: Opened) -> None:
        config, world, options = self.config, self.world, self.options
        self.raft = Raft(
            node_id=options.node_id,
            config=config.raft(),
            draw=world.draw,
            hard_state=opened.vote.hard_state,
            log=opened.view,
            applied_index=opened.store.applied.index,
            snapshot=opened.snapshot,
        )
        self.clock = ClockWatch(self.raft, config, world.now_ms, world.monotonic_ms)
        self.commands, self.queries = Commands(), Queries(opened.vote.boot)
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
            self.new_runner(opened.store),
            opened.log,
            world.log_worker,
            self.commands,
            self.queries,
            batch_entries_max=config.apply_batch_entries_max,
            on_applied=self._applied,
            on_failure=self.fail,
            clock=world.clock,
            go_on=self.scans.begin,
        )
        self.digests = DigestComparer(options.node_id, lambda index: self.applier.runner.digest_at(index))
        self.links = Links(self, opened.founding, opened.known)
        self.snapshots = Snapshotter(self, opened)
        self.scrubber = Scrubber(
            disk=world.disk,
            worker=world.background_worker,
            log=opened.log,
            snapshots=opened.snapshots,
            state_directory=self.paths.state,
            state_rot=self.snapshots.state_rot,
            rate_bytes_s=config.scrub_rate_bytes_s,
            interval_s=config.scrub_interval_s,
            on_snapshot=self.snapshots.damaged,
            on_failure=self.fail,
        )
        self.writer = Writer(
            world.log_worker,
            opened.log,
            opened.vote,
            on_durable=lambda write, messages: self.engine.durable(write, messages),
            on_failure=self.fail,
        )
        self.engine = Engine(
            self.raft,
            config,
            log=opened.log,
            writer_worker=world.log_worker,
            writer=self.writer,
            applier=self.applier,
            commands=self.commands,
            queries=self.queries,
            transport=self.transport,
            now_ms=world.now_ms,
            monotonic_ms=world.monotonic_ms,
            count_time=self._count_time,
            send_snapshot=self.snapshots.send,
            install_snapshot=self.snapshots.install,
            on_role=self._role_changed,
            on_failure=self.fail,
        )
        self.room = Room(self.raft, self.engine, self._watch)

    def new_runner(self, store: Any) -> Runner:
        """The state machine on `store`."""
        return Runner(
            self.machine,
            store,
            sessions_max=self.config.sessions_max,
            session_ttl_ms=int(self.config.session_ttl_s * 1000),
            slice_reads=self.config.query_slice_reads,
        )

    async def before_checkpoint(self, store: Store) -> None:
        """Called before a snapshot is made of `store`, while nothing is applied: for hosts of other objects."""

    def after_fork(self) -> None:
        """In a child: the node is the parent's. It has no threads here, and its files must not be touched."""
        leave(self)  # else the store would be closed when the child ends, which writes what it has in memory
        if self._closed:
            return
        let_go_of_loop(self._loop)
        self._closed = True
        self.failure = WrongProcess(
            f"node {self.options.node_id} runs in the process that started it; this is a child made by fork, "
            "which can ask it through a client, or start a node of its own"
        )

    async def stop(self) -> None:
        """Stop taking part, wait for the disk, and close everything. What was acknowledged is durable already."""
        if self._closed:
            return
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        if not hasattr(self, "engine"):
            self.transport.abort()
            return
        failure = self.failure
        self.engine.stop(failure or NodeStopped("the node was asked to stop"))
        self._check_waiters()
        self.applier.stop()
        self.scrubber.stop()
        self.scans.stop(failure or NodeStopped("the node was asked to stop"))
        self.snapshots.stop()
        await self.transport.close()
        await self.snapshots.wait()
        await self.scans.hold()
        await self.writer.idle()
        await self._close_on(self.world.log_worker, self._close_log)
        await self._close_on(self.world.background_worker, lambda: self.applier.runner.store.close())
        await self._close_on(self.world.background_worker, self._close_files)
        world = self.world
        for worker in (world.log_worker, world.background_worker, world.transfer_worker, *world.scan_workers):
            await worker.close()
        if not self.stopped.done():
            self.stopped.set_result(self.failure)
        if self.failure is None:
            logger.info("node_stopped", node=self.options.node_id)
        else:
            logger.error("node_stopped", node=self.options.node_id, reason=str(self.failure))
        if self.failure is not None and self.failure is not failure:
            raise self.failure

    @property
    def is_closing(self) -> bool:
        """Whether `stop` was called."""
        return self._closed

    def abandon(self) -> None:
        """Let go of everything at once and close nothing, as a crash does; for simulated worlds."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        if hasattr(self, "engine"):
            self.engine.stopped = True
            self.applier.stop()
            self.scrubber.stop()
            self.snapshots.abandon()
        self.transport.abort()  # else its links went on dialling, and a node that is gone would answer handshakes

    async def _close_on(self, worker: Worker, close: Callable[[], None]) -> None:
        try:
            await worker.run(close)
        except (DiskError, StateCorruption) as exc:
            if self.failure is None:
                self._say_failed(self._set_failure(exc))
            else:
                # That a disk which has failed fails again is no news, and must not hide why the node has stopped.
                logger.warning("not_closed", node=self.options.node_id, error=str(exc))

    def _close_log(self) -> None:
        opened = self.opened
        if self.failure is None:
            # An older log that is put here while the node is down lacks what the vote file then knows of.
            opened.vote.write(opened.vote.hard_state, opened.log.durable_index)
        opened.log.close()

    def _close_files(self) -> None:
        self.opened.vote.close()
        self.opened.lock.release()

    def fail(self, error: BaseException) -> None:
        """Stop serving and voting at once, because going on could lose data; `stopped` gets the reason."""
        if self.failure is not None:
            return
        if not isinstance(error, NodeStopped):
            wrapped = SafetyViolation(f"{type(error).__name__}: {error}: keep the files and report it")
            wrapped.__cause__ = error
            error = wrapped
        failure = self._set_failure(error)
        self.engine.stop(failure)
        self.applier.stop()
        self.scrubber.stop()
        self.scans.stop(failure)
        self.snapshots.stop()
        self._check_waiters()
        if not self.stopped.done():
            self.stopped.set_result(failure)
        self._say_failed(failure)

    def _set_failure(self, error: NodeStopped) -> NodeStopped:
        """Why this node has stopped, with what to do."""
        if isinstance(error, StateCorruption):
            hint = "Start the node again: it rebuilds its state from a snapshot and the log, or says what it lacks"
            error = StateCorruption(f"{error}. {hint}").with_traceback(error.__traceback__)
        self.failure = error
        if isinstance(error, StateCorruption | Diverged):
            # It would open again: RocksDB looks at a block only when it is read, and a wrong state at nothing.
            self.world.background_worker.run(mark_unfit, self.world.disk, self.paths, error)
        return error

    def _say_failed(self, error: NodeStopped) -> None:
        logger.error("node_failed", node=self.options.node_id, error=type(error).__name__, reason=str(error))

    # ------------------------------------------------------------------------------ time

    def _tick(self) -> None:
        if self._closed or self.failure is not None:
            return
        self._count_time()
        self._timers["tick"] = self._loop.call_at(self._ticked_at + self._tick_s, self._tick)
        self._check_waiters()

    def _count_time(self) -> None:
        """Ticks follow the clock even when the loop was late; after a long pause no more than an election's worth."""
        passed = self._loop.time() - self._ticked_at
        due = int(passed / self._tick_s + 1e-6)  # a timer that is due may be a rounding early
        if due > 0:
            self._ticked_at += due * self._tick_s
            self.engine.tick(min(due, self.raft.config.election_ticks))
            if not self.raft.is_leader:
                self.links.report_digest()

    def _housekeep(self) -> None:
        if self._closed or self.failure is not None:
            return
        loop = asyncio.get_running_loop()
        self._timers["housekeeping"] = loop.call_later(HOUSEKEEPING_S, self._housekeep)
        self._check_stall(self._watch.writing_s(self.writer.started_at, loop.time()))
        if not self._checking_space:
            self._checking_space = True
            future = self.world.background_worker.run(self.world.disk.free, self.paths.root)
            future.add_done_callback(self._saw_space)
        self.views.sweep()
        self.clock.look(loop.time())
        self.links.tell_again()
        self._maybe_end(loop.time())
        self._maybe_write_moved()
        self.snapshots.maybe_flush()
        self.snapshots.maybe_take()
        self._say_leaderless(self._leaderless.look(self.raft.leader is not None, loop.time()))

    def _say_leaderless(self, seconds: float | None) -> None:
        if seconds is None:
            return
        voters = list(self.raft.membership.voters)
        reached = [peer for peer, link in self.transport.links().items() if link.connected]
        hint = "start nodes until a majority of the voters can reach each other"
        if not voters:
            hint = "add this node to its cluster (raftkv member add)"
        own = self.raft.node_id
        logger.warning("no_leader", node=own, seconds=round(seconds), voters=voters, reached=reached, hint=hint)

    def _maybe_end(self, now: float) -> None:
        """A removed node ends when the others have had time to hear of the commit, and not while it still leads."""
        if self._ends_at is not None and now >= self._ends_at and not self.raft.is_leader:
            since = removed_since(self.raft, self.raft.node_id)
            assert since is not None, "who is removed never comes back"
            self.fail(removed(self.raft.node_id, since))

    def _check_stall(self, writing_s: float) -> None:
        if self._watch.is_dead(writing_s):
            self.fail(
                DiskError(f"the disk has not finished a write for {writing_s:.0f} s: check it, then start the node")
            )
        elif self._watch.is_stalled(writing_s) and self.raft.is_leader:
            self.raft.step_down()
            self.engine.wake()
            logger.warning("disk_stalled", seconds=round(writing_s, 2), action="gave up leadership")

    def _saw_space(self, future: asyncio.Future[Any]) -> None:
        self._checking_space = False
        error = error_of(future)
        if future.cancelled() or self._closed:
            return
        if error is not None:
            self.fail(error)
            return
        self.room.saw(future.result())

    # ------------------------------------------------------------------------------ what happens

    def check_background(self, future: asyncio.Future[Any]) -> None:
        """For work in the background that must not fail unnoticed."""
        error = error_of(future)
        if error is not None and not self._closed:
            self.fail(error)

    def _applied(self, index: Index) -> None:
        if self.raft.installing is None:
            self.raft.applied(index)

    def _role_changed(self) -> None:
        self._elections += self.raft.is_leader
        self.digests.clear()
        self.snapshots.role_changed()
        logger.info(
            "role_changed",
            node=self.raft.node_id,
            role=type(self.raft.role).__name__.lower(),
            term=self.raft.term,
            leader=self.raft.leader,
            last=self.raft.log.last_index,
            commit=self.raft.commit_index,
        )

    def _membership_changed(self, *, force: bool = False) -> None:
        """Keep links to whoever is a member now, or still was before a change that may not be committed yet."""
        raft = self.raft
        seen = (raft.log.membership_index, raft.commit_index >= raft.log.membership_index)
        if force or seen != self._membership_seen:
            is_news = force or seen[0] != self._membership_seen[0]
            self._membership_seen = seen
            self._maybe_forget_moved()
            self.links.set_members(self.memberships)
            self.links.hang_up_on_removed()
            if self._ends_at is None and (since := removed_since(raft, raft.node_id)) is not None:
                self._ends_at = self._loop.time() + GRACE * self.config.election_timeout_ms / 1000
                logger.warning("removed", node=raft.node_id, index=since)
            self._compare_addresses()
            self._members_changed()
            if is_news:
                logger.info("membership", node=raft.node_id, membership=raft.membership.describe())

    def settle(self, peer_address: str, client_address: str, members: tuple[Member, ...] | None = None) -> None:
        """Where this node listens, and with it who founds the cluster; before `start`, by who knows only then."""
        founders = self.options.members if members is None else members
        self.options = msgspec.structs.replace(
            self.options, peer_address=peer_address, client_address=client_address, members=founders
        )

    def _compare_addresses(self) -> None:
        """Notice when the membership sends others to where this node does not listen."""
        options, member = self.options, self.member(self.options.node_id)
        found = []
        if member is not None:
            for what, listens, told in (
                ("nodes", options.peer_address, member.peer_address),
                ("clients", options.client_address, member.client_address),
            ):
                if is_elsewhere(listens, told):
                    found.append(f"listens for {what} at {listens}, but the membership sends them to {told}")
        misplaced = " and ".join(found)
        if misplaced != self._misplaced:
            self._misplaced = misplaced
            if misplaced:
                logger.warning("misplaced", node=options.node_id, reason=misplaced)

    def _check_waiters(self) -> None:
        """Wake those who wait for something to become true."""
        if self.failure is None and hasattr(self, "engine") and not self._closed:
            self._membership_changed()
        if not self._waiters:
            return
        waiters, self._waiters = self._waiters, []
        for condition, future in waiters:
            if future.done():
                continue
            if self._closed or self.failure is not None:
                future.set_exception(self.failure or NodeStopped("the node was asked to stop"))
            elif condition():
                future.set_result(None)
            else:
                self._waiters.append((condition, future))

    async def until(self, condition: Callable[[], bool], deadline_s: float, what: str) -> None:
        """Wait until `condition` holds (looked at every tick). Raises `Unavailable` after `deadline_s` seconds."""
        if condition():
            return
        if self.failure is not None:
            raise self.failure
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((condition, future))
        try:
            await asyncio.wait_for(future, deadline_s)
        except TimeoutError:
            raise Unavailable(f"{what}: not within {deadline_s:g} s") from None

    # ------------------------------------------------------------------------------ requests

    def submit(self, payload: bytes, done: CommandDone) -> None:
        """Propose a command; `done` is called exactly once, when it is durable on a majority and applied here,
        or with an error. Raises `NotAccepted` (safe to retry) when it is refused at once."""
        if self.failure is not None:
            raise Unavailable(f"node {self.options.node_id} has stopped: {self.failure}")
        if self.raft.is_leader:
            # Here, at the edge: what no node could apply must never get into the log.
            if len(payload) > self.config.command_bytes_max:
                raise InvalidArgument(
                    f"a command of {len(payload)} bytes: must be at most {self.config.command_bytes_max}"
                )
            self.applier.runner.check(payload)
        self.engine.submit(payload, done)

    def query(
        self,
        payload: bytes,
        stale: bool,
        done: QueryDone,
        deadline_s: float | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> None:
        """Run a query: linearizable, or at once on whatever is applied here when `stale`.

        One that is not done within its slice of the loop goes on beside it, until the deadline, or `gone` is true.
        """
        if self.failure is not None:
            raise Unavailable(f"node {self.options.node_id} has stopped: {self.failure}")
        if not stale:
            self.engine.query(Query(payload, done, deadline_s, gone))
            return
        if self._ends_at is not None:
            raise Unavailable(f"node {self.options.node_id} was removed from the cluster")
        if self.raft.wants_snapshot or self.raft.installing is not None:
            raise Unavailable("this node's state is being rebuilt from a snapshot")
        self.applier.answer_stale(Query(payload, done, deadline_s, gone))

    def open_view(self, done: QueryDone, deadline_s: float, gone: Callable[[], bool]) -> None:
        """Hold the state as it is when a linearizable query would be answered; the answer is the view's number.

        Only the leader does, as it is with the leader that clients stay. Raises `NotLeader` elsewhere.
        """
        if self.failure is not None:
            raise Unavailable(f"node {self.options.node_id} has stopped: {self.failure}")
        if not self.raft.is_leader:
            raise NotLeader(self.raft.leader)

        def opened() -> bytes:
            if gone():
                raise Unavailable("its client has gone")
            return msgspec.msgpack.encode(self.views.open(self.applier.runner.store.view))

        self.engine.query(Query(b"", done, deadline_s, gone, opened))

    def query_view(
        self, number: int, payload: bytes, done: QueryDone, deadline_s: float, gone: Callable[[], bool]
    ) -> None:
        """Run a query on a state that is held here, whoever leads now. Raises `ViewExpired`."""
        if self.failure is not None:
            raise Unavailable(f"node {self.options.node_id} has stopped: {self.failure}")
        self.scans.begin(Query(payload, done, deadline_s, gone, held=self.views.find(number)))

    def close_view(self, number: int) -> None:
        """Let go of a state that is held here."""
        self.views.close(number)

    @property
    def node_id(self) -> NodeId:
        """This node's number."""
        return self.options.node_id

    @property
    def cluster_id(self) -> str:
        """The cluster that it belongs to; empty before it has joined one."""
        return self.links.cluster_id

    @property
    def fingerprint(self) -> str:
        """Its state machine's fingerprint."""
        return self.machine.fingerprint()

    @property
    def leader(self) -> Member | None:
        """The leader as far as this node knows, with its addresses."""
        leader = self.raft.leader
        if leader is None:
            return None
        return self.member(leader) or Member(leader)

    def member(self, node_id: NodeId) -> Member | None:
        """The addresses of `node_id` as this node goes by them; None when it is no member."""
        return self._placed(self.raft.membership).member(node_id)

    @property
    def memberships(self) -> list[Membership]:
        """The one that is committed and every newer one, oldest first, with the addresses that this node goes by."""
        return [self._placed(each) for each in self.raft.log.memberships_since(self.raft.commit_index)]

    def _placed(self, membership: Membership) -> Membership:
        """The membership with the addresses that this node goes by."""
        return membership if self._moved is None else self._moved.applied_to(membership)

    def _maybe_forget_moved(self) -> None:
        """What an operator has written beside the log ends with a newer membership that is committed."""
        raft, said = self.raft, self._moved
        if said is None or raft.log.dated_membership(max(raft.commit_index, raft.log.start.index))[0] <= said.index:
            return
        self._moved = None
        path = self.paths.addresses
        self.world.background_worker.run(self.world.disk.remove, path).add_done_callback(self.check_background)
        logger.info("addresses_in_the_log", node=raft.node_id, index=raft.log.membership_index)

    def _maybe_write_moved(self) -> None:
        """A leader writes the addresses by which it was found into the log, as soon as that can be done."""
        raft = self.raft
        if self._moved is None or not raft.is_leader or raft.log.membership_index > raft.commit_index:
            return
        target = self._placed(raft.membership)
        if target != raft.membership:
            with contextlib.suppress(ChangeRefused):  # tried again soon
                raft.change_membership(target)
                self.engine.wake()

    @property
    def members(self) -> Members:
        """Where the members listen for clients, as far as this node knows what is committed."""
        raft = self.raft
        # A node that installs a snapshot may know of a commit behind the beginning of its log.
        index, membership = raft.log.dated_membership(max(raft.commit_index, raft.log.start.index))
        members = self._placed(membership).members
        addresses = [member.client_address for member in members if member.client_address]
        # Who has moved may lead before the membership says where it is: then clients have to find it, too.
        addresses += [where for member in members if (where := self._has_moved_to(member))]
        return Members(index, tuple(dict.fromkeys(addresses)))

    def _has_moved_to(self, member: Member) -> str:
        """Where a member says of itself that it listens for clients, if it is also met elsewhere than it should be.

        Else it may stand behind something that passes connections on, and nobody is to go round that.
        """
        link = self.transport.links().get(member.node_id)
        if link is None or not link.connected or link.address == member.peer_address:
            return ""
        return self.links.client_address(member.node_id)

    def members_moved(self) -> None:
        """A member has said that it listens elsewhere."""
        self._members_changed()

    def watch_members(self, changed: Callable[[], None]) -> None:
        """Call `changed` when `members` may be others; for one listener."""
        self._members_changed = changed

    async def change_membership(
        self, target: Membership, deadline_s: float = 30.0, *, unmet: tuple[NodeId, ...] = ()
    ) -> Membership:
        """Change to `target`; returns when the change is committed. Raises `NotLeader`, `ChangeRefused`,
        `NotCaughtUp`, `InvalidArgument`, or `Indeterminate` after the deadline (the change may still happen).

        Whom it leaves out never comes back, but for learners that are `unmet`: no data directory was ever known
        under their ids.
        """
        failpoints.reach("membership.before_append")
        self.raft.change_membership(target, unmet)
        failpoints.reach("membership.after_append")
        self.engine.wake()
        term = self.raft.term

        def done() -> bool:
            raft = self.raft
            settled = not raft.membership.is_joint and raft.log.membership_index <= raft.commit_index
            return settled or raft.term != term

        try:
            await self.until(done, deadline_s, "the membership change is not committed")
        except Unavailable as exc:
            raise Indeterminate(f"{exc}; it may still be: look at the status, then try again") from exc
        failpoints.reach("membership.committed")
        if self.raft.term != term:
            raise Indeterminate("leadership was lost during the membership change: look at the status, then try again")
        return self.raft.membership

    async def add_learner(self, member: Member, deadline_s: float = 30.0) -> Membership:
        """Add a node that gets the log but has no vote. Its id must never have been used before.

        It need not be there yet; but who answers at its addresses must be it.
        """
        self.raft.check_membership(with_learner(self.raft.membership, member))
        check_answers(member, await who_answers(self.transport.ask, member))
        return await self.change_membership(with_learner(self.raft.membership, member), deadline_s)

    async def update_member(self, member: Member, deadline_s: float = 30.0, *, force: bool = False) -> Membership:
        """Change a member's addresses; others look for it there from the commit on. It must answer there already,
        unless you `force` it: a wrong address costs as much as a node that is down. Raises as `change_membership`."""
        self.raft.require_leader()
        current = self.raft.membership
        target = with_addresses(current, member)
        if target == current:
            return current
        self.raft.check_membership(target)
        if not force:
            answers = await who_answers(self.transport.ask, member)
            check_answers(member, answers)
            check_is_there(member, answers)
        return await self.change_membership(with_addresses(self.raft.membership, member), deadline_s)

    async def promote(self, node_id: NodeId, deadline_s: float = 300.0) -> Membership:
        """Make a learner a voter, as soon as it has caught up."""
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        while True:
            current = self.raft.membership
            if node_id not in current.learners:
                raise InvalidArgument(f"node {node_id} is no learner ({current.describe()})")
            target = Membership(
                voters=tuple(sorted({*current.voters, node_id})),
                learners=tuple(learner for learner in current.learners if learner != node_id),
                members=current.members,
            )
            try:
                return await self.change_membership(target, max(0.1, end - loop.time()))
            except NotCaughtUp:
                if loop.time() >= end:
                    raise
            ticked = self._ticked_at
            await self.until(lambda ticked=ticked: self._ticked_at > ticked, 60, "no tick")  # type: ignore[misc]

    async def remove(self, node_id: NodeId, deadline_s: float = 30.0) -> Membership:
        """Remove a node. Its id never comes back, unless it is a learner that nobody has ever met."""
        target = without(self.raft.membership, node_id)
        unmet = (node_id,) if self.links.incarnation_of(node_id) is None else ()
        return await self.change_membership(target, deadline_s, unmet=unmet)

    async def transfer_leadership(self, to: NodeId | None = None, deadline_s: float = 10.0) -> NodeId:
        """Hand leadership to `to`, or to the voter with room that holds most of the log; returns the new leader."""
        role = self.raft.require_leader()
        if to == self.raft.node_id:
            return to  # that is done
        if to is None:
            others = [voter for voter in self.raft.membership.voters if voter != self.raft.node_id]
            if not others:
                raise ChangeRefused("there is no other voter to lead")

            def fitness(voter: NodeId) -> tuple[bool, Index, int]:
                return role.progress[voter].has_room, role.progress[voter].match_index, -voter

            to = max(others, key=fitness)
        self.raft.transfer_leadership(to)
        failpoints.reach("transfer_leadership.begun")
        self.engine.wake()
        await self.until(
            lambda: self.raft.leader == to or (self.raft.is_leader and self._transfer_over()),
            deadline_s,
            f"node {to} has not taken over",
        )
        if self.raft.leader != to:
            raise Unavailable(f"node {to} did not take over in time; node {self.raft.node_id} goes on leading")
        return to

    def _transfer_over(self) -> bool:
        role = self.raft.role
        return isinstance(role, Leader) and role.transfer is None

    async def reset_clock(self, deadline_s: float = 10.0) -> ClockReset:
        """Let log time begin anew at what the clocks say, even where that is earlier; it is applied on return.

        Where no majority of clocks agrees the leader's is taken for right. Raises `NotLeader`, `Busy`, `ChangeRefused`
        while a node runs a version that can't read this, or `Unavailable` (it may still happen, and may be repeated).
        """
        return await self.clock.reset(self.engine.wake, self.until, deadline_s)

    async def take_snapshot(self) -> Index:
        """Take a snapshot now and return its index; it is durable and verified on return."""
        if self.failure is not None:
            raise self.failure
        return await self.snapshots.take()

    def report(self, node: NodeId, report: DigestReport) -> None:
        """A follower tells its digest: compare, and stop whoever is in the minority."""
        if not self.raft.is_leader:
            return
        verdict = self.digests.report(node, report.index, report.digest, self.raft.membership)
        if verdict is None:
            return
        culprit, index = verdict
        if culprit == self.raft.node_id:
            self.fail(diverged(culprit, index))
        else:
            self.links.tell_diverged(culprit, index)
        logger.error("replica_diverged", node=culprit, index=index)

    def told_diverged(self, index: Index) -> None:
        """The leader has found that this replica is in the minority."""
        self.fail(diverged(self.options.node_id, index))

    # ------------------------------------------------------------------------------ status

    def status(self) -> NodeStatus:
        """Everything that an operator may ask. Raises `WrongProcess` in a child made by fork."""
        if isinstance(self.failure, WrongProcess):
            raise self.failure  # the store may wait for a thread that is not there
        raft, opened = self.raft, self.opened
        applied = self.applier.runner.applied
        snapshot, log_health = raft.snapshot, self.world.log_health()
        return NodeStatus(
            node_id=raft.node_id,
            cluster_id=self.links.cluster_id,
            machine=self.machine.fingerprint(),
            version=package_version(),
            role="stopped" if self.failure is not None else type(raft.role).__name__.lower(),
            term=raft.term,
            leader=raft.leader,
            first_index=raft.log.first_index,
            last_index=raft.log.last_index,
            durable_index=raft.durable_index,
            commit_index=raft.commit_index,
            applied_index=applied.index,
            digest=f"{applied.digest:016x}",
            membership=raft.membership,
            membership_index=raft.log.membership_index,
            snapshot_index=snapshot.index if snapshot is not None else None,
            snapshot_term=snapshot.term if snapshot is not None else None,
            snapshots=len(opened.snapshots.list()),
            log_bytes=raft.log.bytes_between(raft.log.start.index, raft.log.last_index),
            state_bytes=self.applier.runner.store.approximate_bytes(),
            disk_free_bytes=self._watch.space.free_bytes,
            disk_total_bytes=self._watch.space.total_bytes,
            disk_reserve_bytes=self._watch.reserve_bytes,
            disk_low=self._watch.low is not None,
            writes_refused=self.room.writes_refused,
            disk_hand_overs=self.room.handed_over,
            waiting_requests=self.engine.waiting,
            installing=self.snapshots.receiving(),
            peers=[self._peer_status(member) for member in raft.membership.members if member.node_id != raft.node_id],
            uptime_s=asyncio.get_running_loop().time() - self._started_at,
            write_batches=self.writer.batches,
            write_seconds=self.writer.syncs_s,
            damaged=self.scrubber.problems(),
            scrub_passes=self.scrubber.passes,
            scrub_bytes=self.scrubber.read_bytes,
            damage_found=self.scrubber.damage_found,
            snapshots_taken=self.snapshots.taken,
            snapshots_installed=self.snapshots.installed,
            elections=self._elections,
            clock=self.clock.status(),
            misplaced=self._misplaced,
            certificates=self.transport.certificates(),
            stopped=str(self.failure) if self.failure is not None else None,
            log_lines_lost=log_health.lines_lost,
            log_problem=log_health.problem,
        )

    def _peer_status(self, member: Member) -> PeerStatus:
        link = self.transport.links().get(member.node_id)
        status = PeerStatus(
            node_id=member.node_id,
            connected=link is not None and link.connected,
            rtt_ms=link.rtt_ms if link is not None else None,
            refused=link.refused if link is not None else None,
            refused_here=link is not None and link.refused_here,
            snapshot=self.snapshots.sending(member.node_id),
            incarnation=self.links.incarnation_of(member.node_id),
            clock_offset_ms=self.clock.offset_ms(member.node_id),
        )
        if link is not None and link.unreached is not None:
            status.unreached, status.unreached_reason = link.unreached.text, str(link.unreached.reason)
        role = self.raft.role
        if isinstance(role, Leader) and (progress := role.progress.get(member.node_id)) is not None:
            status.match_index = progress.match_index
            status.flow = progress.flow.value
            status.has_room = progress.has_room if progress.acked_round else None
            status.silent_ms = (role.tick - progress.contact_tick) * self.config.tick_ms
        return status


def diverged(node_id: NodeId, index: Index) -> Diverged:
    """The error of a node whose state is not what the others have."""
    return Diverged(
        f"the state of node {node_id} differs from the others' at entry {index}: a command that is not "
        "deterministic, or damaged data. Keep a copy of its files, then start it with --rebuild; "
        "if it happens again, look for time, randomness or unordered iteration in the state machine's commands."
    )


def not_leader(node: Node) -> NotLeader:
    """The error that sends a client to the leader."""
    leader = node.leader
    if leader is None:
        return NotLeader()
    return NotLeader(leader.node_id, leader.client_address or None)


def status_json(status: NodeStatus) -> bytes:
    """A status as JSON, for the command line and HTTP."""
    return msgspec.json.encode(status)
