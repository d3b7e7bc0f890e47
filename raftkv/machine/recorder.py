"""The history of changes: what commands have changed in watched tables, and their events, kept for a while.

Under `HISTORY_PREFIX` is one record of all of it. Under "c" is each change by the index of its entry, in 8 bytes, and
its place among the changes of that entry, in 4, the highest first. Under "f" is from where on each source is recorded
that is not so from the beginning.

A change is what a command has made of a row, from before it to after it: a row that is the same then has not changed,
and what is rejected has changed nothing. A row that was over and is set again before it was removed has two: first it
is gone. Entries that fire commands have those of each one, in turn. Events come behind the rows of their command.

What is added takes away what is too much: see `Recorder._trim`. So the history needs no entries of its own, and stays
as it is while nothing changes. Which change is the first that is kept is in the record, and nobody looks for it where
deleted keys pile up. The record follows from the changes, so it is written but once for a batch, and is not in the
digest that replicas compare; the changes are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, NamedTuple, TypeAlias

import msgspec

from raftkv.config import KIB, MIB
from raftkv.errors import InvalidArgument
from raftkv.history import BEGINNING, INDEX_MAX, POSITION_MAX, Asked, Compacted, Cursor, Found, Recorded
from raftkv.machine.expiring import Expiry
from raftkv.machine.overlay import Overlay
from raftkv.machine.stored import stored
from raftkv.model import Index
from raftkv.state import HISTORY_PREFIX, TABLE_PREFIX, Reader, Store

EXTENT_KEY, FLOORS_KEY = HISTORY_PREFIX, HISTORY_PREFIX + b"f"
CHANGES, CHANGES_END = HISTORY_PREFIX + b"c", HISTORY_PREFIX + b"d"

TRIMMED_AT_ONCE = 16
"""Changes that are taken away with an entry, and two for each that it adds, and one for each KiB of these. So a history
never has more changes than its bound and one entry's, nor more bytes than its bound, one entry's, and a KiB for each
change."""

_AHEAD, _AHEAD_BYTES = 256, 256 * KIB
"""Of the oldest changes that were looked at in advance, so that trimming need not search for each of them."""

LOOKED_AT_ONCE, LOOKED_BYTES = 2_000, MIB
"""Changes, and their bytes, that one call reads: some milliseconds of work."""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept of what changes: `class Shop(StateMachine, history=History(age_s=3600))`.

    Who was away for longer reads the table anew. As with `Limits`, nodes must agree on it, so it stands in the class.
    """

    count: Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] = 100_000
    """Of changes and events of all tables together: minutes of a busy cluster, a day of a quiet one."""
    bytes: Annotated[int, msgspec.Meta(ge=KIB, le=2**40)] = 64 * MIB
    """Of them, as they are kept; on disk and not in memory."""
    age_s: Annotated[int, msgspec.Meta(ge=1, le=2**31)] = 86_400
    """Older ones are taken away when something is added, by the log's time."""


class Extent(msgspec.Struct, array_like=True):
    """What the state says of the whole history."""

    trimmed: Cursor = BEGINNING
    """The last change that was taken away: what is behind it is there."""
    newest: Cursor = BEGINNING
    """The last one."""
    count: int = 0
    bytes: int = 0
    """Of keys and values."""


class Noted(msgspec.Struct, frozen=True, array_like=True):
    """A change as it stands in the state. The time is first, as trimming reads nothing else."""

    time_ms: int
    source: str
    key: bytes
    value: bytes | None
    old: bytes | None


class _When(msgspec.Struct, frozen=True, array_like=True):
    time_ms: int


class Watched(NamedTuple):
    """A table whose changes are recorded."""

    name: str
    keeps_old: bool
    expiry: Expiry | None
    skip: int
    """Bytes of a row's place in the store before its own key."""


class Sources(NamedTuple):
    """What a version records."""

    tables: Mapping[bytes, Watched]
    """By what the keys of its rows begin with, up to the first 00."""
    streams: frozenset[str]
    keeps_old: Mapping[str, bool]
    """All of them, and whether old values are noted."""
    history: History


def sources_of(
    watched: Mapping[str, bool], streams: frozenset[str], expiring: Mapping[str, Expiry], bounds: tuple[int, ...]
) -> Sources:
    """What is recorded while these tables (with whether old values are kept) and streams of events are in force."""
    tables = {
        TABLE_PREFIX + name.encode(): Watched(name, keeps_old, expiring.get(name), len(name.encode()) + 2)
        for name, keeps_old in watched.items()
    }
    history = History(count=bounds[0], bytes=bounds[1], age_s=bounds[2]) if bounds else History()
    return Sources(tables, streams, {**watched, **dict.fromkeys(sorted(streams), False)}, history)


_OLD = " old"
"""Stands behind the name of a table where its old values are meant, as it is in no name."""

_encoder = msgspec.msgpack.Encoder()
_records = msgspec.msgpack.Decoder(Extent)
_floors = msgspec.msgpack.Decoder(dict[str, Cursor])
_changes = msgspec.msgpack.Decoder(Noted)
_times = msgspec.msgpack.Decoder(_When)


_Old: TypeAlias = tuple[bytes, int, int]
"""One of the oldest changes, as trimming must know it: its key, its bytes, and its time."""

_New: TypeAlias = tuple[int, str, bytes, bytes | None, bytes | None]
"""A `Noted` that is to be written."""


def extent_in(state: Reader) -> Extent:
    """What `state` says of its history. Raises `StateCorruption`."""
    data = state.get(EXTENT_KEY)
    return Extent() if data is None else stored(_records, data, "the record of the history of changes")


def floors_in(state: Reader) -> dict[str, Cursor]:
    """From behind which cursors on sources are recorded, if not from the beginning. Raises `StateCorruption`."""
    data = state.get(FLOORS_KEY)
    return {} if data is None else stored(_floors, data, "the record of what is watched")


def read_noted(data: bytes) -> Noted:
    """Raises `StateCorruption`."""
    return stored(_changes, data, "a change in the history")


def place_of(cursor: Cursor) -> bytes:
    """The key of a change."""
    return CHANGES + cursor.index.to_bytes(8, "big") + cursor.position.to_bytes(4, "big")


def cursor_at(place: bytes) -> Cursor:
    """The change that has this key."""
    return Cursor(int.from_bytes(place[2:10], "big"), int.from_bytes(place[10:14], "big"))


def _kept(cursor: Cursor) -> tuple[Index, int]:
    """As it stands in the state, which is of one lineage."""
    return cursor.index, cursor.position


def _recorded(sources: Sources) -> list[str]:
    """The names under which it is known from where on something is recorded: old values have one of their own."""
    return [*sources.keeps_old, *(name + _OLD for name, keeps_old in sources.keeps_old.items() if keeps_old)]


_Mark: TypeAlias = tuple[tuple[bytes, int, int, int, int], tuple[int, int, bool]]
"""What is known of the whole history, and of the batch."""


class Recorder:
    """Records what the commands of one overlay change, for one thread.

    Invariants, after each method: the extent is that of the changes which store and overlay have together; `_added` are
    those of the batch; `_ahead` are the first of the store's that are not trimmed.
    """

    def __init__(self, overlay: Overlay) -> None:
        """Raises `StateCorruption`."""
        self._overlay = overlay
        extent = extent_in(overlay.store)
        self._trimmed = place_of(extent.trimmed)
        self._newest, self._position = extent.newest.index, extent.newest.position
        self._count, self._bytes = extent.count, extent.bytes
        self._is_grown = False
        """Whether the store knows another extent."""
        self._floors = floors_in(overlay.store)
        self._sources = sources_of({}, frozenset(), {}, ())
        self.is_on = False
        """Whether anything is recorded at all."""
        self.changed: frozenset[str] = frozenset()
        """The sources of which something was recorded, and is in the store since the last write."""
        self._changing: set[str] = set()
        self._ahead: deque[_Old] = deque()
        self._is_all_ahead = False
        """Whether the store has no others than those in `_ahead`."""
        self._added: list[_Old] = []
        self._added_trimmed = 0
        """How many of `_added` are taken away again."""
        self._before: tuple[int, _Mark] | None = None
        """The last entry that has added something, and what was before it."""

    def activate(self, sources: Sources) -> None:
        """From now on this is recorded."""
        self._sources = sources
        self.is_on = bool(sources.keeps_old)

    def went_over(self, before: Sources, index: int, *, is_first: bool) -> None:
        """The entry `index` has made another version active, or (`is_first`) the first one.

        What the version before did not record is not known from the beginning. With the first one only tables are so
        that have rows: then there may be nodes that knew of no versions.
        """
        overlay, after = self._overlay, _recorded(self._sources)
        known = _recorded(before)
        floors = {name: floor for name, floor in self._floors.items() if name in after}
        for name in after:
            prefix = TABLE_PREFIX + name.removesuffix(_OLD).encode()
            has_rows = is_first and next(overlay.scan(prefix + b"\0", prefix + b"\1", reverse=False), None) is not None
            if has_rows or not (is_first or name in known):
                floors[name] = Cursor.behind(index - 1)
        if floors != self._floors:
            self._floors = floors
            overlay.own[FLOORS_KEY] = _encoder.encode({name: _kept(floor) for name, floor in floors.items()})

    def add(self, index: int, time_ms: int) -> None:
        """Record what the command, or other part of the entry `index`, has changed that is about to be kept."""
        overlay = self._overlay
        tables, found = self._sources.tables, list[_New]()
        for key, value in overlay.own.items():
            watched = tables.get(key[: key.find(b"\0")])
            if watched is not None:
                self._add_row(watched, key, value, time_ms, found)
        for source, event in overlay.emitted:
            if source in self._sources.streams:
                found.append((time_ms, source, b"", event, None))
        if found:
            self._append(found, index, time_ms)

    def _add_row(self, watched: Watched, place: bytes, value: bytes | None, time_ms: int, found: list[_New]) -> None:
        before, key = self._overlay.before(place), place[watched.skip :]
        old = before if watched.keeps_old else None
        if before is not None and watched.expiry is not None:
            ends_ms = self._overlay.before(watched.expiry.ends + key)
            if ends_ms is not None and int.from_bytes(ends_ms, "big") <= time_ms:
                found.append((time_ms, watched.name, key, None, old))
                before = old = None
        if value != before:
            found.append((time_ms, watched.name, key, value, old))

    def _append(self, found: list[_New], index: int, time_ms: int) -> None:
        if self._before is None or self._before[0] != index:
            self._before = index, self._mark()
        first = self._position + 1 if self._newest == index else 0
        start, own, size = CHANGES + index.to_bytes(8, "big"), self._overlay.own, 0
        for position, each in enumerate(found, first):
            key, data = start + position.to_bytes(4, "big"), _encoder.encode(each)
            own[key] = data
            self._added.append((key, len(key) + len(data), time_ms))
            size += len(key) + len(data)
            self._changing.add(each[1])
        self._newest, self._position = index, first + len(found) - 1
        self._count += len(found)
        self._bytes += size
        self._is_grown = True
        self._trim(TRIMMED_AT_ONCE + 2 * len(found) + size // KIB, time_ms)

    def _trim(self, count_max: int, time_ms: int) -> None:
        """Take the oldest changes away while there are too many of them, or they are too many bytes, or too old."""
        bounds, own = self._sources.history, self._overlay.own
        for _ in range(count_max):
            first = self._first()
            is_over = self._count > bounds.count or self._bytes > bounds.bytes
            if first is None or not (is_over or time_ms - first[2] > bounds.age_s * 1000):
                return
            key, size, _ = first
            if self._ahead:
                self._ahead.popleft()
            else:
                self._added_trimmed += 1
            own[key] = None
            self._trimmed = key
            self._count -= 1
            self._bytes -= size

    def _first(self) -> _Old | None:
        """The oldest change that is left."""
        if not self._ahead and not self._is_all_ahead:
            self._look_ahead()
        if self._ahead:
            return self._ahead[0]
        return self._added[self._added_trimmed] if self._added_trimmed < len(self._added) else None

    def _look_ahead(self) -> None:
        size = 0
        for key, data in islice(self._overlay.store.scan(self._trimmed + b"\0", CHANGES_END), _AHEAD):
            self._ahead.append((key, len(key) + len(data), stored(_times, data, "a change").time_ms))
            size += len(data)
            if size > _AHEAD_BYTES:
                return
        self._is_all_ahead = not self._ahead

    def _mark(self) -> _Mark:
        return (
            (self._trimmed, self._newest, self._position, self._count, self._bytes),
            (len(self._added), self._added_trimmed, self._is_grown),
        )

    def undo(self, index: int) -> None:
        """The entry behind `index` could not be applied, and nothing of it is kept."""
        if self._before is not None and self._before[0] > index:
            extent, (added, self._added_trimmed, self._is_grown) = self._before[1]
            self._trimmed, self._newest, self._position, self._count, self._bytes = extent
            del self._added[added:]
            self._ahead.clear()
            self._is_all_ahead = False
            self._before = None

    def complete(self, batch: dict[bytes, bytes | None]) -> None:
        """`batch` is about to be written: have the extent in it, if it is another one."""
        if self._is_grown:
            trimmed, newest = _kept(cursor_at(self._trimmed)), (self._newest, self._position)
            batch[EXTENT_KEY] = _encoder.encode((trimmed, newest, self._count, self._bytes))

    def written(self) -> None:
        """The overlay's batch is in the store."""
        self.changed = frozenset(self._changing)
        self._changing.clear()
        if self._is_grown:
            self._added.clear()
            self._added_trimmed = 0
            self._is_grown = self._is_all_ahead = False
            self._before = None


def read_changes(state: Reader, sources: Sources, asked: Asked, changes_max: int, bytes_max: int) -> Found:
    """What `state` knows of changes that were asked for: up to so many, and (but for one) of so many bytes.

    There are fewer when too much would have to be looked at. Raises `Compacted`, `InvalidArgument`, `StateCorruption`.
    """
    _check(sources, asked)
    oldest, floors = extent_in(state).trimmed, floors_in(state)
    for name in (asked.source, asked.source + _OLD)[: 1 + asked.old]:
        oldest = max(oldest, floors.get(name, BEGINNING))
    if asked.after < oldest:
        raise Compacted(oldest)
    changes, size, after, looked, looked_bytes = list[Recorded](), 0, asked.after, 0, 0
    for place, data in state.steps(place_of(after) + b"\0", CHANGES_END):
        if data is None:
            continue  # there are but few keys that were deleted behind the oldest change
        noted = read_noted(data)
        if noted.source == asked.source and asked.wants(noted.key):
            size += len(data)
            if changes and size > bytes_max:
                return Found(changes, after)
            old = noted.old if asked.old else None
            changes.append(Recorded(cursor_at(place), noted.time_ms, noted.key, noted.value, old))
        after = cursor_at(place)
        looked, looked_bytes = looked + 1, looked_bytes + len(data)
        if len(changes) >= changes_max or looked == LOOKED_AT_ONCE or looked_bytes > LOOKED_BYTES:
            return Found(changes, after)
    return Found(changes, max(after, Cursor.behind(state.applied.index)))


def _check(sources: Sources, asked: Asked) -> None:
    if not (0 <= asked.after.index <= INDEX_MAX and 0 <= asked.after.position <= POSITION_MAX):
        raise InvalidArgument(f"there is no cursor {asked.after}")
    keeps_old = sources.keeps_old.get(asked.source)
    if keeps_old is None:
        known = ", ".join(sources.keeps_old) or "nothing"
        raise InvalidArgument(
            f"changes of {asked.source!r} are not recorded in the version that is active, which records {known}: "
            "declare it with `Table(…, watch=True)`"
        )
    if asked.old and not keeps_old:
        raise InvalidArgument(f'no old values of {asked.source} are kept: declare it with `watch="old"`')


def out_of_order(store: Store) -> Iterator[str]:
    """Sentences on what is not right of the history; reads all of it."""
    record, count, size, last = extent_in(store), 0, 0, None
    for place, data in store.scan(CHANGES, CHANGES_END):
        count, size, last = count + 1, size + len(place) + len(data), cursor_at(place)
        if last <= record.trimmed:
            yield f"the history has a change at {last}, and nothing up to {record.trimmed} is said to be kept"
        read_noted(data)
    if (count, size) != (record.count, record.bytes):
        yield f"the history has {count} changes of {size} bytes, and {record.count} of {record.bytes} are counted"
    if last is not None and last != record.newest:
        yield f"the last change in the history is {last}, and {record.newest} is said to be"
