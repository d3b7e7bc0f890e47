"""Values that are changed after they were read: an error, unless they are set again."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from raftkv import Rejected
from raftkv.machine import LocalMachine, StateMachine, Table, Value, command, query, upgrade


@dataclasses.dataclass
class Account:
    """A dataclass that can be changed."""

    owner: str
    cents: int = 0


class Frozen(msgspec.Struct, frozen=True):
    """What can't be changed itself, but for the list in it."""

    names: list[str]


class Bank(StateMachine):
    """Does what a test tells it to."""

    accounts = Table(str, Account)
    tags = Table(str, list[str])
    loose = Table(str, dict[str, Any])
    frozen = Table(int, Frozen)
    default = Value(list[str], ["a"])

    @command
    def fill(self) -> None:
        """Something in each table."""
        self.accounts["ann"] = Account("ann", 5)
        self.tags["a"] = ["x"]
        self.loose["a"] = {"inner": [1]}
        self.frozen[1] = Frozen(["x"])

    @command
    def do(self, what: str) -> Any:
        """One of `DONE` or `FORGOTTEN`."""
        return {**DONE, **FORGOTTEN}[what](self)

    @query
    def sorted(self) -> list[str]:
        """A query may change its copy."""
        tags = self.tags["a"]
        tags.append("b")
        tags.sort()
        return tags

    @query
    def all(self) -> list[Any]:
        """What is there."""
        return [*(list(each.items()) for each in (self.accounts, self.tags, self.loose)), self.default]


def _field(bank: Bank) -> None:
    bank.accounts["ann"].cents = 99


def _in_loop(bank: Bank) -> None:
    for account in bank.accounts.values():
        account.cents += 1


def _type(bank: Bank) -> None:
    bank.accounts["ann"].cents = "many"  # type: ignore[assignment]


def _after(bank: Bank) -> None:
    tags = bank.tags["a"]
    tags.append("y")
    bank.tags["a"] = tags
    tags.append("z")


FORGOTTEN: dict[str, Callable[[Bank], object]] = {
    "append": lambda bank: bank.tags["a"].append("y"),
    "get": lambda bank: bank.tags.get("a", []).append("y"),
    "values": lambda bank: [each.append("y") for each in bank.tags.values()],
    "default": lambda bank: bank.tags.setdefault("new", []).append("y"),
    "inner": lambda bank: bank.loose["a"]["inner"].append(2),
    "in frozen": lambda bank: bank.frozen[1].names.append("y"),
    "value": lambda bank: bank.default.append("y"),
    "field": _field,
    "loop": _in_loop,
    "type": _type,
    "after it was set": _after,
}


def _again(bank: Bank) -> None:
    account = bank.accounts["ann"]
    account.cents += 1
    bank.accounts["ann"] = account


def _elsewhere(bank: Bank) -> None:
    tags = bank.tags["a"]
    tags.append("y")
    bank.tags["b"] = tags


def _moved(bank: Bank) -> None:
    tags = bank.tags.pop("a")
    tags.append("y")
    bank.tags["b"] = tags


def _deleted(bank: Bank) -> list[str]:
    tags = bank.tags["a"]
    del bank.tags["a"]
    tags.append("y")
    return tags


def _another(bank: Bank) -> None:
    tags = bank.tags["a"]
    tags.append("y")
    bank.tags["a"] = [*tags, "z"]


def _copied(bank: Bank) -> dict[str, Any]:
    mine = copy.deepcopy(bank.loose["a"])
    mine["inner"].append(2)
    return mine


def _undone(bank: Bank) -> None:
    tags = bank.tags["a"]
    tags.append("y")
    tags.pop()


def _added(bank: Bank) -> None:
    bank.default += ["b"]


DONE: dict[str, Callable[[Bank], object]] = {
    "again": _again,
    "elsewhere": _elsewhere,
    "moved": _moved,
    "deleted": _deleted,
    "another": _another,
    "copied": _copied,
    "undone": _undone,
    "added": _added,
}


@pytest.mark.parametrize("what", FORGOTTEN)
def test_what_is_changed_and_not_set_again_is_an_error(what):
    """It says where the value was read and what to write; nothing is changed."""
    local = LocalMachine(Bank)
    local.fill()
    before = local.all()
    with pytest.raises(Rejected, match=r"TypeError: self\.\w+.*, read at test_loans.py:\d+, was changed .* `self\.\w+"):
        local.do(what)
    assert local.all() == before


@pytest.mark.parametrize("what", DONE)
def test_what_is_set_or_copied_is_none(what):
    """A value that is set again, there or elsewhere, that is deleted, or of which a copy was changed."""
    local = LocalMachine(Bank)
    local.fill()
    local.do(what)


def test_a_query_may_change_its_copy():
    """Nobody takes it for a change of the state."""
    local = LocalMachine(Bank)
    local.fill()
    assert local.sorted() == ["b", "x"]
    assert local.sorted() == ["b", "x"]


def test_what_an_older_class_has_written_is_not_changed_by_being_read():
    """Fields that were added since then are encoded too, which is no change of the value."""

    class Grown(StateMachine):
        version = 2
        items = Table(str, msgspec.defstruct("Item", [("n", int), ("m", int, 0)]))

        @command
        def read(self) -> int:
            return int(self.items["a"].n)

        @upgrade(to=2)
        def forget(self) -> None:
            self.items["a"].n = 9

    local = LocalMachine(Grown, version=1)
    store = local._runner.store
    store.write({Grown.items.prefix + b"a": msgspec.msgpack.encode({"n": 1})}, store.applied)
    assert local.read() == 1
    with pytest.raises(Rejected, match="was changed after it was read"):
        local.upgrade()
