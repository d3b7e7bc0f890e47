"""One call of a client, as a history keeps it, and the sequential models by which raftkv's own histories are judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import msgspec

from raftkv.errors import InvalidArgument

UNKNOWN: Any = object()
"""The result of an operation that nobody heard the end of: it was done at any time after its call, or never."""

Model: TypeAlias = Callable[[Any, "Operation"], "tuple[Any, Any]"]
"""From a (hashable) state and an operation to its result and the next state. It goes by key, name and argument."""


class Operation(msgspec.Struct):
    """One call of a client; times in any unit that never goes back."""

    client: int
    key: Hashable
    name: str
    argument: Any
    called: float
    returned: float = math.inf
    result: Any = UNKNOWN
    is_read: bool = False
    """It changes nothing, whatever the state is: only a help for the search, so leave it False in doubt."""

    def describe(self) -> str:
        """`client 2: increment n1 by 1 → 5   [3.2, 3.4]`."""
        end = "…" if self.returned == math.inf else f"{self.returned:.3f}"
        result = "?" if self.result is UNKNOWN else repr(self.result)
        return (
            f"client {self.client}: {self.name} {self.key!r} {self.argument!r} → {result}   [{self.called:.3f}, {end}]"
        )

    def check(self) -> None:
        """Raises `InvalidArgument` for times that can't be: what nobody heard the end of has none."""
        if not self.called <= self.returned:
            raise InvalidArgument(f"this operation ends before it begins; mend its times: {self.describe()}")
        if self.result is UNKNOWN and self.returned != math.inf:
            raise InvalidArgument(
                "this operation has an end, and an unknown result: leave the end away (math.inf), as it may still be "
                f"done later, or leave the operation away if it was certainly not done: {self.describe()}"
            )


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
