"""Judges a history key by key, and shows a refuted one small: as few answers as can't all be true, and when they were.

Which answers are shown is found by doubting: a doubted operation may have been done within its time or not, whatever it
answered. What is refuted even so does not hang on it. Those that are left when nothing more can be doubted are shown.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Hashable, Sequence
from typing import Any

import msgspec

from raftkv.testing.judging.operation import UNKNOWN, Model, Operation
from raftkv.testing.judging.search import Effort, Verdict, search
from raftkv.testing.judging.spans import spans_diagram

FIRST_PLACES = 10_000
"""Of the first search of each key; only if none is refuted are those that it leaves undecided searched for longer."""

PART_PLACES_MIN = 2_000
PART_SECONDS = 10.0
SHOWN_MAX = 40
"""Operations of a part; of a longer one the last ones."""


class Judgement(msgspec.Struct, kw_only=True):
    """What is known of a history. With one key refuted all of it is, and the others are not looked at any more."""

    verdict: Verdict
    keys: int
    """In the history."""
    undecided: list[Hashable] = []
    """Keys whose search was given up."""
    key: Hashable = None
    """The refuted one."""
    operations: int = 0
    """Of the refuted key."""
    part: list[Operation] = []
    """The fewest operations that were found whose answers can't all be true."""
    broken_at: float = math.inf
    """When a client first heard what can't be true."""

    def describe(self) -> str:
        """A refuted history's part, with a diagram; otherwise a line."""
        match self.verdict:
            case Verdict.LINEARIZABLE:
                return f"the history is linearizable, by each of its keys ({self.keys})"
            case Verdict.UNDECIDED:
                named = ", ".join(repr(key) for key in self.undecided)
                return f"it is undecided whether the history is linearizable: no verdict on {named} within the effort"
            case Verdict.REFUTED:
                return f"the history of {self.key!r} is not linearizable: {self.refutation()}"

    def refutation(self) -> str:
        """Why, as the part and its diagram."""
        shown, others = self.part[-SHOWN_MAX:], self.operations - len(self.part)
        told = "no order explains these answers"
        if len(shown) < len(self.part):
            told = f"no order explains {len(self.part)} answers, of which these are the last"
        if others:
            told += f", whatever became of {others} other operation{'s' if others > 1 else ''}"
        return "\n".join([f"{told}:", *(each.describe() for each in shown), "", spans_diagram(shown)])


def by_key(operations: Sequence[Operation]) -> dict[Hashable, list[Operation]]:
    """The operations by their keys. A map is linearizable if each of its keys is."""
    keys: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        keys.setdefault(operation.key, []).append(operation)
    return keys


def judge(operations: Sequence[Operation], model: Model, start: Any, effort: Effort = Effort()) -> Judgement:
    """Whether a history is linearizable; the effort is for each key, its time for all of them.

    Raises `InvalidArgument` for an operation whose times can't be.
    """
    keys = by_key(operations)
    left = sorted(keys, key=lambda key: len(keys[key]))
    for places in sorted({min(FIRST_PLACES, effort.places), effort.places}):
        undecided = []
        for key in left:
            outcome = search(keys[key], model, start, Effort(places, effort.until))
            if outcome.verdict is Verdict.REFUTED:
                part, broken_at = _part(keys[key], model, start, outcome.explained)
                return Judgement(
                    verdict=Verdict.REFUTED,
                    keys=len(keys),
                    key=key,
                    operations=sum(each.called <= broken_at for each in keys[key]),
                    part=part,
                    broken_at=broken_at,
                )
            if outcome.verdict is Verdict.UNDECIDED:
                undecided.append(key)
        left = undecided
    return Judgement(verdict=Verdict.UNDECIDED if left else Verdict.LINEARIZABLE, keys=len(keys), undecided=left)


def _part(operations: list[Operation], model: Model, start: Any, explained: int) -> tuple[list[Operation], float]:
    """Of a refuted history as few operations as can't all be true, by their calls, and when the last was answered."""
    effort = Effort().within(PART_SECONDS)
    broken_at = _broken_at(operations, model, start, explained, effort)
    known = sorted(_until(operations, broken_at), key=lambda each: each.called)
    # The most is spent where the least is known: what is tried costs about what the refutation cost.
    places = search(known, model, start, effort).places
    effort = Effort(max(PART_PLACES_MIN, 4 * places), effort.until)
    kept = [number for number, operation in enumerate(known) if operation.result is not UNKNOWN]
    doubted: list[int] = []
    size = len(kept)
    while size:
        for at in reversed(range(0, len(kept), size)):
            tried = kept[at : at + size]
            if search(known, model, start, effort, doubted=[*doubted, *tried]).verdict is Verdict.REFUTED:
                doubted += tried
                kept = kept[:at] + kept[at + size :]
        size = min(size // 2, len(kept))
    return [known[number] for number in kept], broken_at


def _broken_at(operations: list[Operation], model: Model, start: Any, explained: int, effort: Effort) -> float:
    """The time of the first return with which the model can't explain the history. Later ones can't mend that."""
    returns = sorted(each.returned for each in operations if each.result is not UNKNOWN)[explained:]

    def is_broken(until: float) -> bool:
        return search(_until(operations, until), model, start, effort).verdict is Verdict.REFUTED

    # The last one is broken: all is, and that has been found. Often it is the one where the search came to its end.
    if is_broken(returns[0]):
        return returns[0]
    return returns[bisect.bisect_left(returns, True, hi=len(returns) - 1, key=is_broken)]


def _until(operations: Sequence[Operation], until: float) -> list[Operation]:
    """What was known at a time: later answers have not been heard."""
    return [
        each if each.returned <= until else msgspec.structs.replace(each, returned=math.inf, result=UNKNOWN)
        for each in operations
        if each.called <= until
    ]
