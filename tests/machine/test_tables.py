"""Tables and values: mappings as anybody expects them, inside a command and after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.errors import Rejected, StateCorruption
from raftkv.machine import LocalMachine, Runner, StateMachine, Table, Value, command, query
from raftkv.state import VERSION_KEY


class Pairs(StateMachine):
    """A table that does what a test tells it to, several steps in one command."""

    table = Table(tuple[str, int], int)
    other = Table(tuple[str, int], int)

    @command
    def run(self, steps: list[tuple[str, str, int, int]], fail: bool) -> list[Any]:
        """Do the steps; raise at the end if told to."""
        results: list[Any] = []
        for name, text, number, value in steps:
            key = (text, number)
            if name == "set":
                self.table[key] = value
            elif name == "delete" and key in self.table:
                del self.table[key]
            elif name == "pop":
                results.append(self.table.pop(key, None))
            elif name == "all":
                results.append([[list(each), found] for each, found in self.table.items()])
        if fail:
            raise ValueError("told to")
        return results

    @query
    def read(
        self, start: tuple[str, int] | None, end: tuple[str, int] | None, reverse: bool, limit: int | None
    ) -> list[tuple[tuple[str, int], int]]:
        """A range."""
        return list(self.table.range(start, end, reverse=reverse, limit=limit))

    @query
    def with_prefix(self, prefix: str) -> list[tuple[str, int]]:
        """Keys whose first part is this."""
        return [key for key, _ in self.table.prefix((prefix,))]


places = st.tuples(st.sampled_from(["a", "b", "a\0"]), st.integers(-2, 2))
steps = st.tuples(st.sampled_from(["set", "delete", "pop", "all"]), places, st.integers(0, 9)).map(
    lambda step: (step[0], *step[1], step[2])
)


@settings(max_examples=60, deadline=None)
@given(
    scripts=st.lists(st.tuples(st.lists(steps, max_size=6), st.booleans()), max_size=5),
    start=st.none() | places,
    end=st.none() | places,
    reverse=st.booleans(),
    limit=st.none() | st.integers(0, 3),
)
def test_a_table_is_a_sorted_dictionary(scripts, start, end, reverse, limit):
    """Commands see their own changes at once, failed ones leave none, and ranges are those of a dictionary."""
    local: Any = LocalMachine(Pairs)
    model: dict[tuple[str, int], int] = {}
    for script, fail in scripts:
        mine, results = dict(model), []
        for name, text, number, value in script:
            if name == "set":
                mine[text, number] = value
            elif name == "delete":
                mine.pop((text, number), None)
            elif name == "pop":
                results.append(mine.pop((text, number), None))
            else:
                results.append([[list(key), mine[key]] for key in sorted(mine)])
        if fail:
            with pytest.raises(Rejected, match="told to"):
                local.run(script, True)
        else:
            assert local.run(script, False) == results
            model = mine
    found = sorted(key for key in model if (start is None or key >= start) and (end is None or key < end))
    if reverse:
        found.reverse()
    assert local.read(start, end, reverse, limit) == [(key, model[key]) for key in found[:limit]]
    assert local.with_prefix("a") == sorted(key for key in model if key[0] == "a")


@dataclass
class Account:
    """A value with fields."""

    owner: str
    cents: int = 0


class Bank(StateMachine):
    """Structured values, a single value, mistakes."""

    accounts = Table(str, Account)
    names = Table(bytes, str)
    total = Value(int, 0)

    @command
    def deposit(self, owner: str, cents: int) -> int:
        """Add to an account."""
        account = self.accounts.get(owner) or Account(owner)
        account.cents += cents
        self.accounts[owner] = account
        self.total += cents
        return self.total

    @command
    def store(self, what: str) -> None:
        """Various mistakes."""
        wrong: Any = self
        if what == "value":
            wrong.accounts["x"] = 5
        elif what == "field":
            wrong.accounts["x"] = Account("x", "many")  # type: ignore[arg-type]
        elif what == "key":
            wrong.accounts[5] = Account("x")
        elif what == "attribute":
            wrong.cache = 1
        elif what == "total":
            wrong.total = "all"
        elif what == "missing":
            del self.accounts["nobody"]

    @query
    def cheat(self) -> None:
        """A query that writes."""
        self.total = 5

    @query
    def all(self) -> list[Account]:
        """All accounts."""
        return [account for _, account in self.accounts.items()]

    @query
    def starting(self, prefix: bytes) -> list[bytes]:
        """Names that begin so."""
        return [key for key, _ in self.names.prefix(prefix)]

    @command
    def name(self, key: bytes) -> None:
        """Add a name."""
        self.names[key] = ""


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("value", "TypeError"),
        ("field", "TypeError"),
        ("key", "TypeError"),
        ("total", "TypeError"),
        ("attribute", "AttributeError"),
        ("missing", "KeyError"),
    ],
)
def test_what_could_not_be_read_again_is_not_stored(what, error):
    """A value, field or key of another type is the command's error, and has no effect."""
    local: Any = LocalMachine(Bank)
    with pytest.raises(Rejected) as caught:
        local.store(what)
    assert caught.value.error_type == error
    assert local.all() == []


def test_a_query_can_not_write():
    """What is not in the log would be on one node only."""
    local: Any = LocalMachine(Bank)
    with pytest.raises(Rejected, match="only a command"):
        local.cheat()
    assert local.deposit("ann", 1) == 1


@given(st.lists(st.binary(max_size=3) | st.sampled_from([b"\xff", b"\xff\xff", b"a\xff"])), st.binary(max_size=2))
def test_prefixes_of_bytes(names, prefix):
    """Exactly the keys that begin with it, FF bytes and all; other tables' keys are never among them."""
    local: Any = LocalMachine(Bank)
    for name in names:
        local.name(name)
    local.deposit("ann", 1)
    assert local.starting(prefix) == sorted({name for name in names if name.startswith(prefix)})


def test_a_value_of_an_older_class_is_reported():
    """A type that was changed in a way that can't read the old values stops the node with words, not a traceback."""

    class Before(StateMachine):
        thing = Value(str, "")

        @command
        def put(self) -> None:
            self.thing = "text"

    class After(StateMachine):
        thing = Value(int, 0)

        @query
        def get(self) -> int:
            return self.thing

    local: Any = LocalMachine(Before)
    local.put()
    changed: Any = LocalMachine(After)
    local._runner.store.write({VERSION_KEY: None}, local._runner.applied)  # nothing tells what it was
    changed._runner = Runner(After, local._runner.store)
    with pytest.raises(StateCorruption, match="not of the type"):
        changed.get()
