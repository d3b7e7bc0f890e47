"""The machines whose commands are kept under `tests/formats/scripts`: raftkv's own, and some that use all that it does.

What is here is never changed, as nothing of what is kept with it would hold any more: another one is added instead.
"""

from __future__ import annotations

from typing import Any

import msgspec

from raftkv import Component, Events, History, Part, Set, StateMachine, Table, Value, command, every, on_expire, upgrade
from raftkv.kv.machine import KeyValue, WatchedKeyValue
from raftkv.machine import Rejection
from raftkv.recipes import (
    Barriers,
    Elections,
    Fences,
    IdempotencyKeys,
    Locks,
    Members,
    Queues,
    RateLimits,
    ReadWriteLocks,
    Semaphores,
)


class Crew(Members):
    """Members who leave a trace when they go."""

    left = Table(tuple[str, str], int)

    def on_leave(self, group: str, member: str, data: str) -> None:
        """Nobody named so may leave: what this raises undoes it."""
        if member == "dan":
            raise ValueError("dan stays")
        self.left[group, member] = self.left.get((group, member), 0) + 1


class Bank(StateMachine):
    """Work that is done once for each key."""

    keys = Part(IdempotencyKeys)
    balances = Table(str, int)

    @command
    def pay(self, key: str, account: str, cents: int, keep_s: float) -> int:
        """Once, in the same command."""

        def work() -> int:
            if cents > 50:
                raise ValueError("too much")
            self.balances[account] = self.balances.get(account, 0) + cents
            return self.balances[account]

        return self.keys.once(key, work, answer=int, request=(account, cents), keep_s=keep_s)


class Disk(StateMachine):
    """A fenced resource, with the locks that give its tokens."""

    fences = Part(Fences)
    locks = Part(Locks)
    rates = Part(RateLimits)
    blocks = Table(int, int)

    @command
    def write(self, block: int, token: int) -> None:
        """By the highest token only."""
        self.fences.admit("disk", token)
        self.blocks[block] = token

    @command
    def write_held(self, block: int, name: str, token: int) -> int:
        """By who holds the lock only, and not too often."""
        self.locks.require(name, token)
        self.blocks[block] = token
        return self.rates.spend(name, 2, 1.0)


class Restored(StateMachine):
    """All recipes that hand out numbers for good, which go on above those of the cluster that this one goes on from."""

    locks = Part(Locks)
    work = Part(Queues)
    keys = Part(IdempotencyKeys)
    barriers = Part(Barriers)


class Full(Rejection):
    """There is no room for more."""

    limit: int


class Timed(StateMachine):
    """Commands that are scheduled, cancelled, repeated, and that fail."""

    handles = Table(str, int)
    runs = Table(str, int)
    turns = Value(int, 0)

    @command
    def later(self, name: str, after_s: float) -> int:
        """Once, after a while."""
        self.handles[name] = self.schedule(after_s, Timed.run, name)
        return self.handles[name]

    @command
    def forget(self, name: str) -> bool:
        """What was scheduled last."""
        return self.cancel(self.handles.get(name, 0))

    @command
    def run(self, name: str) -> None:
        """One name fails, one goes on by itself."""
        self.runs[name] = self.runs.get(name, 0) + 1
        if name == "c":
            raise Full(3)
        if name == "d" and self.runs[name] % 3:
            self.schedule(0, Timed.run, name)

    @command
    @every(5)
    def turn(self) -> None:
        """By itself."""
        self.turns += 1
        if self.turns % 4 == 0:
            raise ValueError("each fourth turn fails")


class Lease(msgspec.Struct):
    """What is in an expiring table."""

    owner: str
    count: int = 0


class Leases(StateMachine):
    """Rows that are over at a time, with and without a command that runs for them; by keys of two kinds."""

    leases = Table(str, Lease, expires=True, index={"owner": str})
    marks = Table(tuple[str, int], int, expires=True)
    over = Table(str, int)

    @command
    def put(self, name: str, owner: str, ttl_s: float) -> None:
        """For a while, or (0) for good."""
        self.leases.put(name, Lease(owner), ttl_s=ttl_s or None)

    @command
    def touch(self, name: str, ttl_s: float) -> float | None:
        """For longer, or less long."""
        self.leases.touch(name, ttl_s or None)
        return self.leases.ttl(name)

    @command
    def count(self, name: str) -> int:
        """Its time stays."""
        lease = self.leases[name]
        lease.count += 1
        self.leases[name] = lease
        return lease.count

    @command
    def drop(self, name: str) -> str:
        """Before its time."""
        return self.leases.pop(name).owner

    @command
    def mark(self, name: str, block: int, ttl_s: float) -> int:
        """Without a command that runs for it."""
        self.marks.put((name, block), block, ttl_s=ttl_s or None)
        return len(self.marks)

    @command
    @on_expire("leases")
    def gave_up(self, name: str, lease: Lease) -> None:
        """One name comes again by itself, one fails."""
        self.over[name] = self.over.get(name, 0) + 1
        if name == "b":
            self.leases.put(name, Lease(lease.owner, lease.count + 1), ttl_s=1)
        if name == "c":
            raise Full(1)


class Sold(msgspec.Struct, tag=True):
    """An event."""

    name: str
    count: int


class Lost(msgspec.Struct, tag=True):
    """Another one."""

    name: str


class Told(StateMachine, history=History(count=60, age_s=3600)):
    """Events, and changes of tables and sets with their old values and without; a short history."""

    stock = Table(str, int, watch="old", expires=True)
    prices = Table(str, float, watch=True)
    names = Set(str, watch=True)
    sold = Events(Sold | Lost)

    @command
    def put(self, name: str, count: int, ttl_s: float) -> None:
        """A row for a while, or (0) for good."""
        self.stock.put(name, count, ttl_s=ttl_s or None)
        self.names.add(name)

    @command
    def price(self, name: str, price: float) -> None:
        """Without the old one."""
        self.prices[name] = price

    @command
    def sell(self, name: str, count: int) -> int:
        """An event for each, and nothing at all when there are too few."""
        left = self.stock[name]
        for at in range(count):
            self.sold.emit(Sold(name, at))
            self.stock[name] = left = left - 1
        if left < 0:
            raise Full(count)
        return left

    @command
    def lose(self, name: str) -> bool:
        """All of it."""
        self.names.discard(name)
        self.sold.emit(Lost(name))
        return self.stock.pop(name, None) is not None


class Item(msgspec.Struct, omit_defaults=True):
    """A record with fields of many kinds."""

    colour: str
    size: int = 0
    weight: float = 0.0
    tags: list[str] = []
    more: dict[str, int] = {}


class Counters(Component):
    """A component, for a part in a part."""

    counts = Table(str, int)

    @command
    def count(self, name: str) -> int:
        """One more."""
        self.counts[name] = self.counts.get(name, 0) + 1
        return self.counts[name]


class Outer(Component):
    """A component with one of its own."""

    inner = Part(Counters)
    total = Value(int, 0)

    @command
    def both(self, name: str) -> int:
        """In two parts at once."""
        self.total += self.inner.count(name)
        return self.total


class Kinds(StateMachine):
    """Tables with indexes, sets, values, keys of all kinds; what is counted, scanned and drawn by lot."""

    items = Table(str, Item, index={"colour": str, "size": int})
    places = Table(tuple[str, int, bytes], float)
    numbers = Set(int)
    last = Value(Item | None, None)
    outer = Part(Outer)

    @command
    def put(self, name: str, colour: str, size: int, tags: list[str], more: dict[str, int]) -> int:
        """In two indexes; a dict is kept sorted."""
        self.items[name] = self.last = Item(colour, size, size / 3, tags, more)
        return len(self.items)

    @command
    def paint(self, before: str, colour: str) -> list[str]:
        """All of one colour, found by the index and changed on the way."""
        found = [name for name, _ in self.items.by("colour", before)]
        for name in found:
            item = self.items[name]
            item.colour = colour
            self.items[name] = item
        return found

    @command
    def drop(self, name: str) -> Item:
        """Rejected with KeyError when it is not there."""
        return self.items.pop(name)

    @command
    def place(self, name: str, size: int) -> list[tuple[str, int, bytes]]:
        """Keys that are kept in an order, negative numbers and bytes with zeros among them."""
        self.places[name, size, b"\0" * (abs(size) % 3) + name.encode()] = float(size)
        return [key for key, _ in self.places.prefix((name,), limit=5)]

    @command
    def draw(self, size: int) -> float:
        """By the dice and the clock of the entry."""
        self.numbers.add(self.random.randrange(1000))
        self.numbers.add(self.now_ms % 1000)
        self.numbers.add(self.now.microsecond + self.index)
        return self.random.random() * size

    @command
    def thin(self, size: int) -> int:
        """Some numbers go."""
        for number in [each for each in self.numbers if each % 3 == size % 3]:
            self.numbers.remove(number)
        return len(self.numbers)


class Wide(msgspec.Struct):
    """A record of the second version."""

    count: int
    shelf: str = ""


class Narrow(msgspec.Struct):
    """The same of the first."""

    count: int


class Grown(StateMachine):
    """The first version of an application; see the second."""

    items = Table(str, Narrow)
    gone = Table(str, int)

    @command
    def put(self, name: str, count: int) -> int:
        """In two tables."""
        self.items[name] = Narrow(count)
        self.gone[name] = count
        return len(self.items)

    @command
    def take(self, name: str) -> Narrow:
        """Rejected when it is not there."""
        return self.items.pop(name)


Before: Any = Grown


class Grown(StateMachine):  # type: ignore[no-redef]
    """The second version: a field, an index, a table and a command more, a table less, upgrades at once and in pieces
    of which one fails as long as there is a `stop`."""

    version = 2
    items = Table(str, Wide, index={"shelf": str})
    gone = Table(str, int, until=2)
    totals = Table(str, int, since=2)

    @command
    def put(self, name: str, count: int, shelf: str = "") -> int:
        """The shelf counts in the second version only."""
        self.items[name] = Wide(count, shelf)
        self.gone[name] = count
        self.totals[shelf] = self.totals.get(shelf, 0) + count
        return len(self.items)

    @command
    def take(self, name: str) -> Wide:
        """As before."""
        return self.items.pop(name)

    @command(since=2)
    def on_shelf(self, shelf: str) -> int:
        """By the index."""
        return sum(1 for _ in self.items.by("shelf", shelf))

    @upgrade(to=2)
    def count(self) -> None:
        """At once."""
        self.totals["all"] = sum(count for _, count in self.gone.items())

    @upgrade(to=2)
    def shelve(self, after: str | None) -> str | None:
        """In pieces of two rows."""
        last = None
        for name, item in self.items.range(after, limit=3):
            if name == "stop":
                raise ValueError("not yet")
            if name != after:
                item.shelf, last = item.shelf or "hall", name
                self.items[name] = item
        return last


MACHINES: dict[str, type[StateMachine]] = {
    "access": KeyValue,
    "barriers": Barriers,
    "elections": Elections,
    "events": Told,
    "expiring": Leases,
    "fences": Disk,
    "keyvalue": KeyValue,
    "lineage": Restored,
    "locks": Locks,
    "members": Crew,
    "once": Bank,
    "queues": Queues,
    "rates": RateLimits,
    "readwrite": ReadWriteLocks,
    "semaphores": Semaphores,
    "sessions": KeyValue,
    "tables": Kinds,
    "timers": Timed,
    "upgrades": Grown,
    "watched": WatchedKeyValue,
}
"""By the name of the file in which their commands are kept."""
