"""The keys, values and items of a table, as `keys`, `values` and `items` of a dict are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


class Rows(Mapping[K, V]):
    """A mapping in the order of its keys, of which one scan reads the items."""

    __slots__ = ()

    @abstractmethod
    def __reversed__(self) -> Iterator[K]:
        """Its keys, from the last to the first."""

    @abstractmethod
    def range(self, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """Its items."""


def in_order(keys: Iterable[T]) -> AbstractSet[T]:
    """A set of keys that is the same on every node when it is iterated over."""
    return dict.fromkeys(sorted(keys)).keys()  # type: ignore[type-var] # keys have an order


class Keys(KeysView[K], Generic[K, V]):
    """What set operations make of it is sorted, alike on every node, as no set of Python's is."""

    def __init__(self, view: Rows[K, V]) -> None:
        super().__init__(view)
        self._view = view

    @classmethod
    def _from_iterable(cls, it: Iterable[T]) -> AbstractSet[T]:  # type: ignore[override] # typeshed's is a set
        return in_order(it)

    def __reversed__(self) -> Iterator[K]:
        return reversed(self._view)


class Items(ItemsView[K, V]):
    """Reads the rows in one scan."""

    def __init__(self, view: Rows[K, V]) -> None:
        super().__init__(view)
        self._view = view

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._view.range()

    def __reversed__(self) -> Iterator[tuple[K, V]]:
        return self._view.range(reverse=True)


class Values(ValuesView[V], Generic[K, V]):
    """Reads the rows in one scan."""

    def __init__(self, view: Rows[K, V]) -> None:
        super().__init__(view)
        self._view = view

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._view.range())

    def __reversed__(self) -> Iterator[V]:
        return (value for _, value in self._view.range(reverse=True))

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)
