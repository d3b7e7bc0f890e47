"""Judges by the cluster's log what clients heard, where the order of the calls alone does not explain it.

What depends on time, and on commands that run by themselves, a model can say only if it is told both. The log has them:
it is applied to one replica, and told to the model entry by entry. What the replica gives must be what the model says;
what clients heard must be what the replica gives; and the log must not contradict the order in which clients acted.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from raftkv.entry import Entry
from raftkv.machine import (
    BEGIN_LINEAGE,
    CHANGE_ACCESS,
    CLOSE_SESSION,
    NO_SESSION,
    OPEN_OWNED_SESSION,
    OPEN_SESSION,
    Fired,
    OutcomeKind,
    StateMachine,
)
from raftkv.machine.outcome import Outcome, read_rejection
from raftkv.machine.payloads import decode_command
from raftkv.model import EntryKind, Index
from raftkv.testing.judging.failure import Cause, CounterExample
from raftkv.testing.judging.models import Answer, ModelState, Raised, Returned
from raftkv.testing.judging.operation import Operation
from raftkv.testing.tracing.sidebyside import Side
from raftkv.testing.trying.answers import beside, difference_of
from raftkv.testing.trying.applied import AppliedEntries
from raftkv.testing.trying.replica import Replica
from raftkv.testing.trying.script import Call


class HeardOf(msgspec.Struct):
    """A call that a client has heard the end of, and by what its place in the log is found."""

    operation: Operation
    session: int = NO_SESSION
    sequence: int = 0
    """Of a command."""
    index: Index | None = None
    """At which a query was answered."""
    payload: bytes = b""
    """Of a query."""


class LogJudge:
    """Tells a model what the log says. Everything that it finds is raised as a `CounterExample`."""

    def __init__(self, machine: type[StateMachine], model: type, log: AppliedEntries, entries: Sequence[Entry]) -> None:
        self._machine = machine
        self._log = log
        self._entries = entries
        self._replica = Replica(machine)
        self._states: list[ModelState] = [ModelState(model())]
        """By the index of the entry behind which they are."""
        self._done: dict[tuple[int, int], tuple[Index, Answer]] = {}
        """By session and number: where each command was applied, and what it gave."""

    def judge(self, heard: Sequence[HeardOf]) -> None:
        """Raises `CounterExample`."""
        for entry in self._entries:
            self._states.append(self._told(entry, self._states[-1]))
        for each in heard:
            self._judge_answer(each)
        self._judge_order(heard)

    def _told(self, entry: Entry, state: ModelState) -> ModelState:
        """The model's state behind an entry."""
        self._replica.fired.clear()
        (outcome,) = self._replica.runner.apply([entry])
        for fired in self._replica.fired:
            state = told_of(self._machine, fired, state, Cause.NOT_LINEARIZABLE)
        if outcome is None or entry.kind != EntryKind.COMMAND:
            return state
        command = decode_command(entry.payload)
        place = command.session_id, command.sequence
        is_own = command.name in (OPEN_SESSION, OPEN_OWNED_SESSION, CLOSE_SESSION, CHANGE_ACCESS, BEGIN_LINEAGE)
        if is_own or outcome.kind not in _APPLIED or place in self._done:
            return state  # a retry gets the same answer once more
        args = self._machine.methods[command.name].decode_args(command.args)
        found = answer_of_outcome(self._machine, command.name, outcome)
        expected, state = state.call(command.name, args, entry.time_ms)
        if expected != found:
            raise _wrong(f"{Call(command.name, args).described} in entry {entry.index} {found}, the model {expected}")
        if command.session_id != NO_SESSION:
            self._done[place] = entry.index, found
        return state

    def _judge_answer(self, each: HeardOf) -> None:
        """Raises when a client heard something else than the log comes to."""
        operation = each.operation
        described = f"client {operation.client}: {Call(operation.name, operation.argument).described}"
        if not self._machine.methods[operation.name].is_query:
            place = self._done.get((each.session, each.sequence))
            if place is None:
                raise _wrong(f"{described} {operation.result}, and is not in the log")
            each.index = place[0]
            if place[1] != operation.result:
                raise _wrong(f"{described} {operation.result}, and {place[1]} in entry {each.index}")
        elif each.index is not None:
            times = self._log.asked.get((each.index, each.payload), set())
            state = self._states[min(each.index, len(self._states) - 1)]
            expected = [state.call(operation.name, operation.argument, now_ms)[0] for now_ms in sorted(times)]
            if expected and operation.result not in expected:
                said = ", or ".join(dict.fromkeys(map(str, expected)))
                raise _wrong(f"{described} {operation.result} at index {each.index}, the model {said}")

    def _judge_order(self, heard: Sequence[HeardOf]) -> None:
        """Raises when the log has calls in another order than clients made them in."""
        for each in heard:
            is_query = self._machine.methods[each.operation.name].is_query
            for other in heard:
                if each.index is None or other.index is None or other.operation.returned >= each.operation.called:
                    continue
                if other.index > each.index or (other.index == each.index and not is_query):
                    raise _wrong(
                        f"{_named(each)} was done at index {each.index}, and {_named(other)}, which had been answered "
                        f"when it began, at {other.index}"
                    )


_APPLIED = (OutcomeKind.APPLIED, OutcomeKind.REJECTED)


def _named(each: HeardOf) -> str:
    operation = each.operation
    return f"client {operation.client}: {Call(operation.name, operation.argument).described} {operation.result}"


def _wrong(text: str) -> CounterExample:
    return CounterExample(Cause.NOT_LINEARIZABLE, f"the log does not explain what clients heard: {text}")


def told_of(
    machine: type[StateMachine], fired: Fired, state: ModelState, cause: Cause, rows: list[Side] | None = None
) -> ModelState:
    """The model's state when it was told of a command that has run by itself, if it says anything of that.

    What either says is put into `rows`."""
    if not fired.is_known or not fired.args or not state.has(fired.name):
        return state
    args = machine.methods[fired.name].decode_args(msgspec.Raw(fired.args))
    found = answer_of_outcome(machine, fired.name, fired.outcome)
    expected, state = state.call(fired.name, args, fired.time_ms)
    if rows is not None:
        rows.append(Side(f"by itself: {Call(fired.name, args).described}", *beside(found, expected)))
    if expected != found:
        method = machine.methods[fired.name]
        raise CounterExample(
            cause,
            f"{Call(fired.name, args).described}, which has run by itself, {found}, the model {expected}\n"
            f"{method.line}: {method.kind} {method.describe()}{difference_of(found, expected)}",
        )
    return state


def answer_of_outcome(machine: type[StateMachine], name: str, outcome: Outcome) -> Answer:
    """The answer of which a client would have heard."""
    if outcome.kind is OutcomeKind.REJECTED:
        rejection = read_rejection(outcome.payload)
        return Raised(rejection.error_type, rejection.message)
    return Returned(machine.methods[name].decode_result(outcome.payload))
