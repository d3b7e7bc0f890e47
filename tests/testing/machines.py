"""Applications for the tests of the test kit: a sound one, and some with one mistake each."""

from __future__ import annotations

import datetime
import functools
import os
import random
import time
from unittest.mock import ANY

from raftkv.machine import StateMachine, Table, Value, command, query


class Inventory(StateMachine):
    """What the README shows."""

    stock = Table(str, int)

    @command
    def receive(self, sku: str, quantity: int) -> int:
        if quantity <= 0:
            raise ValueError("quantity must be positive")
        total = self.stock.get(sku, 0) + quantity
        self.stock[sku] = total
        return total

    @query
    def on_hand(self, sku: str) -> int:
        return self.stock.get(sku, 0)


class InventoryModel:
    """What an inventory is."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    def receive(self, sku: str, quantity: int) -> int:
        if quantity <= 0:
            raise ValueError
        self.stock[sku] = self.stock.get(sku, 0) + quantity
        return self.stock[sku]

    def on_hand(self, sku: str) -> int:
        return self.stock.get(sku, 0)


class Forgetful(Inventory):
    """Disagrees with its model: it forgets what there was when more than 3 come at once."""

    @command
    def receive(self, sku: str, quantity: int) -> int:
        if quantity <= 0:
            raise ValueError("quantity must be positive")
        self.stock[sku] = quantity if quantity > 3 else self.stock.get(sku, 0) + quantity
        return self.stock[sku]


class Writing(Inventory):
    """Changes a table in a query."""

    @query
    def on_hand(self, sku: str) -> int:
        self.stock[sku] = self.stock.get(sku, 0)
        return self.stock[sku]


_cache: dict[str, int] = {}
_last: list[str] = []


class Remembering(Inventory):
    """Keeps something in the process, which a restart forgets."""

    @command
    def receive(self, sku: str, quantity: int) -> int:
        _cache[sku] = _cache.get(sku, 0) + max(quantity, 0)
        self.stock[sku] = _cache[sku]
        return self.stock[sku]


class Mirroring(Inventory):
    """Writes the same in a table and beside it, and reads what is beside it."""

    @command
    def receive(self, sku: str, quantity: int) -> int:
        if quantity <= 0:
            raise ValueError("quantity must be positive")
        _cache[sku] = self.stock[sku] = self.stock.get(sku, 0) + quantity
        return _cache[sku]

    @query
    def on_hand(self, sku: str) -> int:
        return _cache.get(sku, 0) if sku in self.stock else 0


class Following(Inventory):
    """What a call does goes by whether its process has made the one before."""

    order = Table(int, int)

    @command
    def receive(self, sku: str, quantity: int) -> int:
        if quantity <= 0:
            raise ValueError("quantity must be positive")
        if not len(self.stock):
            _last.clear()
        _last.append(sku)
        self.order[self.index] = len(_last)
        self.stock[sku] = self.stock.get(sku, 0) + quantity
        return self.stock[sku]


@functools.cache
def _priced(sku: str, known: int) -> list[int]:
    """What is known of an article; the list is the caller's, and everybody else's."""
    return [known]


class Memoizing(Inventory):
    """Changes what a function has cached."""

    @command
    def receive(self, sku: str, quantity: int) -> int:
        if quantity <= 0:
            raise ValueError("quantity must be positive")
        total = self.stock.get(sku, 0) + quantity
        if not self.stock.get(sku, 0):
            _priced(sku, 0)[:] = [0]
        _priced(sku, 0)[0] = total
        self.stock[sku] = total
        return _priced(sku, 0)[0]

    @query
    def on_hand(self, sku: str) -> int:
        return _priced(sku, 0)[0] if sku in self.stock else 0


class Attribute(Inventory):
    """Sets an attribute of its own, which a machine refuses."""

    @command
    def receive(self, sku: str, quantity: int) -> int:
        self.last = sku
        return quantity


class Tags(StateMachine):
    """Goes by what differs between processes."""

    tags = Table(str, list[str])
    log = Table(int, dict[str, float])
    last = Value(str, "")

    @command
    def by_set(self, words: list[str]) -> None:
        self.tags["x"] = list(set(words))

    @command
    def by_clock(self, word: str) -> None:
        self.log[self.index] = {"size": len(word), "at": time.time()}

    @command
    def by_date(self, word: str) -> None:
        self.last = f"{word} {datetime.datetime.now(datetime.UTC).date()}"

    @command
    def by_dice(self, word: str) -> int:
        return random.randrange(1_000_000)

    @command
    def by_place(self, word: str) -> int:
        return id(object())

    @command
    def by_exit(self, word: str) -> None:
        os._exit(3)

    @command
    def sound(self, word: str) -> list[str]:
        self.last = f"{word} {self.now.date()} {self.random.randrange(1000)} {self.index}"
        return sorted({self.last, word})


class TagsModel:
    """Knows nothing, and so agrees with everything."""

    def by_set(self, words: list[str]) -> None:
        """Nothing to say."""

    def _anything(self, word: str) -> object:
        return ANY

    sound = by_dice = by_place = _anything
    by_clock = by_date = by_set


class Failing(Inventory):
    """Asks for what not every node may have."""

    @command
    def receive(self, sku: str, quantity: int) -> int:
        with open(f"/nowhere/{sku}") as file:
            return len(file.read()) + quantity


class Holds(StateMachine):
    """Seats that are held for ten seconds, and longer by who holds them."""

    holds = Table(str, str, expires=True)

    @command
    def hold(self, seat: str, who: str) -> bool:
        if self.holds.get(seat, who) != who:
            return False
        self.holds.put(seat, who, ttl_s=10)
        return True


class Unrenewed(Holds):
    """A hold ends ten seconds after it was begun."""

    @command
    def hold(self, seat: str, who: str) -> bool:
        if seat not in self.holds:
            self.holds.put(seat, who, ttl_s=10)
        return self.holds[seat] == who


class Lingering(Holds):
    """A hold lasts for a moment more than ten seconds."""

    ends = Table(str, int)

    @command
    def hold(self, seat: str, who: str) -> bool:
        if self.holds.get(seat, who) != who and self.now_ms <= self.ends[seat]:
            return False
        self.ends[seat] = self.now_ms + 10_000
        self.holds.put(seat, who)
        return True


class HoldsModel:
    """Who holds each seat, and until when."""

    def __init__(self) -> None:
        self.holds: dict[str, tuple[str, int]] = {}

    def hold(self, seat: str, who: str, now_ms: int) -> bool:
        holder, end_ms = self.holds.get(seat, (who, 0))
        if holder != who and now_ms < end_ms:
            return False
        self.holds[seat] = who, now_ms + 10_000
        return True
