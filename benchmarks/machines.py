"""What is called: the key-value machine, and a typed one as an application would write it."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import msgspec

from raftkv import StateMachine, Table, command, query
from raftkv.kv import KeyValue


class Order(msgspec.Struct, frozen=True, array_like=True):
    """A customer's order, as it is kept."""

    customer: str
    quantity: int
    cents: int
    note: str
    placed_at: datetime.datetime


class Totals(msgspec.Struct, frozen=True, array_like=True):
    """What a customer has ordered so far."""

    orders: int
    cents: int


class Shop(StateMachine):
    """Orders with a running total for each customer: two tables, typed arguments, a check, a typed result."""

    orders = Table(str, Order)
    totals = Table(str, Totals)

    @command
    def place(self, number: str, customer: str, quantity: int, cents: int, note: str) -> Totals:
        """Enter an order; returns the customer's new totals."""
        if quantity <= 0:
            raise ValueError("quantity must be positive")
        before = self.totals.get(customer, Totals(0, 0))
        after = Totals(before.orders + 1, before.cents + cents)
        self.orders[number] = Order(customer, quantity, cents, note, self.now)
        self.totals[customer] = after
        return after

    @command
    def enter(self, number: str, note: str) -> int:
        """Enter an order without anything else; returns the index: as little as a put does."""
        self.orders[number] = Order("", 1, 0, note, self.now)
        return self.index

    @query
    def order(self, number: str) -> Order | None:
        """The order under that number, or None if there is none."""
        return self.orders.get(number)


class Calls(msgspec.Struct, frozen=True):
    """How the load's writes and reads are called on a machine."""

    machine: type[StateMachine]
    served_as: list[str]
    """Arguments for `raftkv serve`."""
    command: str
    arguments: Callable[[bytes, bytes], tuple[Any, ...]]
    """Of the command, from a key and a value."""
    query: str
    key: Callable[[bytes], tuple[Any, ...]]
    """Of the query, from a key."""


def _text(value: bytes) -> str:
    return value.hex()[: len(value)]


CALLS = {
    "kv": Calls(KeyValue, [], "put", lambda key, value: (key, value), "get", lambda key: (key,)),
    "shop-enter": Calls(
        Shop,
        ["--machine", "benchmarks.machines:Shop"],
        "enter",
        lambda key, value: (key.decode(), _text(value)),
        "order",
        lambda key: (key.decode(),),
    ),
    "shop-place": Calls(
        Shop,
        ["--machine", "benchmarks.machines:Shop"],
        "place",
        lambda key, value: (key.decode(), key[-6:].decode(), 3, 250, _text(value)),
        "order",
        lambda key: (key.decode(),),
    ),
}
"""By the name that a load's spec gives."""
