"""A machine with tables, values and methods of many types, for the commands that look into any machine."""

from __future__ import annotations

import datetime

import msgspec

from raftkv import Events, Rejection, Set, StateMachine, Table, Value, command, query


class Place(msgspec.Struct, array_like=True):
    """Where something lies."""

    hall: str
    shelf: int = 7


class Item(msgspec.Struct):
    """What lies there."""

    sku: str
    places: list[Place] = []
    seal: bytes = b""


class NoSuchItem(Rejection):
    """There is none."""

    sku: str


class Depot(StateMachine):
    """Keeps things."""

    items = Table(str, Item)
    blobs = Table(bytes, bytes)
    numbers = Table(int, float)
    moves = Table(tuple[str, int], datetime.datetime)
    tags = Set(str)
    total = Value(int, 0)
    came = Events(str)

    @command
    def store(self, item: Item, count: int = 1) -> Item:
        """Keep an item."""
        self.items[item.sku] = item
        self.tags.add(item.sku[:1])
        self.total += count
        self.came.emit(item.sku)
        return item

    @command
    def fill(self, begins: str, count: int) -> None:
        """Make many items, numbers and moves."""
        for number in range(count):
            self.items[f"{begins}{number:05}"] = Item(begins)
            self.numbers[number - 3] = number / 2
            self.moves[begins, number] = self.now

    @command
    def keep(self, key: bytes, data: bytes | None, until: datetime.date | None = None) -> str:
        """Keep a blob."""
        self.blobs[key] = data or b""
        return str(until)

    @query
    def find(self, sku: str) -> Item:
        """An item."""
        if sku not in self.items:
            raise NoSuchItem(sku=sku)
        return self.items[sku]

    @query
    def raw(self, key: bytes) -> bytes | None:
        """A blob."""
        return self.blobs.get(key)
