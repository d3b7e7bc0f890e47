"""What queries give besides the value: the log index that it was read at."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from raftkv.history import Cursor
from raftkv.model import Index

T = TypeVar("T")


class Read(msgspec.Struct, Generic[T], frozen=True):
    """What a query found, and the log index that it was read at."""

    value: T
    index: Index
    lineage: str = ""
    """As in `Cursor`: which cluster's index it is."""

    @property
    def cursor(self) -> Cursor:
        """From where to watch on, so that nothing is missed: `client.watch(Inventory.stock, after=read.cursor)`."""
        return Cursor.behind(self.index, self.lineage)


class StaleRead(Read[T], Generic[T], frozen=True):
    """What a query found on some node that may be behind, and the log index that it was read at."""
