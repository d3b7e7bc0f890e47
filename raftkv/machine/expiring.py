"""When rows of expiring tables are over: kept beside the rows, by their keys and in the order of their times.

For the table `leases` this lies among what indexes have of it, under 02 `leases` 02 `*ttl` 00. Behind "k" and a row's
key is the row's time, behind "t" and a time are the keys of the rows that are over then. The place itself holds a time
before which none is, so that nobody looks for the first one where deleted keys pile up; there may be none at that time
either, as rows that are renewed or deleted leave it as it is. Times have 8 bytes, the highest first.

A row that is over is there for nobody, removed or not. Entries remove such rows (see `dues`), in the order of their
times. If a command sets a row's key again before that, a "t" key keeps the old value for the table's `on_expire`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Protocol

from raftkv.machine.indexes import beside
from raftkv.machine.overlay import KeySpace, Write
from raftkv.machine.timers import due_ms_of

_FIELD = "*ttl"
"""No field of a value has this name, as it is no word."""

_MS_BYTES = 8


class Present(Protocol):
    """Knows the time of what runs."""

    time_ms: int
    is_told: bool
    """Whether it was asked what time it is, other than to see whether a row is over: that changes by an entry."""


class Over(Protocol):
    """Has values by their keys."""

    def get(self, key: bytes) -> bytes | None:
        """The value at `key`."""


class Scanned(Protocol):
    """Reads the state."""

    def scan(self, start: bytes, end: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from `start` to before `end`."""


def place_name(table: str) -> str:
    """What the place of a table's times is called, as that of an index is."""
    return f"{table}.{_FIELD}"


class Expiry:
    """Where the times of one table's rows are kept."""

    def __init__(self, table: str, hook: str) -> None:
        self.table = table
        self.hook = hook
        """The command that runs for each row that is removed; "" when there is none."""
        self.bound = beside(table, _FIELD)
        self.ends = self.bound + b"k"
        self.times = self.bound + b"t"
        self.times_end = self.bound + b"u"

    def first_ms(self, state: Over) -> int | None:
        """No row is over before this time; None: none ever is."""
        data = state.get(self.bound)
        return None if data is None else int.from_bytes(data, "big")

    def ends_ms(self, state: Over, key: bytes) -> int | None:
        """When the row with this encoded key is over; None: never, or there is none."""
        data = state.get(self.ends + key)
        return None if data is None else int.from_bytes(data, "big")

    def time_place(self, ends_ms: int, key: bytes) -> bytes:
        """The "t" key of a row."""
        return self.times + encode_ms(ends_ms) + key

    def in_order(self, state: Scanned, first_ms: int) -> Iterator[tuple[int, bytes, bytes]]:
        """From `first_ms` on the times and keys of rows, and the value of one that was set again since it was over, or
        nothing."""
        skip = len(self.times) + _MS_BYTES
        for place, old in state.scan(self.times + encode_ms(first_ms), self.times_end, reverse=False):
            yield int.from_bytes(place[len(self.times) : skip], "big"), place[skip:], old


def encode_ms(time_ms: int) -> bytes:
    """As keys and values have a time."""
    return time_ms.to_bytes(_MS_BYTES, "big")


class Lives:
    """Which rows of an expiring table are there, and what is to be changed with them."""

    def __init__(self, expiry: Expiry, access: KeySpace, present: Present, prefix: bytes) -> None:
        self._expiry, self._access, self._present = expiry, access, present
        self._skip = len(prefix)

    def at(self, place: bytes) -> bytes | None:
        """The value at a row's place; None when it is over."""
        data = self._access.get(place)
        return None if data is None or self.is_over(place) else data

    def is_over(self, place: bytes) -> bool:
        """Whether the row's time has come."""
        ends_ms = self._expiry.ends_ms(self._access, place[self._skip :])
        return ends_ms is not None and ends_ms <= self._present.time_ms

    def scan(self, start: bytes, end: bytes, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Places and values of rows that are there, from `start` to before `end`."""
        return (pair for pair in self._access.scan(start, end, reverse=reverse) if not self.is_over(pair[0]))

    def left_over(self) -> int:
        """How many rows are over and not removed yet."""
        first_ms, now_ms, count = self._expiry.first_ms(self._access), self._present.time_ms, 0
        if first_ms is None or first_ms > now_ms:
            return 0
        for ends_ms, _, old in self._expiry.in_order(self._access, first_ms):
            if ends_ms > now_ms:
                break
            count += not old
        return count

    def left_ms(self, place: bytes) -> int | None:
        """How long a row has; None: it stays."""
        ends_ms = self._expiry.ends_ms(self._access, place[self._skip :])
        if ends_ms is None:
            return None
        self._present.is_told = True
        return ends_ms - self._present.time_ms

    def lasting(self, place: bytes, ttl_s: float | timedelta | None) -> list[Write]:
        """What is to be changed for the row to be over in so many seconds, or (None) never.

        Raises `TypeError` for what is no time, `ValueError` for one that is not in the future.
        """
        now_ms, key = self._present.time_ms, place[self._skip :]
        if ttl_s is None:
            return self.forgotten(place)
        if isinstance(ttl_s, bool) or not isinstance(ttl_s, (int, float, timedelta)):
            raise TypeError(f"ttl_s is seconds or a timedelta, or None for a row that stays, not {ttl_s!r}")
        ends_ms = due_ms_of(ttl_s, now_ms)
        if ends_ms <= now_ms:
            raise ValueError(f"ttl_s must be a microsecond or more, not {ttl_s!r}")
        changes, skip = self._off_its_time(place), len(self._expiry.times) + _MS_BYTES
        changes.append((self._expiry.ends + key, encode_ms(ends_ms), len(self._expiry.ends)))
        changes.append((self._expiry.time_place(ends_ms, key), b"", skip))
        first_ms = self._expiry.first_ms(self._access)
        if first_ms is None or ends_ms < first_ms:
            changes.append((self._expiry.bound, encode_ms(ends_ms), len(self._expiry.bound)))
        return changes

    def forgotten(self, place: bytes) -> list[Write]:
        """What is to be changed for the row to have no time, as it is deleted or stays."""
        changes = self._off_its_time(place)
        return [*changes, (self._expiry.ends + place[self._skip :], None, len(self._expiry.ends))] if changes else []

    def _off_its_time(self, place: bytes) -> list[Write]:
        key, expiry = place[self._skip :], self._expiry
        ends_ms = expiry.ends_ms(self._access, key)
        if ends_ms is None:
            return []
        is_told = bool(expiry.hook) and ends_ms <= self._present.time_ms
        old: Any = self._access.get(place) if is_told else None
        return [(expiry.time_place(ends_ms, key), old, len(expiry.times) + _MS_BYTES)]
