"""Which keys a call of the key-value machine touches, as rights by keys are decided by it."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.access import Touch
from raftkv.kv import Delete, Exists, Get, Increment, KeyValue, Put, ValueIs, WatchedKeyValue
from raftkv.kv.model import TRANSACTION_OPERATIONS_MAX
from raftkv.machine import StateMachine, Table, command, query


def read(start: bytes, end: bytes | None) -> Touch:
    """A range is read."""
    return Touch("read", start, end)


def read_key(key: bytes) -> Touch:
    """A key is read."""
    return Touch.of_key("read", key)


def write_key(key: bytes) -> Touch:
    """A key is written."""
    return Touch.of_key("write", key)


CALLS: list[tuple[str, tuple[Any, ...], set[Touch]]] = [
    ("put", (b"a", b"v"), {write_key(b"a")}),
    ("delete", (b"a",), {write_key(b"a")}),
    ("compare_and_set", (b"a", None, b"v"), {read_key(b"a"), write_key(b"a")}),
    ("increment", (b"a", 2), {read_key(b"a"), write_key(b"a")}),
    ("get", (b"a",), {read_key(b"a")}),
    ("range", (b"a", b"b", 10, True), {read(b"a", b"b")}),
    ("range", (b"", None, 10, False), {read(b"", None)}),
    ("*rows", ("records", b"a", None, 10, False), {read(b"a", None)}),
    ("watch.records", (b"a", b"b"), {read(b"a", b"b")}),
    (
        "transact",
        ([Exists(b"c"), ValueIs(b"d", b"")], [Get(b"e"), Put(b"f", b"")], [Delete(b"g"), Increment(b"h", 1)]),
        {
            read_key(b"c"),
            read_key(b"d"),
            read_key(b"e"),
            write_key(b"f"),
            write_key(b"g"),
            read_key(b"h"),
            write_key(b"h"),
        },
    ),
]


@pytest.mark.parametrize(("name", "args", "touches"), CALLS, ids=[name for name, *_ in CALLS])
def test_each_call_tells_all_its_keys(name: str, args: tuple[Any, ...], touches: set[Touch]) -> None:
    """Those of both branches of a transaction, and those that it only looks at."""
    for machine in (KeyValue, WatchedKeyValue):
        found = machine.touches(name, args)
        assert found is not None and set(found) == touches


def test_every_command_and_query_is_in_the_table() -> None:
    """One that is added and tells nothing of its keys would be refused to all who have rights by keys only."""
    assert {name for name, *_ in CALLS} >= set(KeyValue.methods)


def test_what_is_not_known_is_not_told() -> None:
    """Then the right to call it by name is needed."""
    assert KeyValue.touches("no_such", ()) is None
    assert KeyValue.touches("*rows", ("others", b"", None, 10, False)) is None
    assert KeyValue.touches("watch.others", (b"", None)) is None


def test_a_class_that_does_something_else_tells_nothing_of_it() -> None:
    """Its own command may write anywhere; what it leaves as it was still tells."""

    class Mine(KeyValue):
        log = Table(int, bytes)

        @command
        def delete(self, key: bytes) -> bool:
            """Not really."""
            self.log[self.index] = key
            return True

        @query
        def newest(self) -> bytes:
            """What was deleted last."""
            return b""

    assert Mine.touches("delete", (b"a",)) is None
    assert Mine.touches("newest", ()) is None
    assert Mine.touches("put", (b"a", b"v")) == (write_key(b"a"),)


def test_other_machines_tell_nothing() -> None:
    """Unless they override it, their calls are allowed by name."""

    class Plain(StateMachine):
        @command
        def put(self, key: bytes) -> None:
            """Nothing."""

    assert Plain.touches("put", (b"a",)) is None


def test_a_transaction_that_is_too_large_is_not_looked_at() -> None:
    """It is refused anyway, and may hold a million operations."""
    most = [Put(b"a", b"")] * TRANSACTION_OPERATIONS_MAX
    assert KeyValue.touches("transact", ([], most, [])) is not None
    assert KeyValue.touches("transact", ([], most, [Get(b"a")])) is None
