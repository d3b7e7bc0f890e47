"""A state machine with its own store, without a cluster, and the effects of calls on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import MachineFailed, Rejected
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
    """The text of a `MachineFailed`: a node would have stopped here."""
    changes: dict[bytes, bytes | None] = {}


class _RecordingStore(MemoryStore):
    """Remembers the changes of the last command."""

    def __init__(self) -> None:
        super().__init__(SimDisk(), "/state", {})
        self.last: dict[bytes, bytes | None] = {}

    def write(self, changes: Changes, applied: Applied) -> None:
        self.last = dict(changes)
        super().write(changes, applied)


class Replica:
    """Runs calls one after the other on a new state machine, each as an entry of its own."""

    def __init__(self, machine: type[StateMachine]) -> None:
        self._machine = machine
        self._store = _RecordingStore()
        self._runner = Runner(machine, self._store)
        self._chain = GENESIS_CHAIN

    def run(self, step: Step) -> Effect:
        """Run one call, and return its effect."""
        if self._machine.methods[step.name].is_query:
            try:
                return Effect(result=self._runner.query(encode_query(step.name, step.args)))
            except Rejected as rejected:
                return Effect(rejected=(rejected.error_type, rejected.message))
        payload = encode_command(NO_SESSION, 0, 0, step.name, step.args)
        index = self._runner.applied.index + 1
        entry = make_entry(index, 1, step.time_ms, EntryKind.COMMAND, payload, self._chain)
        try:
            (outcome,) = self._runner.apply([entry])
        except MachineFailed as exc:
            return Effect(failed=str(exc))
        self._chain = entry.chain
        assert outcome is not None
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
