"""`View`: a table as commands and queries see it, a mapping in the order of its keys."""

from __future__ import annotations

import itertools
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, Sequence, ValuesView
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, cast, overload

from raftkv.errors import TooMuchWork
from raftkv.machine.codec import Codec
from raftkv.machine.counts import Region
from raftkv.machine.expiring import Expiry, Lives, Present
from raftkv.machine.indexes import Index
from raftkv.machine.keys import KeyCodec, prefix_end
from raftkv.machine.limits import TooManyRows
from raftkv.machine.loans import Loans
from raftkv.machine.mapped import Items, Keys, Rows, Values
from raftkv.machine.overlay import KeySpace, Write
from raftkv.machine.pages import Page, make_cursor, read_cursor

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
T = TypeVar("T")

CLEARED_AT_ONCE = 10_000
"""Layout that `clear` deletes at most: more would hold up all other commands, on every node."""

_MISSING: Any = object()


class Layout(NamedTuple):
    """What a view must know of its table."""

    place: Region
    keys: KeyCodec
    values: Codec[Any]
    expires: bool = False
    """Whether rows may have a time, in a version that has it so."""


class Means(NamedTuple):
    """By which a view reads and changes its table, as the active version has it."""

    access: KeySpace
    encode: Any
    """A value as the active version keeps it."""
    loans: Loans | None
    """Watches values that were read; None in a query, which may do with them what it likes."""
    indexes: Sequence[Index] = ()
    """Those that are kept."""
    built: Sequence[Index] = ()
    """Those of them that have all rows."""
    expiry: tuple[Expiry, Present] | None = None
    """Where its rows' times are, and what time it is; None: its rows stay."""


class View(Rows[K, V], MutableMapping[K, V]):
    """A table as a command or query sees it. A command sees its own changes at once, others see them when it has ended.

    It is a mapping as `dict` is one, in the order of keys; `len` and `bool` don't look at the rows. Values are
    copies: a command that changes one and does not set it again raises `TypeError`, and so does one of another type.
    """

    __slots__ = (
        "_access",
        "_at",
        "_decode",
        "_encode",
        "_indexes",
        "_is_lent",
        "_key",
        "_lives",
        "_means",
        "_place",
        "_prefix",
        "_rows",
        "_scan_rows",
    )

    def __init__(self, rows: Layout, means: Means) -> None:
        self._rows, self._means = rows, means
        self._place = rows.place
        self._prefix = rows.place.start
        self._access = means.access
        self._key = rows.keys.encode
        self._encode = means.encode
        self._decode = rows.values.decode
        self._indexes = means.indexes
        self._is_lent = rows.values.is_mutable and means.loans is not None
        self._lives = (
            None if means.expiry is None else Lives(means.expiry[0], means.access, means.expiry[1], self._prefix)
        )
        # Neither is a method of this view: such a circle would keep a store open that a view of a query reads.
        self._at = self._access.get if self._lives is None else self._lives.at
        self._scan_rows = self._access.scan if self._lives is None else self._lives.scan

    # mypy: a mapping's get may also be called with a default of the value's own type only.
    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: V) -> V: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """The value at `key`, or `default`."""
        place = self._prefix + self._key(key)
        data = self._at(place)
        return default if data is None else self._read(place, data)

    def _read(self, place: bytes, data: bytes) -> V:
        value: V = self._decode(data, self._place.name)
        if self._is_lent:
            loans, name = self._means.loans, self._place.name
            assert loans is not None, "values are lent in commands only"
            loans.lend(
                value, data, place, self._encode, lambda data: self._decode(data, name), lambda: self._told(place)
            )
        return value

    def _told(self, place: bytes) -> str:
        return f"self.{self._place.name}[{self._rows.keys.decode(place[len(self._prefix) :])!r}]"

    def __getitem__(self, key: K) -> V:
        value = self.get(key, _MISSING)
        if value is _MISSING:
            raise KeyError(key)
        return cast(V, value)

    def __setitem__(self, key: K, value: V) -> None:
        place, data = self._prefix + self._key(key), self._encode(value)
        if self._lives is not None and self._at(place) is None:
            name = f"self.{self._place.name}"
            raise TypeError(
                f"a new row of {name} must say how long it is there: write `{name}.put(key, value, ttl_s=30)`, or "
                "`ttl_s=None` for one that stays (what is set again keeps its time)"
            )
        self._set(place, data, value)

    def _set(self, place: bytes, data: bytes, value: V, more: Sequence[Write] = ()) -> None:
        if self._indexes or more:
            self._put_indexed(place, data, more)
        else:
            self._access.put(place, data, len(self._prefix), self._place.name)
        if self._is_lent and self._means.loans is not None:
            self._means.loans.set_again(value, data, place)

    def put(self, key: K, value: V, ttl_s: float | timedelta | None = None) -> None:
        """Set a row of an expiring table, which is there for so many seconds from `now` on; None: it stays.

        At its time it is gone for everybody. `self.leases[key] = value` leaves it its time, and refuses new rows.
        Raises `TypeError` for a time in another table, `ValueError` for one that is not above 0.
        """
        place, data = self._prefix + self._key(key), self._encode(value)
        self._set(place, data, value, self._lasting(place, ttl_s))

    def touch(self, key: K, ttl_s: float | timedelta | None) -> bool:
        """Let a row of an expiring table be there for so many seconds from `now` on; False when there is none."""
        place = self._prefix + self._key(key)
        changes = self._lasting(place, ttl_s)
        if self._at(place) is None:
            return False
        self._access.put_all(changes)
        return True

    def _lasting(self, place: bytes, ttl_s: float | timedelta | None) -> Sequence[Write]:
        if not self._rows.expires and ttl_s is not None:
            raise TypeError(f"rows of {self._place.name} stay: declare it with `Table(…, expires=True)`")
        # While a version is active whose table does not expire, nothing keeps times.
        return () if self._lives is None else self._lives.lasting(place, ttl_s)

    def ttl(self, key: K) -> float | None:
        """For how many seconds a row is still there; None: it stays. Raises `KeyError` when it is not there."""
        place = self._prefix + self._key(key)
        if self._at(place) is None:
            raise KeyError(key)
        left_ms = None if self._lives is None else self._lives.left_ms(place)
        return None if left_ms is None else left_ms / 1000

    def __delitem__(self, key: K) -> None:
        place = self._prefix + self._key(key)
        if self._at(place) is None:
            raise KeyError(key)
        self._delete(place)

    def _delete(self, place: bytes) -> None:
        more = () if self._lives is None else self._lives.forgotten(place)
        if self._indexes or more:
            self._put_indexed(place, None, more)
        else:
            self._access.put(place, None, len(self._prefix), self._place.name)

    def _put_indexed(self, place: bytes, data: bytes | None, more: Sequence[Write]) -> None:
        """Change a row, what the indexes have of it, and `more`: all of it, or nothing when that raises."""
        self._access.put_all([*self._moved(place, data), *more, (place, data, len(self._prefix), self._place.name)])

    def _moved(self, place: bytes, data: bytes | None) -> list[Write]:
        """What the indexes change with a row."""
        old = self._access.get(place)
        before, after = self._found_at(place, old), self._found_at(place, data)
        changes: list[Write] = [(each, None, prefix) for each, prefix in before.items() if each not in after]
        changes += [(each, b"", prefix) for each, prefix in after.items() if each not in before]
        return changes

    def decoded_key(self, key: bytes) -> K:
        """The key that is encoded so."""
        decoded: K = self._rows.keys.decode(key)
        return decoded

    def removal(self, key: bytes) -> tuple[bytes, list[Write]]:
        """The value of a row with this encoded key, and what to change to remove it, times aside."""
        place = self._prefix + key
        data = self._access.get(place)
        assert data is not None, f"{self._place.name} has a time for a row that is not there"
        return data, [*self._moved(place, None), (place, None, len(self._prefix), self._place.name)]

    def _found_at(self, place: bytes, data: bytes | None) -> dict[bytes, int]:
        """Where the indexes have a row, and how many bytes of that are not the field's."""
        if data is None:
            return {}
        value, key = self._decode(data, self._place.name), place[len(self._prefix) :]
        return {index.place(value, key): len(index.start) + len(key) for index in self._indexes}

    def __contains__(self, key: object) -> bool:
        return self._at(self._prefix + self._key(key)) is not None

    def __len__(self) -> int:
        count = self._access.count(self._place)
        return count if self._lives is None else count - self._lives.left_over()

    def __bool__(self) -> bool:
        return len(self) > 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return len(self) == len(other) and all(key in other and other[key] == value for key, value in self.range())

    __hash__ = None  # type: ignore[assignment] # as that of a dict

    def __repr__(self) -> str:
        return f"<table {self._place.name} of {len(self)} rows>"

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: V) -> V: ...
    @overload
    def pop(self, key: K, default: D) -> V | D: ...
    def pop(self, key: K, default: Any = _MISSING) -> Any:
        """Delete `key` and return its value; when it is not there, `default` is returned, or `KeyError` raised."""
        place = self._prefix + self._key(key)
        data = self._at(place)
        if data is None:
            if default is _MISSING:
                raise KeyError(key)
            return default
        self._delete(place)
        return self._decode(data, self._place.name)

    def popitem(self) -> tuple[K, V]:
        """Delete the last item, in the order of keys, and return it."""
        for key in reversed(self):
            return key, self.pop(key)
        raise KeyError(f"{self._place.name} is empty")

    def setdefault(self, key: K, default: V) -> V:
        """The value at `key`, which is set to `default` if it is not there."""
        if key not in self:
            self[key] = default
        return self[key]

    def clear(self, limit: int | None = None) -> None:
        """Delete the first `limit` rows; without it, all of them, or none: raises `TooManyRows` if there are more than
        one command deletes (10,000)."""
        if limit is None and len(self) > CLEARED_AT_ONCE:
            raise TooManyRows(table=self._place.name, rows=len(self), limit=CLEARED_AT_ONCE)
        found = self._scan_rows(self._place.start, self._place.end, reverse=False)
        for place in [place for place, _ in itertools.islice(found, limit)]:
            self._delete(place)

    def keys(self) -> KeysView[K]:
        """Its keys, in order, as of the time when they are iterated over."""
        return Keys(self)

    def values(self) -> ValuesView[V]:
        """Its values, in the order of keys, likewise."""
        return Values(self)

    def items(self) -> ItemsView[K, V]:
        """Its items, in the order of keys, likewise."""
        return Items(self)

    def __iter__(self) -> Iterator[K]:
        return self._keys(reverse=False)

    def __reversed__(self) -> Iterator[K]:
        return self._keys(reverse=True)

    def range(
        self, start: K | None = None, end: K | None = None, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[K, V]]:
        """Items with `start` ≤ key < `end` (None: from the first, to the last), in the order of keys."""
        return self._items(*self._bounds(start, end), reverse, limit)

    def _bounds(self, start: K | None, end: K | None) -> tuple[bytes, bytes]:
        low = self._prefix if start is None else self._prefix + self._key(start)
        return low, self._place.end if end is None else self._prefix + self._key(end)

    def prefix(
        self, prefix: K | tuple[Any, ...], *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[K, V]]:
        """Items whose key begins with `prefix`: some text or bytes, or some leading parts of a tuple."""
        return self._items(*self._prefixed(prefix), reverse, limit)

    def _prefixed(self, prefix: K | tuple[Any, ...]) -> tuple[bytes, bytes]:
        low = self._prefix + self._rows.keys.encode_prefix(prefix)
        high = prefix_end(low)
        assert high is not None, "the table's own prefix ends in 00"
        return low, high

    def page(
        self,
        after: bytes | None = None,
        limit: int = 100,
        *,
        start: K | None = None,
        end: K | None = None,
        prefix: K | tuple[Any, ...] | None = None,
        reverse: bool = False,
    ) -> Page[K, V]:
        """Up to `limit` items of a range, or of a prefix, and a cursor for the next page, to be given as `after`.

        A cursor is a place among the keys: pages stay right while rows come and go, and a client may keep it. When
        there is too much to read, as deleted rows count too, a page has fewer items. Raises `ValueError` for a cursor
        that is none of this table and direction, and for a limit below 1.
        """
        if limit < 1:
            raise ValueError(f"a page has at least one item, not {limit}")
        source = f"{self._place.name}.page(reverse={reverse})"
        low, high = self._bounds(start, end) if prefix is None else self._prefixed(prefix)
        if after is not None:
            place = self._prefix + read_cursor(source, after)
            low, high = (low, min(high, place)) if reverse else (max(low, place), high)
        items: list[tuple[K, V]] = []
        position: bytes | None = None
        try:
            for key, value in self._items(low, high, reverse, limit + 1):
                if len(items) == limit:
                    break
                items.append((key, value))
            else:
                return Page(items, None)
        except TooMuchWork as exc:
            position = exc.position
            if position is None and not items:
                raise
        if position is None:
            position = self._key(items[-1][0]) + (b"" if reverse else b"\0")
        return Page(items, make_cursor(source, position))

    @overload
    def by(
        self, field: str, value: Any, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[K, V]]: ...
    @overload
    def by(
        self, field: str, *, start: Any = None, end: Any = None, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[K, V]]: ...
    def by(
        self,
        field: str,
        value: Any = _MISSING,
        *,
        start: Any = None,
        end: Any = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[K, V]]:
        """Items whose indexed `field` is `value`, or for which `start` ≤ field < `end`, in the order of the field, then
        of keys."""
        index = next((each for each in self._indexes if each.field == field), None)
        if index is None:
            raise TypeError(
                f"{self._place.name} has no index of {field!r}: declare it as in `Table(…, index={{{field!r}: str}})`"
            )
        if value is not _MISSING:
            low = index.bound(value)
            high = prefix_end(low) or index.end
        else:
            low = index.start if start is None else index.bound(start)
            high = index.end if end is None else index.bound(end)
        return self._indexed(index, low, high, reverse, limit)

    def _indexed(
        self, index: Index, low: bytes, high: bytes, reverse: bool, limit: int | None
    ) -> Iterator[tuple[K, V]]:
        if low >= high or (limit is not None and limit <= 0):
            return
        found = (self._prefix + index.key(place) for place in self._places(index, low, high, reverse))
        if self._lives is not None:
            found = (place for place in found if not self._lives.is_over(place))
        for place in itertools.islice(found, limit):
            data = self._access.get(place)
            assert data is not None, f"the index {index.name} has a row that the table lacks"
            yield self._rows.keys.decode(place[len(self._prefix) :]), self._read(place, data)

    def _places(self, index: Index, low: bytes, high: bytes, reverse: bool) -> Iterable[bytes]:
        """Those between two bounds. While an upgrade builds the index, all rows are looked at."""
        if index in self._means.built:
            return _places_of(self._access.scan(low, high, reverse=reverse))
        skip, name = len(self._prefix), self._place.name
        rows = self._access.scan(self._place.start, self._place.end, reverse=False)
        all_places = (index.place(self._decode(data, name), place[skip:]) for place, data in rows)
        return sorted((place for place in all_places if low <= place < high), reverse=reverse)

    def _keys(self, *, reverse: bool) -> Iterator[K]:
        low, high = self._place.start, self._place.end
        skip, decode_key = len(self._prefix), self._rows.keys.decode
        try:
            for place, _ in self._scan_rows(low, high, reverse=reverse):
                yield decode_key(place[skip:])
        except TooMuchWork as exc:
            self._make_own(exc, low, high)
            raise

    def _items(self, low: bytes, high: bytes, reverse: bool, limit: int | None) -> Iterator[tuple[K, V]]:
        if low >= high or (limit is not None and limit <= 0):
            return
        skip, decode_key, read = len(self._prefix), self._rows.keys.decode, self._read
        count = 0
        try:
            for place, data in self._scan_rows(low, high, reverse=reverse):
                yield decode_key(place[skip:]), read(place, data)
                count += 1
                if count == limit:
                    return
        except TooMuchWork as exc:
            self._make_own(exc, low, high)
            raise

    def _make_own(self, error: TooMuchWork, low: bytes, high: bytes) -> None:
        """The position from which a scan could go on is among the table's own keys."""
        position = error.position
        error.position = position[len(self._prefix) :] if position is not None and low < position < high else None


def _places_of(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    try:
        for place, _ in pairs:
            yield place
    except TooMuchWork as exc:
        exc.position = None  # it is none among the table's keys
        raise
