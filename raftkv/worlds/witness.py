"""A checker that believes what the answers say: each carries its log index, so there is an order to hold it to.

It takes time in proportion to the operations, whatever they overlap, and names the one that is wrong. It is of use
beside the search of `history`, which trusts no index and is slow where much overlaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raftkv.model import Index
from raftkv.testing.judging.operation import UNKNOWN, Model, Operation


def witness_problems(witnessed: Sequence[tuple[Index, bool, Operation]], model: Model, start: Any) -> list[str]:
    """What is wrong with operations whose place is known: each with its index, and whether it only reads.

    A read at an index comes behind the command at that index. All commands on what is read must be there; with one
    of unknown outcome left out, a read that saw it is reported.
    """
    ordered = sorted(witnessed, key=lambda each: (each[0], each[1], each[2].called))
    return _replay(ordered, model, start) + _real_time(ordered)


def _replay(ordered: Sequence[tuple[Index, bool, Operation]], model: Model, start: Any) -> list[str]:
    states: dict[Any, Any] = {}
    problems = []
    for index, _, operation in ordered:
        result, states[operation.key] = model(states.get(operation.key, start), operation)
        if operation.result is not UNKNOWN and result != operation.result:
            problems.append(f"at index {index} the model gives {result!r}: {operation.describe()}")
    return problems


def _real_time(ordered: Sequence[tuple[Index, bool, Operation]]) -> list[str]:
    """What returned before another was called must not stand behind it."""
    problems = []
    earliest, of = float("inf"), None
    for index, _, operation in reversed(ordered):
        if earliest < operation.called:
            assert of is not None
            problems.append(
                f"index {index} comes before index {of[0]}, but was asked for after it was answered: "
                f"{operation.describe()}; {of[1].describe()}"
            )
        if operation.returned < earliest:
            earliest, of = operation.returned, (index, operation)
    return problems
