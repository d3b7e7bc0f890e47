"""Changes that are not in the store yet: those of one command on top of those of the commands before it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Protocol

from raftkv.machine.limits import Limits, TooLarge
from raftkv.state import Store

NO_COMMAND = "only a command may change a table; this is a query"


class Access(Protocol):
    """Through this, tables and values read and change the state."""

    def get(self, key: bytes) -> bytes | None:
        """The value at `key`."""

    def put(self, key: bytes, value: bytes | None, prefix: int) -> None:
        """Set or (None) delete; so many bytes of the key are not the application's.

        Raises `TypeError` outside of a command, and `TooLarge`.
        """

    def scan(self, start: bytes, end: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from `start` to before `end`."""


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

    def put(self, key: bytes, value: bytes | None, prefix: int) -> None:
        """Raises `TypeError` in a query."""
        if not self._writable:
            raise TypeError(NO_COMMAND)
        if value is None:
            self._own.pop(key, None)
        else:
            self._own[key] = value

    def scan(self, start: bytes, end: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from `start` to before `end`."""
        yield from sorted([pair for pair in self._own.items() if start <= pair[0] < end], reverse=reverse)


class Overlay:
    """What a command reads and writes: its own changes, then the batch's, then the store.

    Invariants: `batch` holds the changes of finished commands only; `own` is empty between commands; a command's
    changes in `own` are within `limits`, and `own_bytes` is their size.
    """

    def __init__(self, store: Store, limits: Limits) -> None:
        self.store = store
        self.limit(limits)
        self.own_bytes = 0
        self.batch: dict[bytes, bytes | None] = {}
        self.own: dict[bytes, bytes | None] = {}
        self.writable = False

    def limit(self, limits: Limits) -> None:
        """From now on these are the limits."""
        self._key_max, self._value_max, self._change_max = limits.key_bytes, limits.value_bytes, limits.change_bytes

    def get(self, key: bytes) -> bytes | None:
        if key in self.own:
            return self.own[key]
        if key in self.batch:
            return self.batch[key]
        return self.store.get(key)

    def put(self, key: bytes, value: bytes | None, prefix: int) -> None:
        """Set or (None) delete; so many bytes of the key are not the application's.

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
        own[key] = value

    def keep(self) -> None:
        """The command is done: move its changes to the batch."""
        self.batch.update(self.own)
        self.own.clear()
        self.own_bytes = 0

    def undo(self) -> None:
        """The command raised: drop its changes."""
        self.own.clear()
        self.own_bytes = 0

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
