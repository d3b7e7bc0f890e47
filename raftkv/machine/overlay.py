"""Changes that are not in the store yet: those of one command on top of those of the commands before it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Protocol

from raftkv.state import Store


class Access(Protocol):
    """Through this, tables and values read and change the state."""

    def get(self, key: bytes) -> bytes | None:
        """The value at `key`."""

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set or (None) delete. Raises `TypeError` outside of a command."""

    def scan(self, start: bytes, end: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from `start` to before `end`."""


class Overlay:
    """What a command reads and writes: its own changes, then the batch's, then the store.

    Invariants: `batch` holds the changes of finished commands only; `own` is empty between commands.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.batch: dict[bytes, bytes | None] = {}
        self.own: dict[bytes, bytes | None] = {}
        self.writable = False

    def get(self, key: bytes) -> bytes | None:
        if key in self.own:
            return self.own[key]
        if key in self.batch:
            return self.batch[key]
        return self.store.get(key)

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set or (None) delete. Raises `TypeError` outside of a command."""
        if not self.writable:
            raise TypeError("only a command may change a table; this is a query")
        self.own[key] = value

    def keep(self) -> None:
        """The command is done: move its changes to the batch."""
        self.batch.update(self.own)
        self.own.clear()

    def undo(self) -> None:
        """The command raised: drop its changes."""
        self.own.clear()

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
