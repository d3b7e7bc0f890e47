"""The loop around the core. It works off each `Ready` in order: persist, send, apply, answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from raftkv import failpoints
from raftkv.config import MIB
from raftkv.core.messages import AppendEntries, InstallSnapshot, Message, ReadIndex, TimeoutNow
from raftkv.core.ready import Ready
from raftkv.durations import Durations
from raftkv.entry import Entry
from raftkv.errors import Busy, NotAccepted, NotLeader, PeerError, RaftKVError, SafetyViolation
from raftkv.log import Log
from raftkv.machine import CommandDone
from raftkv.model import Index, NodeId, SnapshotMeta, Term
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.waiting import Commands, Queries, Query, no_leader
from raftkv.node.workers import error_of
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
    """Runs one core. Inputs may come at any time; what they lead to is done once in each turn of the event loop.

    All proposals, reads and messages of a turn become one batch for the core, one write to disk and one flush of
    each connection.
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
        self._clock = body.world.clock
        self.commits = Durations()
        """How long batches of this leader's commands took from their proposal until they were committed and durable
        here."""
        self._proposed: deque[tuple[Index, float]] = deque()
        """The last index of each batch that is not committed yet, and when it was proposed."""
        self._proposals: list[tuple[bytes, CommandDone]] = []
        self._loads: deque[AppendEntries] = deque()
        """Appends whose entries are not in memory: the first is being read from disk, the others wait."""
        self._loading_for: deque[NodeId] = deque()
        """The peer that each of these goes to."""
        self._scheduled = False
        self._seen = self._role_now()
        self.refuse_writes: NotAccepted | None = None
        """The error for every command while none is accepted, even by a leader: the disk is nearly full. Else None."""
        self.stopped = False
        self._holds = False
        self._has_sent = False
        """Whether this turn has sent what needed no write."""

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

    @property
    def holds(self) -> bool:
        """Whether commands that come in wait before they get into the log."""
        return self._holds

    def hold(self, on: bool) -> None:
        """Let no further command into the log, or (when not `on`) let in those that wait."""
        if self._holds and not on and self._proposals:
            self.wake()
        self._holds = on

    def query(self, query: Query) -> None:
        """Take in a linearizable query; its `done` is called exactly once. Raises `NotAccepted` if refused at once."""
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
        # Messages carry clock readings, which are compared with this node's. After a pause of this process its last
        # reading is too old for that, and the peer's clock would look wrong.
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
        """Tell the core that `count` ticks have passed."""
        self.observe_clocks()
        for _ in range(count):
            self.raft.tick()
        self._wake_for_output()

    def durable(self, write: int, messages: list[Message]) -> None:
        """Everything up to the Ready number `write` is on disk: send the messages that waited for it."""
        self._transport.cork()
        try:
            failpoints.reach("send.before")
            for message in messages:
                self._transport.send(message.to, message)
            self._has_sent = self._has_sent or bool(messages)
            failpoints.reach("send.after")
            self.raft.persisted(write)
            # In this turn of the loop, not the next: so a single command is acknowledged as soon as it is durable.
            self.turn()
        finally:
            self._transport.uncork()

    def wake(self) -> None:
        """Have `turn` called soon, unless that is due already."""
        if not self._scheduled and not self.stopped:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.turn)

    def _wake_for_output(self) -> None:
        """Wake only if the core has something to do: most ticks and heartbeat replies lead to nothing."""
        if not self._scheduled and (self.raft.has_output or self._role_now() != self._seen):
            self.wake()

    def _role_now(self) -> tuple[Term, NodeId | None]:
        """Term and leader. They tell this node's role as well, because a leader knows itself as the leader."""
        return self.raft.term, self.raft.leader

    def turn(self) -> None:
        """Hand the core what has piled up, and work off every `Ready` that it has."""
        self._scheduled = False
        if self.stopped:
            return
        self._transport.cork()
        try:
            self._propose()
            self._read()
            while not self.stopped and (ready := self.raft.ready()) is not None:
                self._handle(ready)
        except Exception as exc:  # noqa: BLE001 (after any error here the node must not go on)
            self._fail(exc)
            # What was handed out is written all the same: `Node.stop` waits for it.
            self._writer.end_turn(has_sent=True)
            return
        finally:
            self._transport.uncork()
        seen = self._role_now()
        if seen != self._seen:
            has_led = self._seen[1] == self.raft.node_id
            self._seen = seen
            if has_led:
                self._commands.leadership_lost()
                self._proposed.clear()
            self._on_role()
        has_sent, self._has_sent = self._has_sent, False
        self._writer.end_turn(has_sent=has_sent)

    def _propose(self) -> None:
        if not self._proposals or self._holds:
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
        self._proposed.append((first + len(payloads) - 1, self._clock()))
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
        """Count the ticks that have passed before a lease is relied on.

        A lease is measured in ticks, which stand still while the process does. A leader that wakes from a pause would
        still believe in its lease while a new leader is already at work (F72).
        """
        if self.raft.config.lease_reads:
            self._count_time()

    def _handle(self, ready: Ready) -> None:
        """Work off one `Ready`. Messages that need no disk write go out first, so that peers write at the same time."""
        write = None
        if ready.truncate_from is not None or ready.entries:
            write = self._log.stage(ready.truncate_from, ready.entries)
        if ready.messages:
            self._has_sent = True
            self._send(ready.messages)
        if ready.must_persist:
            self._writer.enqueue(ready.write, write, ready.truncate_from, ready.hard_state, ready.durable_messages)
        elif ready.durable_messages:
            if self.raft.durability.done >= ready.write:
                self._send(ready.durable_messages)
            else:
                self._writer.enqueue(ready.write, None, None, None, ready.durable_messages)
        if ready.committed is not None:
            self._note_commits(ready.committed[1])
            self._applier.hand_in(ready.committed[1])
        for token, index in ready.reads:
            self._queries.confirmed(token, index)
        if ready.reads:
            self._applier.answer_queries()
        for token in ready.reads_dropped:
            self._queries.dropped(token, no_leader())
        if ready.snapshot is not None:
            self._install_snapshot(ready.snapshot, ready.snapshot_keeps_log)

    def _note_commits(self, last: Index) -> None:
        """The batches up to `last` are committed."""
        if self._proposed and self._proposed[0][0] <= last:
            now = self._clock()
            while self._proposed and self._proposed[0][0] <= last:
                self.commits.note(now - self._proposed.popleft()[1])

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
        """Attach the entries that the message names, and send it. Entries that left the memory are read from disk."""
        entries = self._log.cached(message.prev_index + 1, message.last_index)
        if entries is not None and message.to not in self._loading_for:
            message.entries = entries
            self._transport.send(message.to, message)
            return
        # One read at a time, because writes wait behind it; and in order, because a follower refuses entries that
        # don't continue its log.
        self._loads.append(message)
        self._loading_for.append(message.to)
        if len(self._loads) == 1:
            self._load(message)

    def _load(self, message: AppendEntries) -> None:
        future = self._worker.run(self._log.load, message.prev_index + 1, message.last_index, 64 * MIB)
        future.add_done_callback(self._loaded)

    def _load_next(self) -> None:
        """Go on with the appends that waited. Their entries may not be on disk: yet, or as another leader's are."""
        while self._loads and not self.stopped:
            message = self._loads[0]
            is_ours = self._is_of_now(message)
            entries = self._log.cached(message.prev_index + 1, message.last_index) if is_ours else None
            if is_ours and entries is None:
                self._load(message)
                return
            self._loads.popleft()
            self._loading_for.popleft()
            if entries is not None:
                message.entries = entries
                self._transport.send(message.to, message)

    def _loaded(self, future: asyncio.Future[list[Entry]]) -> None:
        message = self._loads.popleft()
        self._loading_for.popleft()
        error = error_of(future)
        if self.stopped or future.cancelled():
            return
        self._send_loaded(message, future, error)
        self._load_next()

    def _send_loaded(
        self, message: AppendEntries, future: asyncio.Future[list[Entry]], error: BaseException | None
    ) -> None:
        if error is not None:
            if self.raft.log.start.index < message.prev_index:
                self._fail(error)  # the entry should be there: never skip what can't be read
            return  # else it was compacted meanwhile, and the follower gets the snapshot
        # Meanwhile leadership may have been lost, and the log changed: then the message must not be sent.
        if self._is_of_now(message):
            entries = future.result()
            if entries[-1].index < message.last_index:
                # The last entries were not on disk yet, so they are in memory; if not, the follower asks again.
                entries += self._log.cached(entries[-1].index + 1, message.last_index) or []
                message.last_index = entries[-1].index
            message.entries = entries
            self._transport.send(message.to, message)

    def _is_of_now(self, message: AppendEntries) -> bool:
        """Whether this node still leads as it did when the message was made, and so has the log that it names."""
        return self.raft.is_leader and self.raft.term == message.term

    def stop(self, error: RaftKVError) -> None:
        """Take no more inputs; all commands and queries that wait end with `error`."""
        self.stopped = True
        proposals, self._proposals = self._proposals, []
        for _, done in proposals:
            done(0, error)
        self._commands.fail_all(error)
        self._queries.fail_all(error)

    @property
    def has_pending(self) -> bool:
        """Whether a turn is due, because something has come in since the last one."""
        return self._scheduled

    @property
    def waiting(self) -> int:
        """How many commands and queries wait for an answer on this node."""
        return len(self._commands) + len(self._proposals) + self._queries.count

    @property
    def applied_index(self) -> Index:
        return self._applier.applied_index
