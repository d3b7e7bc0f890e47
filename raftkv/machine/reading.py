"""What a query reads, counted: a slice of it on the event loop, more beside it, and an end to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from raftkv.machine.methods import Method
from raftkv.machine.statemachine import Moment, StateMachine
from raftkv.state import Applied, Reader

STEP_COST = 32
"""What a step over deleted keys counts, in reads of keys that live: it takes about as long."""

UNLIMITED = 1 << 62

More: TypeAlias = Callable[[bytes | None], int]
"""Asked when a slice is used up: how many reads more there are, or it raises. The argument is where the query could
go on in the order in which it scans; None when it was reading a single key."""


class Interrupted(BaseException):
    """A query must end here and has no result, whatever it makes of this: it is none of its own errors to catch."""


class SliceOver(Interrupted):
    """A query is not done within its slice of the loop. It has changed nothing, so it begins anew elsewhere."""


def slice_over(position: bytes | None) -> int:
    """The `More` of a query on the event loop."""
    raise SliceOver


class Reading:
    """What a query has in the place of a command's overlay: what is in the store, and nothing to change it with."""

    def __init__(self, reader: Reader, more: More) -> None:
        self._reader = reader
        self._more = more
        self.left = 0
        """Reads until `more` is asked."""
        self.interrupted: Interrupted | None = None

    def _ask_for_more(self, position: bytes | None) -> None:
        try:
            self.left = self._more(position)
        except Interrupted as exc:
            self.interrupted = exc
            raise

    def get(self, key: bytes) -> bytes | None:
        """The value at `key`."""
        self.left -= 1
        if self.left < 0:
            self._ask_for_more(None)
        return self._reader.get(key)

    def put(self, key: bytes, value: bytes | None) -> None:
        """Raises `TypeError`."""
        raise TypeError("only a command may change a table; this is a query")

    def scan(self, start: bytes, end: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from `start` to before `end`."""
        for key, value in self._reader.steps(start, end, reverse=reverse):
            self.left -= 1 if value is not None else STEP_COST
            if self.left < 0:
                self._ask_for_more(key + b"\0" if reverse and value is not None else key)
            if value is not None:
                yield key, value


class Asker:
    """Answers the queries of a machine from one reader of its state, for one thread."""

    def __init__(self, machine: type[StateMachine], reader: Reader, more: More) -> None:
        self._reading = Reading(reader, more)
        self._moment = Moment()
        self._instance = machine.__new__(machine)
        vars(self._instance).update(_overlay=self._reading, _views={}, _moment=self._moment)

    def ask(self, method: Method, args: tuple[object, ...], applied: Applied, reads: int) -> object:
        """What the method returns, after at most `reads` reads and what `more` gives then; raises what it raises."""
        moment = self._moment
        moment.index, moment.time_ms, moment.chain, moment.random = applied.index, applied.time_ms, None, None
        reading = self._reading
        reading.left = reads
        try:
            return method.function(self._instance, *args)
        finally:
            interrupted, reading.interrupted = reading.interrupted, None
            if interrupted is not None:
                raise interrupted
