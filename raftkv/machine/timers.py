"""Timers: the commands that a machine has scheduled, kept in its state in the order of their times.

Under `TIMER_PREFIX` is one record of all of them, under "d" each timer by its time and id, and under "i" the time of
each by its id, for `cancel`. Numbers in keys have 8 bytes, the highest first. The record names the first timer, so
nobody looks for it from the beginning of the range, where deleted keys pile up.

What is due is fired by an entry of its own kind (`EntryKind.DUE`), whose payload bounds how much that does. The state
alone says which timers these are: so each is fired once, whoever proposes such entries, and however many.

A reset of log time (`raftkv clock reset`) leaves timers at their times, which then are farther away: "at 12:00" stays
12:00, and nothing ever fires early by the log's time. What repeats begins anew, one interval from then on.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import islice
from math import isfinite
from typing import TypeAlias

import msgspec

from raftkv.config import MIB
from raftkv.entry import Entry
from raftkv.errors import UNREADABLE, MachineFailed
from raftkv.machine.outcome import Outcome
from raftkv.machine.overlay import Overlay
from raftkv.machine.rejection import Rejection
from raftkv.machine.stored import stored
from raftkv.state import TIMER_PREFIX, Reader

Place: TypeAlias = tuple[int, int]
"""A timer's time in milliseconds since the epoch, and its id: timers are fired in this order."""

FIRED_AT_ONCE, CHANGED_AT_ONCE = 256, MIB
"""What an entry does at most: some milliseconds of work, in which the node answers nobody. The next follows at once."""

RECORD_KEY = TIMER_PREFIX
_DUE, _DUE_END, _IDS = TIMER_PREFIX + b"d", TIMER_PREFIX + b"e", TIMER_PREFIX + b"i"
_ID_MAX = 2**63
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class TooManyTimers(Rejection):
    """A command would have scheduled more timers than its machine's `Limits` allow; it has no effect."""

    limit: int

    def __str__(self) -> str:
        return f"{self.limit} timers are waiting already: no more may"


class Due(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The payload of an `EntryKind.DUE`: how much it does at most."""

    count: int
    """So many timers are fired."""
    change_bytes: int
    """No further one is, once those before have changed so many bytes."""


class Fired(msgspec.Struct, frozen=True):
    """A command that was run as its time, or that of a row, had come; `is_known` is false when the active version lacks
    it."""

    name: str
    timer_id: int
    """For a row of an expiring table, a hash of its time and key."""
    due_ms: int
    time_ms: int
    outcome: Outcome
    is_known: bool
    args: bytes = b""
    """Encoded; empty for a row whose key nobody can tell."""


class Timer(msgspec.Struct, frozen=True, array_like=True):
    """A command that waits for its time."""

    name: str
    args: bytes
    every_ms: int = 0
    """When it is fired again; 0: once is all."""


class Record(msgspec.Struct, array_like=True):
    """What the state says of all timers."""

    last_id: int = 0
    count: int = 0
    first: Place | None = None
    repeats: dict[str, tuple[int, int]] = {}
    """Of commands that repeat: the id of the timer, and its interval in milliseconds."""


_encoder = msgspec.msgpack.Encoder()
_records = msgspec.msgpack.Decoder(Record)
_timers = msgspec.msgpack.Decoder(Timer)
_dues = msgspec.msgpack.Decoder(Due)


def encode_due(due: Due) -> bytes:
    """As an entry's payload."""
    return _encoder.encode(due)


DUE_AT_ONCE = encode_due(Due(FIRED_AT_ONCE, CHANGED_AT_ONCE))
"""The payload of the entries that leaders propose."""


def decode_due(entry: Entry) -> Due:
    """Of an entry that fires what is due. Raises `MachineFailed`."""
    try:
        return _dues.decode(entry.payload)
    except UNREADABLE as exc:
        text = f"entry {entry.index} does not say how many timers it fires: {exc}. It was not applied"
        raise MachineFailed(text) from exc


def read_record(data: bytes | None) -> Record:
    """The record in the value at `RECORD_KEY`. Raises `StateCorruption`."""
    return Record() if data is None else stored(_records, data, "the record of timers")


def record_in(state: Reader) -> Record:
    """What `state` says of all timers. Raises `StateCorruption`."""
    return read_record(state.get(RECORD_KEY))


def due_ms_of(when: float | timedelta | datetime, now_ms: int) -> int:
    """The first millisecond that is not before `when`; what is past is due now.

    Raises `TypeError` for what is no time, `ValueError` for one that nobody can tell.
    """
    try:
        if isinstance(when, datetime):
            if when.utcoffset() is None:
                raise ValueError(f"{when!r} may be any time: give it a time zone, like `tzinfo=UTC`")
            return max(now_ms, _milliseconds(when - _EPOCH))
        if isinstance(when, float) and not isfinite(when):
            raise ValueError(f"{when!r} seconds are no time: give a number of them")
        if type(when) in (int, float):
            when = timedelta(seconds=when)  # type: ignore[arg-type]
        if not isinstance(when, timedelta):
            raise TypeError(f"a time must be seconds, a timedelta, or a datetime with a time zone, not {when!r}")
        return max(now_ms, now_ms + _milliseconds(when))
    except OverflowError as exc:
        raise ValueError(f"{when!r} is too far away: {exc}") from exc


def _milliseconds(span: timedelta) -> int:
    return -(-span // _MILLISECOND)


def _due_key(place: Place) -> bytes:
    return _DUE + place[0].to_bytes(8, "big") + place[1].to_bytes(8, "big")


def _place_of(key: bytes) -> Place:
    return int.from_bytes(key[2:10], "big"), int.from_bytes(key[10:], "big")


def _id_key(timer_id: int) -> bytes:
    return _IDS + timer_id.to_bytes(8, "big")


class Timers:
    """The timers of one machine, read and changed through the overlay of its commands.

    Invariants, after each method: the record's `count` is the number of timers, and its `first` the first of them.
    """

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._added: list[bytes] = []
        """Sorted: keys that came since the last write to the store; some of them may be gone again."""

    def written(self) -> None:
        """The overlay's batch is in the store."""
        self._added.clear()

    @property
    def record(self) -> Record:
        """What is known of all timers."""
        return read_record(self._overlay.get(RECORD_KEY))

    def add(self, due_ms: int, name: str, args: bytes, limit: int) -> int:
        """Add one for a command, within its limits; returns the id. Raises `TooManyTimers`, `TooLarge`, `TypeError`."""
        record, put = self.record, self._overlay.put
        if record.count >= limit:
            raise TooManyTimers(limit=limit)
        record.last_id += 1
        place = due_ms, record.last_id
        for key, value in self._added_keys(record, place, Timer(name, args)):
            put(key, value, len(key))
        return record.last_id

    def cancel(self, timer_id: int) -> bool:
        """Remove one for a command; whether it was there. What repeats can't be removed so."""
        key = _id_key(timer_id) if 0 < timer_id < _ID_MAX else b""
        found = self._overlay.get(key) if key else None
        if found is None:
            return False
        place = int.from_bytes(found, "big"), timer_id
        if self._timer(place).every_ms:
            return False
        record = self.record
        for each in (_due_key(place), key):
            self._overlay.put(each, None, len(each))
        record.count -= 1
        if record.first == place:
            record.first = self._seek(place)
        self._overlay.put(RECORD_KEY, _encoder.encode(record), len(RECORD_KEY))
        return True

    def due(self, time_ms: int, count: int) -> list[Place]:
        """The first `count` timers whose time is `time_ms` or before, in their order."""
        first = self.record.first
        if first is None or first[0] > time_ms:
            return []
        return list(islice(self._waiting(first, _due_key((time_ms + 1, 0))), count))

    def take(self, place: Place, others: Sequence[Place], time_ms: int) -> Timer | None:
        """Take a timer out, as it is fired at `time_ms`; one that repeats goes to its next turn. None: it is cancelled.

        `others` are those behind it that `due` has found.
        """
        overlay = self._overlay
        if overlay.get(_due_key(place)) is None:
            return None
        timer, record = self._timer(place), self.record
        self._remove(record, place)
        behind = next((each for each in others if overlay.get(_due_key(each)) is not None), None)
        record.first = behind or self._seek(place)
        if timer.every_ms:
            due_ms, every = place[0], timer.every_ms
            self._insert(record, (due_ms + every * (1 + (time_ms - due_ms) // every), place[1]), timer)
        self._keep(record)
        return timer

    def repeat(self, intervals: Mapping[str, int], time_ms: int) -> None:
        """From now on these commands repeat, in so many milliseconds, and no others. What did so before goes on."""
        record = self.record
        before = {name: interval for name, (_, interval) in record.repeats.items()}
        if before == intervals:
            return
        for name, interval in before.items():
            if intervals.get(name) != interval:
                self._stop(record, record.repeats.pop(name)[0])
        for name, interval in intervals.items():
            if name not in record.repeats:
                record.last_id += 1
                record.repeats[name] = record.last_id, interval
                place = time_ms + interval, record.last_id
                self._insert(record, place, Timer(name, _NO_ARGS, interval))
        self._keep(record)

    def begin_anew(self, time_ms: int) -> None:
        """Log time begins anew at `time_ms`: what repeats is due one interval later, not when it would have been."""
        record = self.record
        for name, (timer_id, interval) in record.repeats.items():
            self._stop(record, timer_id)
            self._insert(record, (time_ms + interval, timer_id), Timer(name, _NO_ARGS, interval))
        if record.repeats:
            self._keep(record)

    def _timer(self, place: Place) -> Timer:
        return stored(_timers, self._overlay.get(_due_key(place)) or b"", f"timer {place[1]}")

    def _stop(self, record: Record, timer_id: int) -> None:
        place = int.from_bytes(self._overlay.get(_id_key(timer_id)) or b"", "big"), timer_id
        self._remove(record, place)
        if record.first == place:
            record.first = self._seek(place)

    def _remove(self, record: Record, place: Place) -> None:
        """Without regard to limits, like all that follows: it is not a command's doing."""
        record.count -= 1
        self._overlay.own.update({_due_key(place): None, _id_key(place[1]): None})

    def _insert(self, record: Record, place: Place, timer: Timer) -> None:
        self._overlay.own.update(self._added_keys(record, place, timer))

    def _keep(self, record: Record) -> None:
        self._overlay.own[RECORD_KEY] = _encoder.encode(record)

    def _added_keys(self, record: Record, place: Place, timer: Timer) -> list[tuple[bytes, bytes]]:
        """What is to be set for a timer that comes."""
        record.count += 1
        record.first = place if record.first is None else min(record.first, place)
        key = _due_key(place)
        insort(self._added, key)
        return [
            (key, _encoder.encode(timer)),
            (_id_key(place[1]), place[0].to_bytes(8, "big")),
            (RECORD_KEY, _encoder.encode(record)),
        ]

    def _seek(self, place: Place) -> Place | None:
        """The first timer from `place` on."""
        return next(self._waiting(place, _DUE_END), None)

    def _waiting(self, place: Place, end: bytes) -> Iterator[Place]:
        """The timers from `place` on, before the key `end`. Not by a scan of the overlay, which sorts all that its
        batch changes: at a start thousands of entries may be in one."""
        start, before = _due_key(place), b""
        stored = (key for key, _ in self._overlay.store.scan(start, end))
        added = self._added[bisect_left(self._added, start) : bisect_left(self._added, end)]
        for key in merge(stored, added):
            if key != before and self._overlay.get(key) is not None:
                yield _place_of(key)
            before = key


_NO_ARGS = _encoder.encode(())
