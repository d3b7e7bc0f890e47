"""A machine for tests of types: defaults, keywords, records, names that are also types."""

import datetime

import msgspec

from raftkv import StateMachine, Table, command, query


class Item(msgspec.Struct):
    sku: str
    count: int = 0


class Inventory(StateMachine):
    stock = Table(str, int)

    @command
    def receive(self, sku: str, quantity: int = 1) -> int:
        total = self.stock.get(sku, 0) + quantity
        self.stock[sku] = total
        return total

    @command
    def put(self, item: Item, /, method: str = "", self_: int = 0) -> Item:
        self.stock[item.sku] = item.count
        return item

    @command(since=1)
    def list(self, int: "Item | None" = None) -> "dict[str, Item]":
        return {sku: Item(sku, count) for sku, count in self.stock.items()}

    @command
    def call(self, Inventory: str) -> str:
        return Inventory

    @command
    def apply(self, when: datetime.datetime) -> None:
        pass

    @query
    def on_hand(self, sku: str) -> int:
        return self.stock.get(sku, 0)

    def helper(self, sku: str) -> int:
        return 0


class Other(StateMachine):
    @command
    def other(self, sku: str) -> int:
        return 1


def plain(sku: str) -> int:
    return 0
