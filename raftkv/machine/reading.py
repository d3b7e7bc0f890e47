"""Counts what a query reads: it gets one slice on the event loop, more on another thread, and then is ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from raftkv.machine.active import Active
from raftkv.machine.counts import Region, read_counts
from raftkv.machine.methods import Method
from raftkv.machine.overlay import NO_COMMAND, NO_EMITTER, Ghost, Write
from raftkv.machine.statemachine import Moment, StateMachine
from raftkv.model import Index
from raftkv.state import Reader

STEP_COST = 32
"""A step over deleted keys counts as so many reads of living keys: it takes about as long."""

UNLIMITED = 1 << 62

More: TypeAlias = Callable[[bytes | None], int]
"""Called when a slice is used up: returns how many more reads are allowed, or raises. The argument is the key from
which the query's scan could go on, in its own order; None when it was reading a single key."""


class Interrupted(BaseException):
    """A query must end here and has no result. Not an `Exception`, as the query's own code shall not catch it."""


class SliceOver(Interrupted):
    """A query is not done within its slice on the event loop. It changes nothing, so it begins anew elsewhere."""


def slice_over(position: bytes | None) -> int:
    """The `More` of a query on the event loop."""
    raise SliceOver


class Reading:
    """For a query, what an overlay is for a command: reads the store, and refuses to change it."""

    def __init__(self, reader: Reader, more: More) -> None:
        self._reader = reader
        self._more = more
        self.left = 0
        """Reads left until `more` is called."""
        self.interrupted: Interrupted | None = None

    def _ask_for_more(self, position: bytes | None) -> None:
        try:
            self.left = self._more(position)
        except Interrupted as exc:
            self.interrupted = exc
            raise

    def get(self, key: bytes) -> bytes | None:
        self.left -= 1
        if self.left < 0:
            self._ask_for_more(None)
        return self._reader.get(key)

    def count(self, place: Region) -> int:
        """How many rows a table has; counted now when the record is missing."""
        known = read_counts(self._reader)
        if known is None:
            return sum(1 for _ in self.scan(place.start, place.end, reverse=False))
        return known.get(place.name, 0)

    def put(self, key: bytes, value: bytes | None, prefix: int, table: str | None = None) -> None:
        """Raises `TypeError`."""
        raise TypeError(NO_COMMAND)

    def put_all(self, changes: Sequence[Write]) -> None:
        """Raises `TypeError`."""
        raise TypeError(NO_COMMAND)

    def emit(self, source: str, event: bytes) -> None:
        """Raises `TypeError`."""
        raise TypeError(NO_EMITTER)

    def scan(self, start: bytes, end: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from `start` to before `end`."""
        for key, value in self._reader.steps(start, end, reverse=reverse):
            self.left -= 1 if value is not None else STEP_COST
            if self.left < 0:
                self._ask_for_more(key + b"\0" if reverse and value is not None else key)
            if value is not None:
                yield key, value


class Asker:
    """Answers queries to the active version of a machine from one reader of its state, for one thread."""

    def __init__(self, active: Active, reader: Reader, more: More) -> None:
        self.active = active
        machine: type[StateMachine] = active.machine
        self._reading = Reading(reader, more)
        self._moment = Moment()
        self._instance = machine.__new__(machine)
        vars(self._instance).update(
            version=active.version,
            _overlay=self._reading,
            _views={},
            _moment=self._moment,
            _ghosts=dict.fromkeys(active.ghosts, Ghost(writable=False)),
            _narrowers={},
            _indexes=active.indexes,
            _expiring=active.expiring,
            _loans=None,
        )

    @property
    def told_time(self) -> bool:
        """Whether the last query has asked what time it is."""
        return self._moment.is_told

    def ask(self, method: Method, args: tuple[object, ...], at: tuple[Index, int], reads: int) -> object:
        """What the method returns or raises, at an index and a time.

        It may do `reads` reads, and as many as `more` allows then.
        """
        moment = self._moment
        (moment.index, moment.time_ms), moment.chain, moment.random, moment.is_told = at, None, None, False
        reading = self._reading
        reading.left = reads
        try:
            return method.run(self._instance, *args)
        finally:
            interrupted, reading.interrupted = reading.interrupted, None
            if interrupted is not None:
                raise interrupted
