"""One application in several versions, all of one name, for tests of nodes and clients that do not run the same."""

from __future__ import annotations

import msgspec

from raftkv import StateMachine, Table, Value, command, query, upgrade


class Order(msgspec.Struct):
    """What version 1 knows of an order."""

    sku: str
    count: int = 1


class TaggedOrder(msgspec.Struct):
    """The same with a field that version 2 has added."""

    sku: str
    count: int = 1
    tags: list[str] = []


def _first() -> type[StateMachine]:
    class Shop(StateMachine):
        """Version 1."""

        orders = Table(int, Order)

        @command
        def order(self, number: int, order: Order) -> Order:
            """Keep an order."""
            self.orders[number] = order
            return order

        @command
        def send(self, number: int) -> int:
            """Forget one that is sent; returns its count."""
            return self.orders.pop(number).count

        @query
        def find(self, number: int) -> Order | None:
            """An order."""
            return self.orders.get(number)

        @query
        def like(self, order: Order) -> list[int]:
            """The numbers of all such orders."""
            return [number for number, each in self.orders.items() if each == order]

    return Shop


def _second(kind: type[msgspec.Struct] = TaggedOrder, *, newest: int = 2, fails: bool = False) -> type[StateMachine]:
    class Shop(StateMachine):
        """Version 2: orders have tags, sending takes a way, and what was sent is counted."""

        version = newest
        oldest_version = newest - 1
        orders = Table(int, kind)
        sent = Value(int, 0, since=2)

        @command
        def order(self, number: int, order: kind) -> kind:  # type: ignore[valid-type]
            """Keep an order."""
            self.orders[number] = order
            return order

        @command
        def send(self, number: int, way: str = "post") -> int:
            """Forget one that is sent; returns its count."""
            count = self.orders.pop(number).count  # type: ignore[attr-defined]
            if self.version >= 2:
                self.sent += count
            return count

        @command(since=2)
        def tag(self, number: int, tag: str) -> list[str]:
            """Add a tag to an order."""
            order = self.orders[number]
            order.tags.append(tag)  # type: ignore[attr-defined]
            self.orders[number] = order
            return order.tags  # type: ignore[attr-defined,no-any-return]

        @query
        def find(self, number: int) -> kind | None:  # type: ignore[valid-type]
            """An order."""
            return self.orders.get(number)

        @query
        def like(self, order: kind) -> list[int]:  # type: ignore[valid-type]
            """The numbers of all such orders."""
            return [number for number, each in self.orders.items() if each == order]

        @query(since=2)
        def count_sent(self) -> int:
            """How many were sent since version 2 is active."""
            return self.sent

        @upgrade(to=2)
        def mark(self, after: int | None) -> int | None:
            """Tag what there was, two orders at a time."""
            if fails:
                raise ValueError("nobody knows how")
            some = list(self.orders.range(after, limit=2))
            for number, order in some:
                order.tags.append("old")  # type: ignore[attr-defined]
                self.orders[number] = order
            return some[-1][0] + 1 if len(some) == 2 else None

    return Shop


class RenamedOrder(msgspec.Struct):
    """What somebody made of `TaggedOrder` without another version."""

    sku: str
    count: int = 1
    labels: list[str] = []


First = _first()
Second = _second()
Failing = _second(fails=True)
"""Version 2, whose upgrade raises."""
Renamed = _second(RenamedOrder)
"""Other code under version 2."""
Later = _second(newest=4)
"""Runs versions 3 and 4."""
