"""Tables, sets and pages are of their declared types."""

from collections.abc import MutableMapping
from typing import assert_type

import msgspec

from raftkv import Page, Set, SetView, StateMachine, Table, Value, View, command


class Job(msgspec.Struct):
    state: str


class M(StateMachine):
    stock = Table(str, int)
    jobs = Table(int, Job, index={"state": str})
    places = Table(tuple[str, int], str)
    seen = Set(str)
    total = Value(int, 0)

    @command
    def put(self, sku: str) -> int:
        assert_type(self.stock, View[str, int])
        assert_type(self.stock["a"], int)
        assert_type(self.stock.get("a"), int | None)
        assert_type(self.stock.get("a", 0), int)
        assert_type(self.stock.pop("a"), int)
        assert_type(self.stock.pop("a", None), int | None)
        assert_type(self.stock.setdefault("a", 1), int)
        assert_type(list(self.stock), list[str])
        assert_type(list(self.stock.items()), list[tuple[str, int]])
        assert_type(self.places["a", 1], str)
        assert_type(list(self.seen), list[str])
        assert_type(self.seen, SetView[str])
        assert_type(self.jobs.page(None), Page[int, Job])
        assert_type([job for _, job in self.jobs.by("state", "x")], list[Job])
        m: MutableMapping[str, int] = self.stock
        self.stock.update({"a": 1})
        self.total += len(m)
        return self.stock[sku]


class Numbered(StateMachine):
    last: Value[int] = Value(int, 0)
    names = Table(int, str)


class Naming(Numbered):
    @command
    def name(self, text: str) -> int:
        self.last += 1
        self.names[self.last] = text
        assert_type(self.last, int)
        assert_type(Naming.last, Value[int])
        return self.last
