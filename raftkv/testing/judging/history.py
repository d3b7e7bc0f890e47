"""Histories: what clients asked, what they heard, and when; and whether one machine could have given these answers.

`is_linearizable` is the search of Wing and Gong with Lowe's memory of what was tried ("Testing for linearizability",
2017): is there an order of the operations, each between its call and its return, that a sequential model agrees with?
An operation whose outcome is not known may have taken effect at any time after its call, or never.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

import msgspec

from raftkv.testing.world.recorder import Recorder

UNKNOWN: Any = object()
"""The result of an operation that nobody heard the end of."""

Model: TypeAlias = Callable[[Any, "Operation"], "tuple[Any, Any]"]
"""From a (hashable) state and an operation to its result and the next state."""


class Operation(msgspec.Struct):
    """One call of a client; times in any unit that never goes back."""

    client: int
    key: Hashable
    name: str
    argument: Any
    called: float
    returned: float = math.inf
    result: Any = UNKNOWN

    def describe(self) -> str:
        """`client 2: increment n1 by 1 → 5   [3.2, 3.4]`."""
        end = "…" if self.returned == math.inf else f"{self.returned:.3f}"
        result = "?" if self.result is UNKNOWN else repr(self.result)
        return (
            f"client {self.client}: {self.name} {self.key!r} {self.argument!r} → {result}   [{self.called:.3f}, {end}]"
        )


class History:
    """All operations of a run, in the order of their calls, without those that were certainly not done."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.recorder: Recorder | None = None

    def call(self, client: int, key: Hashable, name: str, argument: Any, now: float) -> Operation:
        """A client begins an operation, which is in the history from now on."""
        operation = Operation(client, key, name, argument, now)
        self.operations.append(operation)
        if self.recorder is not None:
            self.recorder.called(operation)
        return operation

    def returned(self, operation: Operation, result: Any, now: float) -> None:
        """The client has heard the operation's result."""
        operation.result, operation.returned = result, now
        if self.recorder is not None:
            self.recorder.answered(operation, refused=False)

    def refused(self, operation: Operation) -> None:
        """The client has heard that nothing was done: take the operation out."""
        self.operations.remove(operation)
        if self.recorder is not None:
            self.recorder.answered(operation, refused=True)

    def by_key(self) -> dict[Hashable, list[Operation]]:
        """The operations by their keys. A map is linearizable if each of its keys is."""
        keys: dict[Hashable, list[Operation]] = {}
        for operation in self.operations:
            keys.setdefault(operation.key, []).append(operation)
        return keys

    def problems(self, model: Model, start: Any) -> list[str]:
        """Each key whose history no sequential run explains, with that history; empty if all is well."""
        return [
            f"the history of {key!r} is not linearizable:\n" + "\n".join(each.describe() for each in operations)
            for key, operations in self.by_key().items()
            if not is_linearizable(operations, model, start)
        ]

    def broken_at(self, model: Model, start: Any) -> float | None:
        """When a client first heard something that can't be true; None if all is well."""
        found = [
            _broken_at(operations, model, start)
            for operations in self.by_key().values()
            if not is_linearizable(operations, model, start)
        ]
        return min(found, default=None)


def _broken_at(operations: list[Operation], model: Model, start: Any) -> float:
    """The time of the first return with which the model can't explain the history. Later ones can't mend that."""
    returns = sorted(operation.returned for operation in operations if operation.returned < math.inf)

    def is_broken(until: float) -> bool:
        known = [operation for operation in operations if operation.called <= until]
        known = [each if each.returned <= until else _unheard(each) for each in known]
        return not is_linearizable(known, model, start)

    return returns[bisect.bisect_left(returns, True, key=is_broken)]


def _unheard(operation: Operation) -> Operation:
    return msgspec.structs.replace(operation, returned=math.inf, result=UNKNOWN)


def is_linearizable(operations: Sequence[Operation], model: Model, start: Any) -> bool:
    """Whether there is an order of `operations`, within their times, that the model gives when it begins at `start`."""
    ordered = sorted(operations, key=lambda operation: operation.called)
    completed = sum(operation.result is not UNKNOWN for operation in ordered)
    tried: set[tuple[int, Any]] = set()
    stack = [(0, 0, start)]
    while stack:
        done, count, state = stack.pop()
        if count == completed:
            return True
        for number in _next(ordered, done):
            operation = ordered[number]
            result, following = model(state, operation)
            known = operation.result is not UNKNOWN
            if known and result != operation.result:
                continue
            step = (done | 1 << number, following)
            if step not in tried:
                tried.add(step)
                stack.append((step[0], count + known, following))
    return False


def _next(ordered: list[Operation], done: int) -> list[int]:
    """The operations that may come next: they were called before any of the remaining ones returned."""
    left = [number for number in range(len(ordered)) if not done >> number & 1]
    first_return = min(ordered[number].returned for number in left)
    return [number for number in left if ordered[number].called <= first_return]


def counter(state: int, operation: Operation) -> tuple[Any, int]:
    """`increment` by the argument gives the new value; `read` the present one."""
    if operation.name == "increment":
        return state + operation.argument, state + operation.argument
    return state, state


def register(state: Any, operation: Operation) -> tuple[Any, Any]:
    """`write` sets the argument; `read` gives it; `compare` (old, new) sets new and gives True if it was old."""
    if operation.name == "write":
        return None, operation.argument
    if operation.name == "compare":
        old, new = operation.argument
        return (True, new) if state == old else (False, state)
    return state, state
