"""`SetView`: a replicated set as commands and queries see it, in the order of its keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSet
from collections.abc import Set as AbstractSet
from typing import Any, Generic, TypeVar

from raftkv.machine.mapped import in_order
from raftkv.machine.view import View

K = TypeVar("K")
T = TypeVar("T")


class SetView(MutableSet[K], Generic[K]):
    """A replicated set, as Python's `set` is one, but in order; what set operations make of it is sorted."""

    __slots__ = ("_rows",)

    def __init__(self, rows: View[K, None]) -> None:
        self._rows = rows

    @classmethod
    def _from_iterable(cls, it: Iterable[T]) -> AbstractSet[T]:
        return in_order(it)

    def add(self, value: K) -> None:
        """Add a key; nothing happens when it is there."""
        if value not in self._rows:
            self._rows[value] = None

    def discard(self, value: K) -> None:
        """Remove a key; nothing happens when it is not there."""
        self._rows.pop(value, None)

    def remove(self, value: K) -> None:
        """Remove a key; raises `KeyError` when it is not there."""
        del self._rows[value]

    def pop(self) -> K:
        """Remove the first key, in order, and return it."""
        for key in self._rows:
            del self._rows[key]
            return key
        raise KeyError("the set is empty")

    def update(self, values: Iterable[K]) -> None:
        """Add all of them."""
        for value in values:
            self.add(value)

    def clear(self, limit: int | None = None) -> None:
        """Remove the first `limit` keys; without it, all of them, or none: raises `TooManyRows` as a table's does."""
        self._rows.clear(limit)

    def __contains__(self, value: object) -> bool:
        return value in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __bool__(self) -> bool:
        return bool(self._rows)

    def __iter__(self) -> Iterator[K]:
        return iter(self._rows)

    def __reversed__(self) -> Iterator[K]:
        return reversed(self._rows)

    def __repr__(self) -> str:
        return repr(self._rows).replace("<table", "<set", 1)

    def range(
        self, start: K | None = None, end: K | None = None, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[K]:
        """Keys with `start` ≤ key < `end` (None: from the first, to the last), in order."""
        return (key for key, _ in self._rows.range(start, end, reverse=reverse, limit=limit))

    def prefix(self, prefix: K | tuple[Any, ...], *, reverse: bool = False, limit: int | None = None) -> Iterator[K]:
        """Keys that begin with `prefix`: some text or bytes, or some leading parts of a tuple."""
        return (key for key, _ in self._rows.prefix(prefix, reverse=reverse, limit=limit))
