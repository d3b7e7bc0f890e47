"""Runs a state machine on a store: committed entries in, outcomes out, and one digest over all effects."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import xxhash

from raftkv.config import MIB
from raftkv.entry import Entry
from raftkv.errors import (
    InvalidArgument,
    MachineFailed,
    NodeStopped,
    RaftKVError,
    SafetyViolation,
    TooMuchWork,
    UnknownCommand,
)
from raftkv.machine.active import Active, Narrower, Offered
from raftkv.machine.depth import ROOM, ROOM_TO_CHECK, with_room
from raftkv.machine.methods import Method, read_array_header
from raftkv.machine.outcome import TOO_DEEP, Outcome, OutcomeKind, error_type_of, not_active, read_rejection, rejected
from raftkv.machine.overlay import Overlay
from raftkv.machine.payloads import (
    CLOSE_SESSION,
    NO_SESSION,
    OPEN_SESSION,
    CommandPayload,
    decode_command,
    decode_query,
)
from raftkv.machine.reading import UNLIMITED, Asker, Interrupted, More, slice_over
from raftkv.machine.rejection import is_mistake
from raftkv.machine.sessions import Sessions, is_answer
from raftkv.machine.statemachine import Moment, StateMachine
from raftkv.machine.upgrading import NOT_ITS_OWN, Upgrading
from raftkv.machine.versions import Change, Kept, read_kept
from raftkv.model import EntryKind, Index
from raftkv.state import Applied, StateView, Store

DIGESTS_KEPT = 65_536
"""Entries that a follower may be behind and still have its digest compared."""

RESULT_BYTES_MAX = 8 * MIB
"""The limit of one encoded result: it is kept with the session, and must fit into a frame."""

_NOT_ITS_OWN = (NodeStopped, *NOT_ITS_OWN)

_NOTHING = msgspec.msgpack.encode(None)
_encoder = msgspec.msgpack.Encoder()


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
    ) -> None:
        """`slice_reads` is how many keys `query` lets a query read. `on_active` is called with each version that
        becomes active, now with the one that is.

        Raises `WrongVersion` or `SchemaChanged` when the machine can't run the version that is active in the store.
        """
        self.machine = machine
        self.store = store
        self.applied = store.applied
        self._overlay = Overlay(store, machine._limits)
        self._sessions = Sessions(self._overlay, sessions_max, session_ttl_ms)
        self._moment = Moment()
        self._instance = machine.__new__(machine)
        vars(self._instance).update(_overlay=self._overlay, _moment=self._moment)
        self._slice_reads = slice_reads
        self._on_mistake = on_mistake
        self._on_active = on_active
        self._upgrading = Upgrading(machine, self._overlay, self._instance, self._activated)
        self._digests = [0] * DIGESTS_KEPT
        self._digests_from = self.applied.index
        self._digests[self.applied.index % DIGESTS_KEPT] = self.applied.digest

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._sessions)

    @property
    def active(self) -> Active:
        """The version that is active, as this machine sees it."""
        return self._upgrading.active

    def _activated(self, active: Active) -> None:
        self._checks = active
        self._asker = Asker(active, self.store, slice_over)
        if self._on_active is not None:
            self._on_active(active)

    @property
    def instance(self) -> StateMachine:
        """The machine on this store, for a host that keeps values computed from its tables."""
        return self._instance

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
            with_room(decode_command, payload, ROOM_TO_CHECK)
            return
        offered = self._checks.command(command.name)
        if not offered.method.is_shallow:
            with_room(decode_command, payload, ROOM_TO_CHECK)
            with_room(offered.method.decode_args, command.args, ROOM_TO_CHECK)
        self._checks.check(offered, command.args)

    def expect(self, version: int, schema: bytes) -> None:
        """Have `check` go by this version until one is active: what a leader is about to begin a new state with."""
        if self._upgrading.active.kept is None:
            self._checks = Active(self.machine, Kept(version, schema))

    def tried(self, change: Change) -> Change:
        """`change`, as a leader that has applied its whole log proposes it: with what upgrades raise, if they do.

        Raises `WrongVersion` or `SchemaChanged` when the machine can't run that version, `StateCorruption`.
        """
        moment, applied = self._moment, self.applied
        moment.index, moment.time_ms, moment.chain, moment.random = applied.index, applied.time_ms, applied.digest, None
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
        try:
            for entry in entries:
                outcome, digest = self._apply(entry, digest)
                outcomes.append(outcome)
                self._digests[entry.index % DIGESTS_KEPT] = digest
                last = entry
        finally:
            overlay.undo()
            if last is not None:
                applied = Applied(last.index, last.term, last.time_ms, digest)
                self.store.write(overlay.batch, applied)
                self.applied = applied
            overlay.batch = {}
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
        overlay = self._overlay
        if entry.kind == EntryKind.CLOCK:
            self._sessions.clock_reset(entry.time_ms)
            overlay.own.update(self._sessions.changes)
        elif entry.kind == EntryKind.UPGRADE or (entry.kind == EntryKind.NOOP and entry.payload):
            self._begin(entry)
            self._upgrading.apply(entry)
        else:
            return xxhash.xxh3_64_intdigest(_encoder.encode(entry.chain), digest)
        effects = _encoder.encode((entry.chain, list(overlay.own.items())))
        overlay.keep()
        return xxhash.xxh3_64_intdigest(effects, digest)

    def _begin(self, entry: Entry) -> None:
        """What a method may know of the entry that it is run for."""
        moment = self._moment
        moment.index, moment.time_ms, moment.chain, moment.random = entry.index, entry.time_ms, entry.chain, None

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

    def _run(self, command: CommandPayload, entry: Entry) -> Outcome:
        """Run the command's method; its changes are in the overlay, or undone when it raised."""
        upgrading = self._upgrading
        offered = upgrading.active.commands.get(command.name)
        if offered is None:
            return self._not_offered(command, entry)
        method, args = offered.method, self._arguments(offered, command, entry)
        if isinstance(args, Outcome):
            return args
        overlay = self._overlay
        self._begin(entry)
        overlay.writable = True
        try:
            result = method.encode_result(method.function(self._instance, *args))
            if offered.narrow is not None:
                result = _narrowed(method, offered.narrow, result)
            return Outcome(OutcomeKind.APPLIED, _bounded(method, result))
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
            overlay.undo()
            self._raised(method, exc)
            return rejected(exc)
        finally:
            overlay.writable = False
            if upgrading.active.ghosts:
                upgrading.ghost.clear()

    def _not_offered(self, command: CommandPayload, entry: Entry) -> Outcome:
        """The active version lacks the command: the same on every node, as the schema is part of the state.

        Raises `UnknownCommand` when no version is active yet, and so nothing tells what the others have.
        """
        if self._upgrading.active.kept is not None:
            return not_active(f"version {self._upgrading.active.version} has no command {command.name}")
        raise UnknownCommand(
            f"entry {entry.index} holds the command {command.name!r}, which this {self.machine.__name__} does not "
            "have. It was not applied. Start this node with the version of the application that the others run"
        )

    def _arguments(self, offered: Offered, command: CommandPayload, entry: Entry) -> tuple[object, ...] | Outcome:
        """The decoded arguments; the outcome for those that are nested too deep to be read, or are too many."""
        method = offered.method
        if offered.takes != method.arity and read_array_header(command.args)[0] > offered.takes:
            return self._too_many(offered)
        try:
            return method.decode_args(command.args)
        except InvalidArgument as exc:
            if isinstance(exc.__cause__, RecursionError):
                return TOO_DEEP
            if self._upgrading.active.kept is not None and read_array_header(command.args)[0] > offered.takes:
                return self._too_many(offered)  # a later class, which could read them, rejects them as well
            raise MachineFailed(
                f"entry {entry.index} can't be applied: {exc}. Start this node with the version of the application "
                "that the others run; types of arguments must not change while old entries are in the log"
            ) from exc

    def _too_many(self, offered: Offered) -> Outcome:
        version = self._upgrading.active.version
        return not_active(f"version {version} of the command {offered.method.name} takes {offered.takes} arguments")

    def _raised(self, method: Method, error: BaseException) -> None:
        if self._on_mistake is not None and is_mistake(error):
            self._on_mistake(method, error)

    def query(self, payload: bytes) -> bytes:
        """Run a query on the state as it is; returns the encoded result.

        Raises `SliceOver` when it reads more than a slice, `InvalidArgument`, `Rejected` for what it raises itself, or
        what the store raises.
        """
        return self._ask(self._asker, payload, self.applied, self._slice_reads)

    def query_view(self, view: StateView, payload: bytes, more: More) -> bytes:
        """Run a query on `view`, on any thread; as `query`, but `more` decides how much it reads.

        Also raises what `more` raises; nothing keeps the view open then.
        """
        try:
            return self._ask(Asker(self._active_in(view), view, more), payload, view.applied, 0)
        except (RaftKVError, Interrupted) as exc:
            # A traceback holds frames, and frames hold iterators, which would keep the closed store open.
            exc.__cause__ = exc.__context__ = None
            raise exc.with_traceback(None) from None

    def _active_in(self, view: StateView) -> Active:
        """The version that was active when the view was taken."""
        active, kept = self._upgrading.active, read_kept(view)
        if kept == active.kept:
            return active
        return Active(self.machine, None) if kept is None else active.going_on(kept)

    def _ask(self, asker: Asker, payload: bytes, applied: Applied, reads: int) -> bytes:
        request = decode_query(payload)
        method = asker.active.query(request.name)
        args = method.decode_args(request.args)
        asker.active.check_query(method, request.args)
        try:
            return _bounded(method, method.encode_result(asker.ask(method, args, applied, reads)))
        except (NodeStopped, TooMuchWork, Interrupted):
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            self._raised(method, exc)
            raise read_rejection(rejected(exc).payload) from exc


def _narrowed(method: Method, narrow: Narrower, result: bytes) -> bytes:
    """The encoded result as the active version has it; `TypeError` when that has no such result."""
    try:
        return narrow(result)
    except msgspec.MsgspecError as exc:
        raise TypeError(f"{method.name} returned what the active version does not return: {exc}") from exc


def _bounded(method: Method, result: bytes) -> bytes:
    """The encoded result; `ValueError` when it would not fit into an answer."""
    if len(result) > RESULT_BYTES_MAX:
        raise ValueError(f"{method.name} returned {len(result)} bytes: must be at most {RESULT_BYTES_MAX}")
    return result
