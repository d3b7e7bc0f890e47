"""Changes that are not in the store yet: those of one command on top of those of the commands before it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from raftkv.machine.counts import Region, counted, encode_counts, read_counts
from raftkv.machine.limits import Limits, TooLarge
from raftkv.state import COUNTS_KEY, Applied, Store

NO_COMMAND = "only a command may change a table; this is a query"
NO_EMITTER = "only a command may emit an event; this is a query"

EVENT_BYTES = 32
"""What an event counts for among the bytes that a command changes, besides its own."""

Write: TypeAlias = tuple[bytes, bytes | None, int, str] | tuple[bytes, bytes | None, int]
"""What `KeySpace.put` takes."""

_MISSING: Any = object()


class KeySpace(Protocol):
    """Through this, tables and values read and change the state."""

    def get(self, key: bytes) -> bytes | None:
        """The value at `key`."""

    def put(self, key: bytes, value: bytes | None, prefix: int, table: str | None = None) -> None:
        """Set or (None) delete; so many bytes of the key are not the application's. A row counts for its `table`.

        Raises `TypeError` outside of a command, and `TooLarge`.
        """

    def put_all(self, changes: Sequence[Write]) -> None:
        """Make all of these changes, or none, raising as `put` does."""

    def scan(self, start: bytes, end: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from `start` to before `end`."""

    def count(self, place: Region) -> int:
        """How many rows a table has."""

    def emit(self, source: str, event: bytes) -> None:
        """Have an encoded event in the history. Raises `TypeError` outside of a command, and `TooLarge`."""


class Absent:
    """Stands for no change in a batch, where None is one that deletes."""


ABSENT = Absent()


class Ghost:
    """What stands for the state in a table that the active version lacks: what a command writes is there for itself.

    Nothing of it is kept, as a node whose class has no such table keeps nothing either.
    """

    def __init__(self, *, writable: bool) -> None:
        self._own: dict[bytes, bytes] = {}
        self._writable = writable

    def clear(self) -> None:
        """The command has ended."""
        self._own.clear()

    def get(self, key: bytes) -> bytes | None:
        return self._own.get(key)

    def put(self, key: bytes, value: bytes | None, prefix: int, table: str | None = None) -> None:
        """Raises `TypeError` in a query."""
        if not self._writable:
            raise TypeError(NO_COMMAND)
        if value is None:
            self._own.pop(key, None)
        else:
            self._own[key] = value

    def put_all(self, changes: Sequence[Write]) -> None:
        """Raises `TypeError` in a query."""
        for change in changes:
            self.put(*change)

    def scan(self, start: bytes, end: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from `start` to before `end`."""
        yield from sorted([pair for pair in self._own.items() if start <= pair[0] < end], reverse=reverse)

    def count(self, place: Region) -> int:
        """How many rows the command has written there."""
        return sum(place.start <= key < place.end for key in self._own)

    def emit(self, source: str, event: bytes) -> None:
        """Raises `TypeError` in a query."""
        if not self._writable:
            raise TypeError(NO_EMITTER)


class Overlay:
    """What a command reads and writes: its own changes, then the batch's, then the store.

    Invariants: `batch` holds the changes of finished commands only; `own` is empty between commands; a command's
    changes in `own` are within `limits`, and `own_bytes` is their size. Each table has as many rows as `counts` and
    `own_counts` say together.
    """

    def __init__(self, store: Store, limits: Limits, places: Sequence[Region] = ()) -> None:
        """The rows of tables at `places` are counted."""
        self.store = store
        self.limit(limits)
        self._is_counted = bool(places)
        self._stored_counts = read_counts(store) if places else {}
        """What the store has of `counts`; None when it has no record of them."""
        known = self._stored_counts
        self.counts: dict[str, int] = counted(store, places) if known is None else dict(known)
        self.own_counts: dict[str, int] = {}
        self._counts_before: dict[str, int] = {}
        self._looked_up: bytes = b""
        self._found: bytes | None = None
        """The last key that was looked for in the store, and what is there."""
        self.own_bytes = 0
        self.batch: dict[bytes, bytes | None] = {}
        self.own: dict[bytes, bytes | None] = {}
        self.emitted: list[tuple[str, bytes]] = []
        """The command's events, each with its stream."""
        self.writable = False

    def limit(self, limits: Limits) -> None:
        """From now on these are the limits."""
        self._key_max, self._value_max, self._change_max = limits.key_bytes, limits.value_bytes, limits.change_bytes

    def get(self, key: bytes) -> bytes | None:
        if key in self.own:
            return self.own[key]
        if key in self.batch:
            return self.batch[key]
        data = self.store.get(key)
        self._looked_up, self._found = key, data
        return data

    def before(self, key: bytes) -> bytes | None:
        """What was at `key` before the command."""
        if key in self.batch:
            return self.batch[key]
        return self._found if key == self._looked_up else self.store.get(key)

    def put(self, key: bytes, value: bytes | None, prefix: int, table: str | None = None) -> None:
        """Set or (None) delete; so many bytes of the key are not the application's. A row counts for its `table`.

        Raises `TypeError` outside of a command, and `TooLarge`.
        """
        if not self.writable:
            raise TypeError(NO_COMMAND)
        size = len(key)
        if size - prefix > self._key_max:
            raise TooLarge(what="a key", size=size - prefix, limit=self._key_max)
        if value is not None:
            if len(value) > self._value_max:
                raise TooLarge(what="a value", size=len(value), limit=self._value_max)
            size += len(value)
        own = self.own
        if key in own:
            size -= len(key) + len(own[key] or b"")
        if self.own_bytes + size > self._change_max:
            raise TooLarge(what="what a command changes", size=self.own_bytes + size, limit=self._change_max)
        self.own_bytes += size
        if table is not None and self._is_counted and self._has(key) is (value is None):
            self.count_row(table, 1 if value is not None else -1)
        own[key] = value

    def put_all(self, changes: Sequence[Write]) -> None:
        """Make all of these changes, or none, raising as `put` does: a command may go on after that."""
        own, size, counts = self.own, self.own_bytes, dict(self.own_counts)
        before = [(key, own.get(key, _MISSING)) for key, *_ in changes]
        try:
            for change in changes:
                self.put(*change)
        except TooLarge:
            for key, value in before:
                if value is _MISSING:
                    own.pop(key, None)
                else:
                    own[key] = value
            self.own_bytes, self.own_counts = size, counts
            raise

    def _has(self, key: bytes) -> bool:
        """Whether a key is there. A command has mostly read it just before: then the store is not asked again."""
        if key in self.own:
            return self.own[key] is not None
        if key in self.batch:
            return self.batch[key] is not None
        if key != self._looked_up:
            self._looked_up, self._found = key, self.store.get(key)
        return self._found is not None

    def emit(self, source: str, event: bytes) -> None:
        """Raises `TypeError` outside of a command, and `TooLarge`."""
        if not self.writable:
            raise TypeError(NO_EMITTER)
        if len(event) > self._value_max:
            raise TooLarge(what="an event", size=len(event), limit=self._value_max)
        size = self.own_bytes + len(event) + EVENT_BYTES
        if size > self._change_max:
            raise TooLarge(what="what a command changes", size=size, limit=self._change_max)
        self.own_bytes = size
        self.emitted.append((source, event))

    def count_row(self, table: str, change: int) -> None:
        """The command has made a row, or (-1) deleted one."""
        self.own_counts[table] = self.own_counts.get(table, 0) + change

    def count(self, place: Region) -> int:
        """How many rows a table has: counted now only if nobody counts them as they come and go."""
        if not self._is_counted:
            return sum(1 for _ in self.scan(place.start, place.end, reverse=False))
        return self.counts.get(place.name, 0) + self.own_counts.get(place.name, 0)

    def keep(self) -> None:
        """The command is done: move its changes to the batch."""
        self.batch.update(self.own)
        self.own.clear()
        self.own_bytes = 0
        self.emitted.clear()
        if self.own_counts:
            self._keep_counts()

    def _keep_counts(self) -> None:
        for table, change in self.own_counts.items():
            self.counts[table] = self.counts.get(table, 0) + change
            if not self.counts[table]:
                del self.counts[table]
        self.own_counts.clear()

    def keep_part(self, before: dict[bytes, bytes | Absent | None]) -> None:
        """A part of an entry is done. `before` gets what `give_back` needs if the entry can't be applied after all."""
        if not before:
            self._counts_before = dict(self.counts)
        for key in self.own:
            before.setdefault(key, self.batch.get(key, ABSENT))
        self.keep()

    def give_back(self, before: dict[bytes, bytes | Absent | None]) -> None:
        """Undo the parts that were kept."""
        if before:
            self.counts = self._counts_before
        for key, value in before.items():
            if isinstance(value, Absent):
                del self.batch[key]
            else:
                self.batch[key] = value

    def undo(self) -> None:
        """The command raised: drop its changes."""
        self.own.clear()
        self.emitted.clear()
        self.own_bytes = 0
        self.own_counts.clear()

    def write(self, applied: Applied) -> None:
        """Write the batch to the store."""
        if self._is_counted and self.counts != self._stored_counts:
            self.batch[COUNTS_KEY] = encode_counts(self.counts)
            self._stored_counts = dict(self.counts)
        self.store.write(self.batch, applied)

    def begin(self) -> None:
        """A new batch begins, on a store that may have been written to."""
        self.batch = {}
        self._looked_up = b""

    def scan(self, start: bytes, end: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from `start` to before `end`, as they are when the scan begins."""
        changed = {**self.batch, **self.own} if self.batch or self.own else {}
        within = sorted([key for key in changed if start <= key < end], reverse=reverse)
        stored = self.store.scan(start, end, reverse=reverse)
        if not within:
            yield from stored
            return
        unchanged = (pair for pair in stored if pair[0] not in changed)
        added = ((key, value) for key in within if (value := changed[key]) is not None)
        yield from heapq.merge(unchanged, added, key=lambda pair: pair[0], reverse=reverse)
