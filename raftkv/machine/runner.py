"""Runs a state machine on a store: committed entries in, outcomes out, and one digest over all effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec
import xxhash

from raftkv.access import Access
from raftkv.entry import Entry
from raftkv.errors import InvalidArgument, MachineFailed, NodeStopped, RaftKVError, SafetyViolation, TooMuchWork
from raftkv.history import Asked, Cursor, Found
from raftkv.machine.accesses import Accesses
from raftkv.machine.active import Active
from raftkv.machine.consistent import out_of_step
from raftkv.machine.depth import ROOM, with_room
from raftkv.machine.dues import Dues, Waiting
from raftkv.machine.lineages import Lineages, Origin
from raftkv.machine.loans import Loans
from raftkv.machine.methods import Method
from raftkv.machine.offering import arguments, not_offered
from raftkv.machine.outcome import TOO_DEEP, Outcome, OutcomeKind, error_type_of, read_rejection, rejected
from raftkv.machine.overlay import Overlay
from raftkv.machine.payloads import (
    BEGIN_LINEAGE,
    CHANGE_ACCESS,
    CLOSE_SESSION,
    NO_SESSION,
    OPEN_OWNED_SESSION,
    OPEN_SESSION,
    CommandPayload,
    check_depth,
    decode_command,
    decode_query,
)
from raftkv.machine.reading import UNLIMITED, Asker, Interrupted, More, slice_over
from raftkv.machine.recorder import Recorder, read_changes
from raftkv.machine.rejection import is_mistake
from raftkv.machine.results import bounded, narrowed
from raftkv.machine.scheduler import Scheduler
from raftkv.machine.sessions import Sessions, is_answer
from raftkv.machine.statemachine import Moment, StateMachine
from raftkv.machine.timers import Fired, Timers
from raftkv.machine.times import MethodTimes
from raftkv.machine.upgrading import NOT_ITS_OWN, Upgrading
from raftkv.machine.versions import Kept, VersionChange, read_kept
from raftkv.model import EntryKind, Index
from raftkv.state import Applied, StateView, Store

DIGESTS_KEPT = 65_536
"""Entries that a follower may be behind and still have its digest compared."""

_NOT_ITS_OWN = (NodeStopped, *NOT_ITS_OWN)

_NOTHING = msgspec.msgpack.encode(None)
_encoder = msgspec.msgpack.Encoder()
_owners = msgspec.msgpack.Decoder(tuple[str])


class Runner:
    """One state machine on one store, for one thread.

    Invariants: `applied` is the last entry whose effects are in the store, and every entry up to it took effect
    once, in order; between calls all effects are in the store.
    """

    def __init__(
        self,
        machine: type[StateMachine],
        store: Store,
        *,
        sessions_max: int = 4_096,
        session_ttl_ms: int = 3_600_000,
        slice_reads: int = UNLIMITED,
        on_mistake: Callable[[Method, BaseException], None] | None = None,
        on_active: Callable[[Active], None] | None = None,
        on_fired: Callable[[Fired], None] | None = None,
        on_access: Callable[[Access], None] | None = None,
        times: MethodTimes | None = None,
    ) -> None:
        """`slice_reads` is how many keys `query` lets a query read. `on_active` is called with each version that
        becomes active, now with the one that is; `on_fired` with each scheduled command that was run; `on_access` with
        the users and roles, now and after each write that changed them. `times` counts how long methods take.

        Raises `WrongVersion` or `SchemaChanged` when the machine can't run the version that is active in the store.
        """
        self.machine = machine
        self.store = store
        self.applied = store.applied
        self._overlay = Overlay(store, machine._limits, machine._counted())
        self._sessions = Sessions(self._overlay, sessions_max, session_ttl_ms)
        self._moment = Moment()
        self._instance = machine.__new__(machine)
        self._timers = Timers(self._overlay)
        scheduler = Scheduler(machine, self._timers, lambda: self.active)
        self._loans = Loans(self._overlay)
        self._recorder = Recorder(self._overlay)
        self._waiting = Waiting(self._overlay)
        vars(self._instance).update(
            _overlay=self._overlay, _moment=self._moment, _scheduler=scheduler, _loans=self._loans
        )
        self._slice_reads = slice_reads
        self._on_mistake = on_mistake
        self._on_active = on_active
        self._dues = Dues(
            self._overlay, self._timers, self._instance, lambda: self.active, self._run, self._recorder, on_fired
        )
        self._times = times
        self._origin = Origin(self._overlay, self._moment)
        self._accesses = Accesses(self._overlay, self._sessions, on_access)
        self._upgrading = Upgrading(machine, self._overlay, self._instance, self._activated)
        self._shown_ms = 0
        """The latest time that a query was shown."""
        self._before_ms = self.applied.time_ms
        """The time of the entry before the one that is being applied."""
        self._digests = [0] * DIGESTS_KEPT
        self._digests_from = self.applied.index
        self._digests[self.applied.index % DIGESTS_KEPT] = self.applied.digest

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._sessions)

    def session_owner(self, session_id: int) -> str | None:
        """Who may use a session; empty for one that is nobody's, None when there is none."""
        return self._sessions.owner_of(session_id)

    @property
    def timers(self) -> int:
        """How many scheduled commands wait for their time."""
        return self._waiting.timers

    @property
    def next_due_ms(self) -> int | None:
        """When the first of them is due, or the first row of an expiring table may be over, in milliseconds since the
        epoch; None when nothing waits."""
        return self._waiting.next_ms

    @property
    def active(self) -> Active:
        """The version that is active, as this machine sees it."""
        return self._upgrading.active

    def _activated(self, active: Active) -> None:
        self._checks = active
        self._asker = Asker(active, self.store, slice_over)
        self._waiting.activate(active)
        self._recorder.activate(active.sources)
        if self._on_active is not None:
            self._on_active(active)

    @property
    def lineages(self) -> Lineages:
        """What the cluster goes on from, as far as it is applied."""
        return self._origin.lineages

    @property
    def access(self) -> Access:
        """The users and roles in the state, and what each may do."""
        return self._accesses.access

    @property
    def instance(self) -> StateMachine:
        """The machine on this store, for a host that keeps values computed from its tables."""
        return self._instance

    def out_of_step(self) -> Iterator[str]:
        """What in indexes and counts is not as the rows of tables say, in sentences; reads all rows."""
        return out_of_step(self.active, self.store)

    @property
    def newest(self) -> Cursor:
        """Behind all that is applied."""
        return Cursor.behind(self.applied.index)

    @property
    def changed(self) -> frozenset[str]:
        """The watched tables and streams of events of which the last `apply` has recorded something, by name."""
        return self._recorder.changed

    def changes(self, asked: Asked, changes_max: int, bytes_max: int, view: StateView | None = None) -> Found:
        """What was changed, up to so many changes, and (but for one) so many bytes; go on behind `Found.after` until
        that is `newest`. Takes some milliseconds at most. On `view` it may be called on any thread.

        Raises `Compacted`, `InvalidArgument` for what is not recorded, or what the store raises.
        """
        if view is None:
            return read_changes(self.store, self.active.sources, asked, changes_max, bytes_max)
        return read_changes(view, self._active_in(view).sources, asked, changes_max, bytes_max)

    def digest_at(self, index: Index) -> int | None:
        """The digest after the entry `index`; None when it was not applied here, or long ago (`DIGESTS_KEPT`)."""
        last = self.applied.index
        if not max(self._digests_from, last - DIGESTS_KEPT + 1) <= index <= last:
            return None
        return self._digests[index % DIGESTS_KEPT]

    def check(self, payload: bytes) -> None:
        """Raises `InvalidArgument` for a command that this machine could not run, before it gets into the log, and
        `NotActive` for one that is not of the active version."""
        command = decode_command(payload)
        if command.name in (OPEN_SESSION, CLOSE_SESSION):
            check_depth("a session", payload)
            return
        offered = self._checks.command(command.name)
        if not offered.method.is_shallow:
            check_depth(command.name, payload)
            with_room(offered.method.decode_args, command.args, ROOM)
        self._checks.check(offered, command.args)

    def expect(self, version: int, schema: bytes) -> None:
        """Have `check` go by this version until one is active: what a leader is about to begin a new state with."""
        if self._upgrading.active.kept is None:
            self._checks = Active.of(self.machine, Kept(version, schema))

    def begin(self, time_ms: int) -> None:
        """For a state whose version no entry has made active: what repeats begins at `time_ms`."""
        self._timers.repeat(self.active.repeats, time_ms)
        self._overlay.keep()
        self._write(self.applied)

    def _write(self, applied: Applied) -> None:
        """Write the batch to the store."""
        batch = self._overlay.batch
        self._recorder.complete(batch)
        self._overlay.write(applied)
        self.applied = applied
        self._recorder.written()
        self._timers.written()
        self._waiting.written(batch)
        if self._accesses.has_news:
            self._accesses.tell()
        self._overlay.begin()

    def tried(self, change: VersionChange) -> VersionChange:
        """`change`, as a leader that has applied its whole log proposes it: with what upgrades raise, if they do.

        Raises `WrongVersion` or `SchemaChanged` when the machine can't run that version, `StateCorruption`.
        """
        applied = self.applied
        self._begin_change(applied.index + 1, applied.time_ms, applied.digest)
        return with_room(self._upgrading.tried, change, ROOM)

    def apply(self, entries: Sequence[Entry]) -> list[Outcome | None]:
        """Apply committed entries, as one write to the store; an outcome for each, None for entries without a command.

        Raises `UnknownCommand` or `MachineFailed` for an entry that can't be applied: then the entries before it are
        applied, but not itself and those behind. When it raises what the store raised, any of them may be applied.
        """
        if entries[0].index != self.applied.index + 1:
            raise SafetyViolation(f"entry {entries[0].index} is to be applied behind {self.applied.index}")
        return with_room(self._apply_all, entries, ROOM)

    def _apply_all(self, entries: Sequence[Entry]) -> list[Outcome | None]:
        outcomes: list[Outcome | None] = []
        digest, last = self.applied.digest, None
        overlay = self._overlay
        if self._times is not None:
            self._times.begin()
        try:
            for entry in entries:
                outcome, digest = self._apply(entry, digest)
                outcomes.append(outcome)
                self._digests[entry.index % DIGESTS_KEPT] = digest
                last, self._before_ms = entry, entry.time_ms
        finally:
            overlay.undo()
            self._recorder.undo(self.applied.index if last is None else last.index)
            if last is not None:
                self._write(Applied(last.index, last.term, last.time_ms, digest))
        return outcomes

    def _apply(self, entry: Entry, digest: int) -> tuple[Outcome | None, int]:
        """Apply one entry to the overlay; returns its outcome, and the digest after it."""
        overlay, sessions = self._overlay, self._sessions
        if entry.kind != EntryKind.COMMAND:
            return None, self._apply_other(entry, digest)
        command = self._decode(entry)
        sessions.begin(entry.time_ms)
        outcome = TOO_DEEP if command is None else self._perform(command, entry)
        overlay.own.update(sessions.changes)
        if self._recorder.is_on:
            self._recorder.add(entry.index, entry.time_ms)
        payload, changes = outcome.payload, list(overlay.own.items())
        if outcome.kind is OutcomeKind.REJECTED and self._upgrading.active.kept is not None:
            # Texts and fields may differ between classes of one version, and of two: a record shows the fields that it
            # has. (Before a version is active, nodes may run a raftkv that counted them in.)
            payload, changes = error_type_of(payload), [each for each in changes if not is_answer(*each)]
        effects = _encoder.encode((entry.chain, outcome.kind, payload, changes))
        overlay.keep()
        return outcome, xxhash.xxh3_64_intdigest(effects, digest)

    def _apply_other(self, entry: Entry, digest: int) -> int:
        """Apply an entry that is no command; returns the digest after it."""
        overlay, is_first = self._overlay, entry.kind == EntryKind.NOOP and self._origin.is_new
        if is_first:
            self._origin.begin(entry.time_ms)
        if entry.kind == EntryKind.CLOCK:
            self._sessions.clock_reset(entry.time_ms)
            overlay.own.update(self._sessions.changes)
            self._timers.begin_anew(entry.time_ms)
            self._shown_ms = 0
        elif entry.kind == EntryKind.UPGRADE or (entry.kind == EntryKind.NOOP and entry.payload):
            self._begin_change(entry.index, self._before_ms, digest)
            before = self.active
            self._upgrading.apply(entry)
            self._timers.repeat(self.active.repeats, entry.time_ms)
            if self.active.kept is not None and self.active.version != (before.kept and before.version):
                self._recorder.went_over(before.sources, entry.index, is_first=before.kept is None)
            self._recorder.add(entry.index, entry.time_ms)
        elif entry.kind == EntryKind.DUE:
            return xxhash.xxh3_64_intdigest(_encoder.encode((entry.chain, *self._dues.apply(entry))), digest)
        elif not is_first:
            return xxhash.xxh3_64_intdigest(_encoder.encode(entry.chain), digest)
        effects = _encoder.encode((entry.chain, list(overlay.own.items())))
        overlay.keep()
        return xxhash.xxh3_64_intdigest(effects, digest)

    def _begin_change(self, index: Index, time_ms: int, digest: int) -> None:
        """What an upgrade may know: its entry's index, and the time and digest of the entry before, as the leader that
        tries it does not have its own yet."""
        moment = self._moment
        moment.index, moment.time_ms, moment.chain, moment.random = index, time_ms, digest, None

    def _begin(self, entry: Entry, timer_id: int | None = None) -> None:
        """What a method may know of the entry that it is run for; each timer of an entry has dice of its own."""
        chain = entry.chain
        if timer_id is not None:
            chain = xxhash.xxh3_64_intdigest(timer_id.to_bytes(8, "big"), chain)
        moment = self._moment
        moment.index, moment.time_ms, moment.chain, moment.random = entry.index, entry.time_ms, chain, None

    def _decode(self, entry: Entry) -> CommandPayload | None:
        """The command; None when it is nested too deep to be read."""
        try:
            return decode_command(entry.payload)
        except InvalidArgument as exc:
            if isinstance(exc.__cause__, RecursionError):
                return None
            raise MachineFailed(f"entry {entry.index} holds {exc}: it was not applied") from exc

    def _perform(self, command: CommandPayload, entry: Entry) -> Outcome:
        sessions = self._sessions
        if command.name == OPEN_SESSION:
            return Outcome(OutcomeKind.APPLIED, _encoder.encode(sessions.open(entry.index, entry.time_ms)))
        if command.name == CLOSE_SESSION:
            sessions.close(command.session_id)
            return Outcome(OutcomeKind.APPLIED, _NOTHING)
        if command.session_id == NO_SESSION:
            return self._run(command, entry)
        known = sessions.known_outcome(command)
        new = self._run(command, entry) if known is None else None
        sessions.used(command, entry.index, entry.time_ms, new)
        outcome = known or new
        assert outcome is not None, "an outcome is known, or it is made now"
        return outcome

    def _run(self, command: CommandPayload, entry: Entry, timer_id: int | None = None) -> Outcome:
        """Run the command's method; its changes are in the overlay, or undone when it raised.

        With a timer's id, nobody waits for what it says, so whatever it raises is met as a mistake is.
        """
        upgrading = self._upgrading
        offered = upgrading.active.commands.get(command.name)
        if offered is None:
            if command.name == CHANGE_ACCESS:
                return self._accesses.apply(command, entry)
            if command.name == BEGIN_LINEAGE:
                return self._origin.part(command, entry)
            if command.name == OPEN_OWNED_SESSION:
                opened = self._sessions.open(entry.index, entry.time_ms, _owners.decode(command.args)[0])
                return Outcome(OutcomeKind.APPLIED, _encoder.encode(opened))
            return not_offered(upgrading.active, command, entry)
        method, args = offered.method, arguments(upgrading.active, offered, command, entry)
        if isinstance(args, Outcome):
            return args
        overlay, times, raised = self._overlay, self._times, False
        self._begin(entry, timer_id)
        overlay.writable = True
        try:
            result = method.encode_result(method.run(self._instance, *args))
            if self._loans.lent:
                self._loans.check()
            if offered.narrow is not None:
                result = narrowed(method, offered.narrow, result)
            return Outcome(OutcomeKind.APPLIED, bounded(method, result))
        except _NOT_ITS_OWN as exc:
            if isinstance(exc, NodeStopped):
                raise
            raise MachineFailed(
                f"the command {method.name} in entry {entry.index} failed with {type(exc).__name__}: {exc}, which need "
                f"not happen on every node. It was not applied. Mend the cause ({method.line}), then start the node; "
                "if it stops every node, start all of them with a mended class"
            ) from exc
        except KeyboardInterrupt:
            raise  # Ctrl-C, not the command
        except BaseException as exc:  # noqa: BLE001 (whatever else a command raises is the caller's)
            raised = True
            overlay.undo()
            self._loans.clear()
            self._raised(method, exc, is_alone=timer_id is not None)
            return rejected(exc)
        finally:
            overlay.writable = False
            if times is not None:
                times.ran(method, raised)
            if upgrading.active.ghosts:
                upgrading.ghost.clear()

    def _raised(self, method: Method, error: BaseException, *, is_alone: bool = False) -> None:
        if self._on_mistake is not None and (is_alone or is_mistake(error)):
            self._on_mistake(method, error)

    def present_ms(self, now_ms: int) -> int:
        """What time queries are shown if a clock says `now_ms`: never less than the last entry's time, nor than they
        were shown before, unless the log's time was reset since."""
        self._shown_ms = max(now_ms, self._shown_ms, self.applied.time_ms)
        return self._shown_ms

    def query(self, payload: bytes, now_ms: int = 0) -> bytes:
        """Run a query on the state as it is, at `present_ms(now_ms)`; returns the encoded result.

        Raises `SliceOver` when it reads more than a slice, `InvalidArgument`, `Rejected` for what it raises itself, or
        what the store raises.
        """
        ran = None
        if (times := self._times) is not None:
            times.begin()
            ran = times.ran
        at = self.applied.index, self.present_ms(now_ms)
        return self._ask(self._asker, payload, at, self._slice_reads, ran)

    @property
    def told_time(self) -> bool:
        """Whether the last `query` has asked what time it is, so that it may go otherwise later, on the same state."""
        return self._asker.told_time

    def query_view(self, view: StateView, payload: bytes, more: More, now_ms: int = 0) -> bytes:
        """Run a query on `view`, on any thread; as `query`, but `more` decides how much it reads, and it is shown
        `now_ms`, or the time of the view's last entry if that is later.

        Also raises what `more` raises; nothing keeps the view open then.
        """
        times = self._times
        ran = partial(times.ran_beside, began=times.clock()) if times is not None else None
        try:
            at = view.applied.index, max(now_ms, view.applied.time_ms)
            return self._ask(Asker(self._active_in(view), view, more), payload, at, 0, ran)
        except (RaftKVError, Interrupted) as exc:
            # A traceback holds frames, and frames hold iterators, which would keep the closed store open.
            exc.__cause__ = exc.__context__ = None
            raise exc.with_traceback(None) from None

    def _active_in(self, view: StateView) -> Active:
        """The version that was active when the view was taken."""
        active, kept = self._upgrading.active, read_kept(view)
        if kept == active.kept:
            return active
        return Active.of(self.machine, None) if kept is None else active.going_on(kept)

    def _ask(
        self,
        asker: Asker,
        payload: bytes,
        at: tuple[Index, int],
        reads: int,
        ran: Callable[[Method, bool], None] | None,
    ) -> bytes:
        """Answer a query at an index and a time.

        `ran` is told of its end, unless it begins anew elsewhere or nobody waits for it any more.
        """
        request = decode_query(payload)
        method = asker.active.query(request.name)
        args = method.decode_args(request.args)
        asker.active.check_query(method, request.args)
        raised = False
        try:
            return bounded(method, method.encode_result(asker.ask(method, args, at, reads)))
        except Interrupted:
            ran = None
            raise
        except (NodeStopped, TooMuchWork, KeyboardInterrupt):
            raise
        except BaseException as exc:
            raised = True
            self._raised(method, exc)
            raise read_rejection(rejected(exc).payload) from exc
        finally:
            if ran is not None:
                ran(method, raised)
