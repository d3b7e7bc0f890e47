"""A state machine with its own store, without a cluster, and the effects of calls on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from raftkv.disk.simulated import SimDisk
from raftkv.entry import Entry, make_entry
from raftkv.errors import NodeStopped, Rejected
from raftkv.machine import NO_SESSION, OutcomeKind, Runner, StateMachine, encode_command, encode_query
from raftkv.machine.outcome import read_rejection
from raftkv.model import GENESIS_CHAIN, EntryKind
from raftkv.state import Applied, Changes, MemoryStore


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


class _RecordingStore(MemoryStore):
    """Remembers the changes of the last command."""

    def __init__(self, values: dict[bytes, bytes] | None = None, applied: Applied | None = None) -> None:
        super().__init__(SimDisk(), "/state", {})
        self.last: dict[bytes, bytes | None] = {}
        super().write(dict(values or {}), applied or Applied())

    def write(self, changes: Changes, applied: Applied) -> None:
        self.last = dict(changes)
        super().write(changes, applied)


class Replica:
    """Runs calls one after the other on a new state machine, each as an entry of its own."""

    def __init__(
        self, machine: type[StateMachine], values: dict[bytes, bytes] | None = None, applied: Applied | None = None
    ) -> None:
        """With `values`, on a copy of that state. Raises `WrongVersion` or `SchemaChanged` when it is none of the
        machine's."""
        self._machine = machine
        self._store = _RecordingStore(values, applied)
        self.runner = Runner(machine, self._store)
        self._chain = GENESIS_CHAIN

    @property
    def values(self) -> dict[bytes, bytes]:
        """The state."""
        return dict(self._store.scan(b"", None))

    def reopened(self, applied: Applied | None = None) -> Replica:
        """A new process with a copy of this state, as after a restart, or on another node that got a snapshot.

        `applied` is what it takes for applied, if not that.
        """
        return Replica(self._machine, self.values, applied or self.runner.applied)

    def run(self, step: Step) -> Effect:
        """Run one call, and return its effect."""
        if self._machine.methods[step.name].is_query:
            return self.ask(encode_query(step.name, step.args))
        payload = encode_command(NO_SESSION, 0, 0, step.name, step.args)
        entry = make_entry(self.runner.applied.index + 1, 1, step.time_ms, EntryKind.COMMAND, payload, self._chain)
        effect = self.apply(entry)
        if effect.failed is None:
            self._chain = entry.chain
        return effect

    def ask(self, payload: bytes) -> Effect:
        """Run a query."""
        try:
            return Effect(result=self.runner.query(payload))
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


def effects_of(machine: type[StateMachine], steps: Iterable[Step]) -> list[Effect]:
    """The effects of calls that are run one after the other, up to one that would stop a node."""
    replica, effects = Replica(machine), []
    for step in steps:
        effects.append(replica.run(step))
        if effects[-1].failed is not None:
            break
    return effects


def arguments(machine: type[StateMachine], name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments as a method gets them: encoded and decoded again. Raises `InvalidArgument`."""
    method = machine.methods[name]
    return method.decode_args(msgspec.Raw(method.encode_args(args, {})))
