"""The newest entries in memory, and what the event loop hands to the disk worker."""

from __future__ import annotations

from collections import deque

import msgspec

from raftkv.entry import Entry
from raftkv.errors import SafetyViolation
from raftkv.model import Index


class Write(msgspec.Struct, frozen=True):
    """One staged change of the log: cut at `truncate_from`, then append `entries`."""

    number: int
    truncate_from: Index | None
    entries: list[Entry]


class Cache:
    """The end of the log: the newest entries up to `bytes_max`, and all that are not durable yet.

    The event loop's thread only, except for `written`, which the worker sets (one assignment).

    Invariants: `_entries` are consecutive, `_entries[0].index == _first`; the entries of unfinished writes are
    among them.
    """

    def __init__(self, last_index: Index, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._first = last_index + 1
        self._entries: list[Entry] = []
        self._bytes = 0
        self._unfinished: deque[tuple[int, Index]] = deque()
        self._number = 0
        self.written = 0
        """The number of the last write that is durable."""

    @property
    def last_index(self) -> Index:
        return self._first + len(self._entries) - 1

    @property
    def has_unfinished(self) -> bool:
        return self.written < self._number

    def stage(self, truncate_from: Index | None, entries: list[Entry]) -> Write:
        """Cut and append. Raises `SafetyViolation` when `entries` do not continue what is there."""
        if truncate_from is not None:
            if truncate_from > self.last_index + 1:
                raise SafetyViolation(f"the log ends at {self.last_index}, it can't be cut at {truncate_from}")
            self._truncate(truncate_from)
        if entries and (entries[0].index, entries[-1].index) != (
            self.last_index + 1,
            self.last_index + len(entries),
        ):
            raise SafetyViolation(
                f"entries {entries[0].index} to {entries[-1].index} don't continue a log that ends at {self.last_index}"
            )
        self._number += 1
        self._unfinished.append((self._number, self.last_index + 1))
        self.extend(entries)
        return Write(self._number, truncate_from, entries)

    def extend(self, entries: list[Entry]) -> None:
        """Append, and drop the oldest entries over `bytes_max`."""
        self._entries += entries
        self._bytes += sum([len(entry.record) for entry in entries])
        if self._bytes > self._bytes_max:
            self._evict()

    def get(self, first: Index, last: Index) -> list[Entry] | None:
        if first < self._first or last > self.last_index:
            return None
        return self._entries[first - self._first : last - self._first + 1]

    def _truncate(self, index: Index) -> None:
        kept = max(0, index - self._first)
        self._bytes -= sum([len(entry.record) for entry in self._entries[kept:]])
        del self._entries[kept:]
        self._first = min(self._first, index)

    def _evict(self) -> None:
        """Make room at the old end: an eighth more than needed, because each time the rest of the list moves."""
        while self._unfinished and self._unfinished[0][0] <= self.written:
            self._unfinished.popleft()
        keep_from = min((first for _, first in self._unfinished), default=self.last_index + 1)
        target = self._bytes_max - self._bytes_max // 8
        dropped = 0
        evictable = min(len(self._entries), keep_from - self._first)
        while dropped < evictable and self._bytes > target:
            self._bytes -= len(self._entries[dropped].record)
            dropped += 1
        del self._entries[:dropped]
        self._first += dropped
