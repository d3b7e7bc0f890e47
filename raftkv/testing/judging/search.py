"""The search for an order of operations, each between its call and its return, that a sequential model agrees with.

It is the search of Wing and Gong with Lowe's memory of what was tried ("Testing for linearizability", 2017), and:

- Operations are numbered in the order of their returns. A place in the search is how many of the first of them are
  done, which of the next are, and the state, so that it is small however long the history is. Which operations may come
  next changes with the first number only, and is worked out once for each.
- A read that gives its result now is taken at once, without a choice: an order that has it later could as well have it
  here. (Not so a write that happens to change nothing: later it may.)
- What nobody heard the end of may never have been done, so it is tried only where it changes something. Of several that
  are equal the oldest comes first; and a place is not entered that was entered with fewer of them used up.

Finding such an order is NP-complete, so there are histories for which no search ends. `Effort` says when to give up,
and the verdict then is `UNDECIDED`, which is no promise at all.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from raftkv.testing.judging.models import freeze
from raftkv.testing.judging.operation import UNKNOWN, Model, Operation


class Verdict(StrEnum):
    """Whether one machine could have given these answers."""

    LINEARIZABLE = "linearizable"
    REFUTED = "not linearizable"
    UNDECIDED = "undecided"
    """The search was given up: it may be either."""


class Effort(msgspec.Struct, frozen=True):
    """How much is searched before a verdict is given up. By places alone a verdict is the same on every machine."""

    places: float = 300_000
    """Of one search. A place takes some 5 to 50 µs, and some 300 bytes."""
    until: float | None = None
    """A time of `time.monotonic`."""

    def within(self, seconds: float) -> Effort:
        """The same, and no longer than `seconds` from now."""
        end = time.monotonic() + seconds
        return Effort(self.places, end if self.until is None else min(end, self.until))

    def is_over(self) -> bool:
        """Whether the time is over."""
        return self.until is not None and time.monotonic() >= self.until


_LOOKS_AT_CLOCK_EVERY = 256


class Outcome(msgspec.Struct, frozen=True):
    """What a search found."""

    verdict: Verdict
    places: int
    """That it entered."""
    explained: int
    """Returns, in their order, up to which some order explains the history."""


def is_linearizable(operations: Sequence[Operation], model: Model, start: Any) -> bool:
    """Whether there is an order of `operations` that `model` gives when it begins at `start`, however long it takes."""
    return search(operations, model, start, Effort(float("inf"))).verdict is Verdict.LINEARIZABLE


def search(
    operations: Sequence[Operation],
    model: Model,
    start: Any,
    effort: Effort = Effort(),
    *,
    doubted: Collection[int] = (),
) -> Outcome:
    """Look for an order. Those numbered `doubted` may also not have been done, and their results do not count.

    Raises `InvalidArgument` for an operation whose times can't be.
    """
    for operation in operations:
        operation.check()
    return _Search(operations, model, doubted).run(start, effort)


class _Search:
    """The operations of one search in the order of their returns, with what is worked out beforehand."""

    def __init__(self, operations: Sequence[Operation], model: Model, doubted: Collection[int]) -> None:
        doubtful = {id(operations[number]) for number in doubted}
        ended = [each for each in operations if each.result is not UNKNOWN]
        self._model = model
        self._ended = sorted(ended, key=lambda each: (each.returned, each.called))
        self._is_sure = [id(each) not in doubtful for each in self._ended]
        self._kinds = [_kind(each) for each in self._ended]
        self._fresh, self._open = self._windows()
        self._twin = self._twins()
        self._unheard: list[list[tuple[int, Operation]]] = []
        """Those without an end, equal ones together, the oldest first; each with its bit."""
        self._unheard_kinds: list[Hashable] = []
        self._group([each for each in operations if each.result is UNKNOWN and not each.is_read])

    def _windows(self) -> tuple[list[list[int]], list[list[int]]]:
        """For each number: which become possible when it is the first that has not been done, and which are then.

        Possible is what was called before any of those that have not been done returned.
        """
        by_call = sorted(range(len(self._ended)), key=lambda number: self._ended[number].called)
        fresh: list[list[int]] = []
        opened: list[list[int]] = []
        called: list[int] = []
        at = 0
        for first, operation in enumerate(self._ended):
            begin = at
            while at < len(by_call) and self._ended[by_call[at]].called <= operation.returned:
                at += 1
            fresh.append(by_call[begin:at])
            called = [number for number in called if number >= first] + fresh[-1]
            opened.append(called)
        return fresh, opened

    def _twins(self) -> list[int]:
        """For each number an equal operation that was called and returned earlier, and so comes first; or -1."""
        twins, latest = [], dict[Hashable, int]()
        for number, operation in enumerate(self._ended):
            kind = (self._kinds[number], self._is_sure[number])
            before = latest.get(kind, -1)
            is_equal = before >= 0 and self._ended[before].called <= operation.called
            is_equal = is_equal and bool(self._ended[before].result == operation.result)
            twins.append(before if is_equal else -1)
            latest[kind] = number
        return twins

    def _group(self, unheard: list[Operation]) -> None:
        groups: dict[Hashable, list[tuple[int, Operation]]] = {}
        for place, operation in enumerate(sorted(unheard, key=lambda each: each.called)):
            groups.setdefault(_kind(operation), []).append((1 << place, operation))
        self._unheard_kinds, self._unheard = list(groups), list(groups.values())

    def run(self, start: Any, effort: Effort) -> Outcome:
        count, entered, explained = len(self._ended), 0, 0
        tried: dict[tuple[int, int, Any], list[int]] = {}
        stack: list[tuple[int, int, int, Any]] = [(0, 0, 0, start)]
        while stack:
            first, done, used, state = stack.pop()
            first, done, changes = self._take_reads(first, done, state)
            explained = max(explained, first)
            if first == count:
                return Outcome(Verdict.LINEARIZABLE, entered, explained)
            known = tried.setdefault((first, done, state), [])
            if any(before & used == before for before in known):
                continue
            if entered >= effort.places or (entered % _LOOKS_AT_CLOCK_EVERY == 0 and effort.is_over()):
                return Outcome(Verdict.UNDECIDED, entered, explained)
            known.append(used)
            entered += 1
            following = self._following(first, done, used, state, changes)
            stack.extend(reversed(following))
        return Outcome(Verdict.REFUTED, entered, explained)

    def _take_reads(self, first: int, done: int, state: Any) -> tuple[int, int, list[tuple[int, Any]]]:
        """Take all reads that may come here: the new place, and the other operations that may, with the next states."""
        changes: list[tuple[int, Any]] = []
        while done & 1:
            done, first = done >> 1, first + 1
        numbers = self._open[first] if first < len(self._ended) else []
        while True:
            for number in numbers:
                if number < first or done >> (number - first) & 1:
                    continue
                operation, is_sure = self._ended[number], self._is_sure[number]
                result, following = self._model(state, operation)
                if operation.is_read:
                    done |= (not is_sure or result == operation.result) << (number - first)
                elif (result == operation.result) if is_sure else (following != state):
                    changes.append((number, following))
            numbers = []
            while done & 1:
                done, first = done >> 1, first + 1
                if first < len(self._ended):
                    numbers = numbers + self._fresh[first]
            if not numbers:
                return first, done, changes

    def _following(
        self, first: int, done: int, used: int, state: Any, changes: list[tuple[int, Any]]
    ) -> list[tuple[int, int, int, Any]]:
        """The places behind this one, the likeliest first."""
        found: list[tuple[int, int, int, Any]] = []
        kinds = set()
        for number, following in changes:
            twin = self._twin[number]
            if twin < first or done >> (twin - first) & 1:
                found.append((first, done | 1 << (number - first), used, following))
                if self._unheard:
                    kinds.add(self._kinds[number])
        if not self._is_sure[first]:
            found.append((first, done | 1, used, state))
        until = self._ended[first].returned
        for kind, group in zip(self._unheard_kinds, self._unheard, strict=True):
            # One of which the end was heard would come first: it is the same, and can't wait as long.
            bit, operation = next((each for each in group if not used & each[0]), (0, None))
            if operation is not None and operation.called <= until and kind not in kinds:
                following = self._model(state, operation)[1]
                if following != state:
                    found.append((first, done, used | bit, following))
        return found


def _kind(operation: Operation) -> Hashable:
    """Equal for operations that are the same to a model."""
    try:
        return operation.key, operation.name, freeze(operation.argument)
    except TypeError:
        return id(operation)
