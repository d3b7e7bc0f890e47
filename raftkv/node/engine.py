"""The loop in the order of `Ready`: persist, send, apply, answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from raftkv import failpoints
from raftkv.config import MIB
from raftkv.core.messages import AppendEntries, InstallSnapshot, Message, ReadIndex, TimeoutNow
from raftkv.core.ready import Ready
from raftkv.entry import Entry
from raftkv.errors import Busy, NotAccepted, NotLeader, PeerError, RaftKVError, SafetyViolation
from raftkv.log import Log
from raftkv.machine import CommandDone
from raftkv.model import Index, NodeId, SnapshotMeta, Term
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.ports import error_of
from raftkv.node.waiting import Commands, Queries, Query, no_leader
from raftkv.node.writer import Writer

failpoints.declare(
    __name__,
    {
        "propose.before_write": "commands are in the leader's log in memory only",
        "send.before": "what waited for the disk may be sent, votes and acknowledgements among it",
        "send.after": "what waited for the disk was sent, and the core does not know that it is durable",
        "send.timeout_now": "a peer is about to be told to campaign",
    },
    droppable=("send.timeout_now",),
)


class Engine:
    """Runs one core: inputs come in any time, and once a turn of the event loop what they led to is done.

    Everything that piles up in a turn (proposals, reads, messages) is one batch for the core, one write
    for the disk and one flush for each connection.
    """

    def __init__(
        self,
        body: Body,
        *,
        log: Log,
        writer: Writer,
        applier: Applier,
        commands: Commands,
        queries: Queries,
        count_time: Callable[[], None],
        send_snapshot: Callable[[NodeId, SnapshotMeta], None],
        install_snapshot: Callable[[SnapshotMeta, bool], None],
        on_role: Callable[[], None],
    ) -> None:
        self.raft = body.raft
        self._config = body.config
        self._log = log
        self._worker = body.world.log_worker
        self._writer = writer
        self._applier = applier
        self._commands = commands
        self._queries = queries
        self._transport = body.transport
        self._now_ms = body.world.now_ms
        self._monotonic_ms = body.world.monotonic_ms
        self._count_time = count_time
        self._send_snapshot = send_snapshot
        self._install_snapshot = install_snapshot
        self._on_role = on_role
        self._fail = body.fail
        self._proposals: list[tuple[bytes, CommandDone]] = []
        self._loads: deque[AppendEntries] = deque()
        """Appends whose entries are being read from disk, or wait for that; and for whom each is."""
        self._loading_for: deque[NodeId] = deque()
        self._scheduled = False
        self._seen = self._role_now()
        self.refuse_writes: NotAccepted | None = None
        """Why no command is accepted at the moment, whoever leads (the disk is nearly full)."""
        self.stopped = False

    def submit(self, payload: bytes, done: CommandDone) -> None:
        """Propose a command; `done` is called exactly once. Raises `NotAccepted` when it is refused at once."""
        if not self.raft.is_leader:
            raise NotLeader(self.raft.leader)
        if self.refuse_writes is not None:
            raise self.refuse_writes
        if len(self._commands) + len(self._proposals) >= self._config.waiting_requests_max:
            raise Busy(f"{len(self._commands)} commands wait on this node already")
        if self._applier.lag > self._config.apply_lag_entries_max:
            raise Busy(f"{self._applier.lag} committed entries wait to be applied")
        self._proposals.append((payload, done))
        self.wake()

    def query(self, query: Query) -> None:
        """Ask a linearizable query; its `done` is called exactly once. Raises `NotAccepted` when refused at once."""
        if self.raft.leader is None:
            raise NotLeader()
        if self._queries.count >= self._config.waiting_requests_max:
            raise Busy(f"{self._queries.count} queries wait on this node already")
        self._queries.add(query)
        self.wake()

    def step(self, message: Message) -> None:
        """Take in a peer's message; one that no correct peer sends raises `PeerError`."""
        if self.stopped:
            return
        if isinstance(message, ReadIndex):
            self._refresh_lease()
        # Peers tell their clocks, and are told this one's: whatever held this process up would be taken for an error
        # of theirs, if they were compared with what the clocks showed before.
        self.observe_clocks()
        try:
            self.raft.step(message)
        except PeerError:
            raise
        except (RaftKVError, AssertionError) as exc:
            self._fail(exc)
            return
        self._wake_for_output()

    def observe_clocks(self) -> None:
        """Tell the core what the clocks show."""
        self.raft.observe(self._now_ms(), self._monotonic_ms())

    def tick(self, count: int) -> None:
        """`count` units of time have passed."""
        self.observe_clocks()
        for _ in range(count):
            self.raft.tick()
        self._wake_for_output()

    def durable(self, write: int, messages: list[Message]) -> None:
        """The writer is done with everything up to `write`; the messages that waited for it may go."""
        self._transport.cork()
        try:
            failpoints.reach("send.before")
            for message in messages:
                self._transport.send(message.to, message)
            failpoints.reach("send.after")
            self.raft.persisted(write)
            # No detour over another turn of the loop: a lone command is acknowledged as soon as it is durable.
            self.turn()
        finally:
            self._transport.uncork()

    def wake(self) -> None:
        """See to it that there will be a turn."""
        if not self._scheduled and not self.stopped:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.turn)

    def _wake_for_output(self) -> None:
        """Most ticks and answers to heartbeats lead to nothing: a turn of the loop for each would be most of them."""
        if not self._scheduled and (self.raft.has_output or self._role_now() != self._seen):
            self.wake()

    def _role_now(self) -> tuple[Term, NodeId | None]:
        """Who leads says it all: a leader knows itself as one."""
        return self.raft.term, self.raft.leader

    def turn(self) -> None:
        """Do everything that there is to do now."""
        self._scheduled = False
        if self.stopped:
            return
        self._transport.cork()
        try:
            self._propose()
            self._read()
            while not self.stopped and (ready := self.raft.ready()) is not None:
                self._handle(ready)
        except Exception as exc:  # noqa: BLE001 (an error here is a doubt, and doubt stops the node)
            self._fail(exc)
            return
        finally:
            self._transport.uncork()
        seen = self._role_now()
        if seen != self._seen:
            has_led = self._seen[1] == self.raft.node_id
            self._seen = seen
            if has_led:
                self._commands.leadership_lost()
            self._on_role()

    def _propose(self) -> None:
        if not self._proposals:
            return
        proposals, self._proposals = self._proposals, []
        try:
            payloads = [payload for payload, _ in proposals]
            first, _ = self.raft.propose(payloads, self._now_ms(), self._monotonic_ms())
        except (NotAccepted, RaftKVError) as exc:
            if isinstance(exc, SafetyViolation):
                raise
            for _, done in proposals:
                done(0, exc)
            return
        self._commands.add(first, self.raft.term, [done for _, done in proposals])
        failpoints.reach("propose.before_write")

    def _read(self) -> None:
        token = self._queries.next_batch()
        if token is None:
            return
        self._refresh_lease()
        try:
            self.raft.read(token)
        except NotAccepted as exc:
            self._queries.dropped(token, exc)

    def _refresh_lease(self) -> None:
        """A lease is counted in ticks, and whatever held the process up, held those up, too: count them before it is
        relied on, or a leader that wakes from a pause would read beside the one that was elected meanwhile (F72)."""
        if self.raft.config.lease_reads:
            self._count_time()

    def _handle(self, ready: Ready) -> None:
        """The fields of `Ready`; what need not wait for the disk goes out first, so that peers write meanwhile."""
        write = None
        if ready.truncate_from is not None or ready.entries:
            write = self._log.stage(ready.truncate_from, ready.entries)
        self._send(ready.messages)
        if ready.must_persist:
            self._writer.enqueue(ready.write, write, ready.truncate_from, ready.hard_state, ready.durable_messages)
        elif ready.durable_messages:
            if self.raft.durability.done >= ready.write:
                self._send(ready.durable_messages)
            else:
                self._writer.enqueue(ready.write, None, None, None, ready.durable_messages)
        if ready.committed is not None:
            self._applier.hand_in(ready.committed[1])
        for token, index in ready.reads:
            self._queries.confirmed(token, index)
        if ready.reads:
            self._applier.answer_queries()
        for token in ready.reads_dropped:
            self._queries.dropped(token, no_leader())
        if ready.snapshot is not None:
            self._install_snapshot(ready.snapshot, ready.snapshot_keeps_log)

    def _send(self, messages: list[Message]) -> None:
        for message in messages:
            match message:
                case AppendEntries() if message.last_index > message.prev_index:
                    self._send_entries(message)
                case InstallSnapshot():
                    self._send_snapshot(message.to, message.snapshot)
                case TimeoutNow() if failpoints.reach("send.timeout_now"):
                    continue
                case _:
                    self._transport.send(message.to, message)

    def _send_entries(self, message: AppendEntries) -> None:
        """Attach the entries that the message names; from disk when they are not in memory any more."""
        entries = self._log.cached(message.prev_index + 1, message.last_index)
        if entries is not None and message.to not in self._loading_for:
            message.entries = entries
            self._transport.send(message.to, message)
            return
        # One read at a time, so that those who wait for a write never wait for more than one; and in order, as a
        # follower refuses what does not continue its log.
        self._loads.append(message)
        self._loading_for.append(message.to)
        if len(self._loads) == 1:
            self._load_next()

    def _load_next(self) -> None:
        message = self._loads[0]
        future = self._worker.run(self._log.load, message.prev_index + 1, message.last_index, 64 * MIB)
        future.add_done_callback(self._loaded)

    def _loaded(self, future: asyncio.Future[list[Entry]]) -> None:
        message = self._loads.popleft()
        self._loading_for.popleft()
        error = error_of(future)
        if self.stopped or future.cancelled():
            return
        self._send_loaded(message, future, error)
        if self._loads and not self.stopped:
            self._load_next()

    def _send_loaded(
        self, message: AppendEntries, future: asyncio.Future[list[Entry]], error: BaseException | None
    ) -> None:
        if error is not None:
            if self.raft.log.start.index < message.prev_index:
                self._fail(error)  # the entry should be there: never skip what can't be read
            return  # else it was compacted meanwhile, and the follower gets the snapshot
        # While the disk was read, leadership may have been lost and the log changed: then the message is void.
        if self.raft.is_leader and self.raft.term == message.term:
            entries = future.result()
            if entries[-1].index < message.last_index:
                # The end was not on disk yet, but then it is in memory; if not, the follower asks for the rest.
                entries += self._log.cached(entries[-1].index + 1, message.last_index) or []
                message.last_index = entries[-1].index
            message.entries = entries
            self._transport.send(message.to, message)

    def stop(self, error: RaftKVError) -> None:
        """Take no more inputs; whoever waits gets `error`."""
        self.stopped = True
        proposals, self._proposals = self._proposals, []
        for _, done in proposals:
            done(0, error)
        self._commands.fail_all(error)
        self._queries.fail_all(error)

    @property
    def has_pending(self) -> bool:
        """Whether there will be a turn, because something has come in since the last one."""
        return self._scheduled

    @property
    def waiting(self) -> int:
        """Requests that wait for an answer on this node."""
        return len(self._commands) + len(self._proposals) + self._queries.count

    @property
    def applied_index(self) -> Index:
        return self._applier.applied_index
