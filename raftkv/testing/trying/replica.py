"""A state machine with its own store, without a cluster, and the effects of calls on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from raftkv.disk.simulated import SimDisk
from raftkv.entry import Entry, make_entry
from raftkv.errors import NodeStopped, Rejected
from raftkv.machine import (
    DUE_AT_ONCE,
    NO_SESSION,
    Fired,
    OutcomeKind,
    Runner,
    StateMachine,
    encode_command,
    encode_query,
)
from raftkv.machine.outcome import read_rejection
from raftkv.model import GENESIS_CHAIN, EntryKind
from raftkv.state import COUNTS_KEY, Applied, Changes, MemoryStore
from raftkv.testing.trying.pair import founding

FIRINGS_MAX = 1_000
"""Entries that run what is due, between two calls: commands may schedule each other without any delay."""


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One call as a state machine gets it: the entry's time, the method's name, and encoded arguments."""

    time_ms: int
    name: str
    args: bytes


class Effect(msgspec.Struct, frozen=True, array_like=True):
    """The effect of a call: its encoded result, or the exception's name and text, and the changes of the store."""

    result: bytes | None = None
    rejected: tuple[str, str] | None = None
    failed: str | None = None
    """The error with which a node would have stopped here."""
    changes: dict[bytes, bytes | None] = {}

    def without_text(self) -> Effect:
        """What has to be the same of classes of different versions: an exception's text may be another."""
        return self if self.rejected is None else msgspec.structs.replace(self, rejected=(self.rejected[0], ""))


class Tables(msgspec.Struct, frozen=True, array_like=True):
    """All that a process leaves to the next one: its state, up to which entry that is, and the log's last checksum."""

    values: dict[bytes, bytes] = {}
    applied: Applied = Applied()
    chain: int = GENESIS_CHAIN


class _RecordingStore(MemoryStore):
    """Remembers the changes of the last command."""

    def __init__(self, values: dict[bytes, bytes], applied: Applied) -> None:
        super().__init__(SimDisk(), "/state", {})
        self.last: dict[bytes, bytes | None] = {}
        super().write(dict(values), applied)

    def write(self, changes: Changes, applied: Applied) -> None:
        self.last = {place: data for place, data in changes.items() if place != COUNTS_KEY}  # it follows from the rows
        super().write(changes, applied)


class Replica:
    """Runs calls one after the other on a new state machine, each as an entry of its own."""

    def __init__(self, machine: type[StateMachine], tables: Tables = Tables()) -> None:
        """On a copy of that state. Raises `WrongVersion` or `SchemaChanged` when it is none of the machine's."""
        self._machine = machine
        self._store = _RecordingStore(tables.values, tables.applied)
        self.fired: list[Fired] = []
        """What was scheduled and has been run, in order; whoever reads it may clear it."""
        self.runner = Runner(machine, self._store, on_fired=self.fired.append)
        self._chain = tables.chain

    @property
    def values(self) -> dict[bytes, bytes]:
        """The state."""
        return dict(self._store.scan(b"", None))

    def reopened(self, applied: Applied | None = None) -> Replica:
        """A new process with a copy of this state, as after a restart, or on another node that got a snapshot.

        `applied` is what it takes for applied, if not that.
        """
        return Replica(self._machine, Tables(self.values, applied or self.runner.applied, self._chain))

    @property
    def tables(self) -> Tables:
        """What another process needs to go on."""
        return Tables(self.values, self.runner.applied, self._chain)

    def run(self, step: Step) -> Effect:
        """Run one call, behind what was scheduled and is due by then, and return the effect of all of it.

        Before the first one the class's version becomes active, as by a cluster's first entry: what repeats begins."""
        if self.runner.applied.index == 0:
            self._enter(step.time_ms, EntryKind.NOOP, founding(self._machine))
        fired = self.wait(step.time_ms)
        if fired.failed is not None:
            return fired
        if self._machine.methods[step.name].is_query:
            effect = self.ask(encode_query(step.name, step.args), step.time_ms)
        else:
            payload = encode_command(NO_SESSION, 0, 0, step.name, step.args)
            effect = self._enter(step.time_ms, EntryKind.COMMAND, payload)
        return msgspec.structs.replace(effect, changes={**fired.changes, **effect.changes}) if fired.changes else effect

    def wait(self, until_ms: int) -> Effect:
        """Let time pass: run what was scheduled and comes to be due, each at its time. Returns the effect of all."""
        changes: dict[bytes, bytes | None] = {}
        for _ in range(FIRINGS_MAX):
            due_ms = self.runner.next_due_ms
            if due_ms is None or due_ms > until_ms:
                break
            fired = self._enter(max(due_ms, self.runner.applied.time_ms), EntryKind.DUE, DUE_AT_ONCE)
            if fired.failed is not None:
                return fired
            changes.update(fired.changes)
        return Effect(changes=changes)

    def _enter(self, time_ms: int, kind: EntryKind, payload: bytes) -> Effect:
        """Apply the next entry."""
        entry = make_entry(self.runner.applied.index + 1, 1, time_ms, kind, payload, self._chain)
        effect = self.apply(entry)
        if effect.failed is None:
            self._chain = entry.chain
        return effect

    def ask(self, payload: bytes, now_ms: int = 0) -> Effect:
        """Run a query, at the last entry's time or a later one."""
        try:
            return Effect(result=self.runner.query(payload, now_ms))
        except Rejected as rejected:
            return Effect(rejected=(rejected.error_type, rejected.message))

    def apply(self, entry: Entry) -> Effect:
        """Apply an entry; one without a command has no result."""
        self._store.last = {}
        try:
            (outcome,) = self.runner.apply([entry])
        except NodeStopped as exc:
            return Effect(failed=str(exc))
        if outcome is None:
            return Effect(changes=self._store.last)
        if outcome.kind is OutcomeKind.REJECTED:
            rejection = read_rejection(outcome.payload)
            return Effect(rejected=(rejection.error_type, rejection.message), changes=self._store.last)
        return Effect(result=outcome.payload, changes=self._store.last)

    def run_all(self, steps: Iterable[Step]) -> list[Effect]:
        """Run calls one after the other, up to one that would stop a node, and return their effects."""
        effects = []
        for step in steps:
            effects.append(self.run(step))
            if effects[-1].failed is not None:
                break
        return effects


def effects_of(machine: type[StateMachine], steps: Iterable[Step]) -> list[Effect]:
    """The effects of calls that are run one after the other on a new machine."""
    return Replica(machine).run_all(steps)


def arguments(machine: type[StateMachine], name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments as a method gets them: encoded and decoded again. Raises `InvalidArgument`."""
    method = machine.methods[name]
    return method.decode_args(msgspec.Raw(method.encode_args(args, {})))
