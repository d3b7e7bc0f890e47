"""Two versions of one application, for the tests of the test kit: a sound pair."""

from __future__ import annotations

import msgspec

from raftkv.machine import StateMachine, Table, Value, command, query, upgrade


class Item(msgspec.Struct):
    """What a shop has of something."""

    count: int = 0


class Shop(StateMachine):
    """The first version: it counts what there is."""

    items = Table(str, Item)
    names = Table(str, str)

    @command
    def receive(self, name: str, count: int) -> int:
        if count < 0:
            raise ValueError("count must not be negative")
        item = self.items.get(name, Item())
        item.count += count
        self.items[name] = item
        return item.count

    @command
    def rename(self, name: str, title: str) -> None:
        self.names[name] = title

    @query
    def count(self, name: str) -> int:
        return self.items.get(name, Item()).count


Before = Shop


class GrownItem(msgspec.Struct):
    """With a field of its own."""

    count: int = 0
    tags: list[str] = []


class Shop(StateMachine):  # type: ignore[no-redef]
    """The second version: more fields, arguments, commands and tables, and titles instead of names, piece by piece."""

    version = 2
    items = Table(str, GrownItem)
    names = Table(str, str, until=3)
    titles = Table(str, str, since=2)
    total = Value(int, 0, since=2)

    @command
    def receive(self, name: str, count: int, tag: str = "") -> int:
        if count < 0:
            raise ValueError("count must not be negative")
        item = self.items.get(name, GrownItem())
        item.count += count
        if tag:
            item.tags.append(tag)
        self.items[name] = item
        if self.version >= 2:
            self.total += count
        return item.count

    @command
    def rename(self, name: str, title: str) -> None:
        if self.version < 2:
            self.names[name] = title
            return
        self.titles[name] = title
        self.names.pop(name, None)

    @command(since=2)
    def sell(self, name: str) -> bool:
        item = self.items.get(name)
        if item is None or not item.count:
            return False
        item.count -= 1
        self.items[name] = item
        self.total -= 1
        return True

    @query
    def count(self, name: str) -> int:
        return self.items.get(name, GrownItem()).count

    @query(since=2)
    def title(self, name: str) -> str | None:
        return self.titles.get(name, self.names.get(name))

    @upgrade(to=2)
    def sum_up(self) -> None:
        self.total = sum(item.count for _, item in self.items.items())

    @upgrade(to=2)
    def move_names(self, after: str | None) -> str | None:
        for name, title in list(self.names.items())[:2]:
            self.titles[name] = title
            del self.names[name]
            after = name
        return after if any(self.names.items()) else None


After = Shop
