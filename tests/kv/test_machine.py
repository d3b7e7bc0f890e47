"""The key-value machine against a plain dictionary, and its limits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.errors import InvalidArgument, Rejected
from raftkv.kv import (
    ChangedAt,
    Condition,
    Delete,
    Exists,
    Get,
    Increment,
    Item,
    KeyValue,
    Missing,
    Operation,
    OperationResult,
    Page,
    Put,
    Stamp,
    TransactionResult,
    ValueIs,
    VersionIs,
    WatchedKeyValue,
)
from raftkv.kv.model import COUNTER_MAX, KEY_BYTES_MAX, PAGE_ITEMS_MAX, TRANSACTION_OPERATIONS_MAX, VALUE_BYTES_MAX
from raftkv.machine import LocalMachine, prefix_end

keys = st.binary(min_size=1, max_size=2) | st.sampled_from([b"a", b"b", b"a\xff", b"\xff", b"\xff\xff"])
values = st.sampled_from([b"", b"1", b"-7", b"x", b"00", b"9223372036854775807"])
steps = st.sampled_from([1, -1, 5, COUNTER_MAX, -COUNTER_MAX - 1])
conditions = st.one_of(
    st.builds(Exists, keys),
    st.builds(Missing, keys),
    st.builds(ValueIs, keys, values),
    st.builds(VersionIs, keys, st.integers(0, 3)),
    st.builds(ChangedAt, keys, st.integers(0, 8)),
)
operations = st.one_of(
    st.builds(Get, keys), st.builds(Put, keys, values), st.builds(Delete, keys), st.builds(Increment, keys, steps)
)
calls = st.one_of(
    st.tuples(st.just("put"), keys, values),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("increment"), keys, steps),
    st.tuples(st.just("compare_and_set"), keys, st.none() | values, st.none() | values),
    st.tuples(
        st.just("transact"),
        st.lists(conditions, max_size=3),
        st.lists(operations, max_size=4),
        st.lists(operations, max_size=4),
    ),
    st.tuples(st.just("get"), keys),
    st.tuples(
        st.just("range"),
        st.binary(max_size=2),
        st.none() | st.binary(max_size=2),
        st.integers(1, 4),
        st.booleans(),
    ),
)


class Refused(Exception):
    """The model's way to say that a command has no effect."""


class Model:
    """What the machine should be: a dictionary of (value, created, changed, version)."""

    def __init__(self) -> None:
        self.items: dict[bytes, tuple[bytes, int, int, int]] = {}
        self.index = 0

    def apply(self, name: str, *args: Any) -> Any:
        self.index += 1
        before = dict(self.items)
        try:
            return getattr(self, name)(*args)
        except Refused:
            self.items = before
            raise

    def put(self, key: bytes, value: bytes) -> Stamp:
        _, created, _, version = self.items.get(key, (b"", self.index, 0, 0))
        self.items[key] = (value, created, self.index, version + 1)
        return Stamp(*self.items[key][1:])

    def delete(self, key: bytes) -> bool:
        return self.items.pop(key, None) is not None

    def increment(self, key: bytes, by: int) -> int:
        old = self.items.get(key, (b"0",))[0]
        try:
            total = int(old.decode()) + by
        except ValueError:
            raise Refused from None
        if not -(2**63) <= total < 2**63:
            raise Refused
        self.put(key, str(total).encode())
        return total

    def compare_and_set(self, key: bytes, expected: bytes | None, value: bytes | None) -> bool:
        if self.items.get(key, (None,))[0] != expected:
            return False
        if value is None:
            self.delete(key)
        else:
            self.put(key, value)
        return True

    def transact(
        self, conditions: list[Condition], then: list[Operation], otherwise: list[Operation]
    ) -> TransactionResult:
        succeeded = all(self.holds(condition) for condition in conditions)
        return TransactionResult(succeeded, [self.do(operation) for operation in (then if succeeded else otherwise)])

    def holds(self, condition: Condition) -> bool:
        value, _, changed, version = self.items.get(condition.key, (None, 0, None, 0))
        match condition:
            case Exists():
                return value is not None
            case Missing():
                return value is None
            case ValueIs():
                return value == condition.value
            case VersionIs():
                return version == condition.version
            case ChangedAt():
                return changed == condition.index

    def do(self, operation: Operation) -> OperationResult:
        match operation:
            case Get():
                return OperationResult(item=self.get(operation.key))
            case Put():
                return OperationResult(stamp=self.put(operation.key, operation.value))
            case Delete():
                return OperationResult(deleted=self.delete(operation.key))
            case Increment():
                return OperationResult(counter=self.increment(operation.key, operation.by))

    def get(self, key: bytes) -> Item | None:
        return self.item(key) if key in self.items else None

    def item(self, key: bytes) -> Item:
        value, *stamp = self.items[key]
        return Item(key, value, Stamp(*stamp))

    def range(self, start: bytes, end: bytes | None, limit: int, reverse: bool) -> list[Item]:
        found = sorted(key for key in self.items if start <= key and (end is None or key < end))
        return [self.item(key) for key in (found[::-1] if reverse else found)]


def read_all(local: Any, start: bytes, end: bytes | None, limit: int, reverse: bool) -> list[Item]:
    """All pages of a range, as a client reads them."""
    items: list[Item] = []
    following: bytes | None = end if reverse else start
    while True:
        page: Page = local.range(*((start, following) if reverse else (following, end)), limit, reverse)
        assert len(page.items) <= limit
        items += page.items
        following = page.next
        if following is None:
            return items


@settings(max_examples=150, deadline=None)
@given(st.lists(calls, max_size=25))
def test_the_machine_does_what_a_dictionary_does(script: list[tuple[Any, ...]]) -> None:
    """Every result, rejection, stamp and page is that of a naive model, whatever comes before."""
    local: Any = LocalMachine(KeyValue)
    model = Model()
    for name, *args in script:
        if name == "get":
            assert local.get(*args) == model.get(*args)
        elif name == "range":
            assert read_all(local, *args) == model.range(*args)
        else:
            try:
                expected = model.apply(name, *args)
            except Refused:
                with pytest.raises(Rejected):
                    getattr(local, name)(*args)
            else:
                assert getattr(local, name)(*args) == expected
    assert read_all(local, b"", None, 3, False) == model.range(b"", None, 3, False)


@given(st.binary(max_size=3), st.binary(max_size=4))
def test_the_end_of_a_prefix_is_just_above_all_keys_with_it(prefix: bytes, key: bytes) -> None:
    """A range from the prefix to its end holds exactly the keys that begin with it."""
    end = prefix_end(prefix)
    assert key.startswith(prefix) == (prefix <= key and (end is None or key < end))


def test_limits_hold_in_the_machine_itself() -> None:
    """A client that doesn't check is rejected, on every node alike, and nothing changes."""
    local: Any = LocalMachine(KeyValue)
    too_long = bytes(KEY_BYTES_MAX + 1)
    for name, args in [
        ("put", (b"", b"1")),
        ("put", (too_long, b"1")),
        ("put", (b"a", bytes(VALUE_BYTES_MAX + 1))),
        ("delete", (too_long,)),
        ("increment", (b"a", 2**63)),
        ("compare_and_set", (b"a", None, bytes(VALUE_BYTES_MAX + 1))),
        ("transact", ([], [Put(b"a", b"")] * (TRANSACTION_OPERATIONS_MAX + 1), [])),
        ("transact", ([], [Put(b"a", bytes(VALUE_BYTES_MAX))] * 5, [])),
        ("transact", ([Exists(too_long)], [], [])),
        ("range", (b"", None, PAGE_ITEMS_MAX + 1)),
        ("range", (b"", None, 0)),
    ]:
        with pytest.raises((Rejected, InvalidArgument)):
            getattr(local, name)(*args)
    assert local.range(b"", None) == Page([], None)


def test_pages_are_bounded_in_bytes() -> None:
    """Large values come in as many pages as it takes, at least one item each."""
    local: Any = LocalMachine(KeyValue)
    for number in range(10):
        local.put(b"%d" % number, bytes(VALUE_BYTES_MAX))
    page = local.range(b"", None, 1000)
    assert len(page.items) == 3
    assert len(read_all(local, b"", None, 1000, True)) == 10


def test_a_rejected_transaction_changes_nothing() -> None:
    """The operations before the failing one are undone."""
    local: Any = LocalMachine(KeyValue)
    with pytest.raises(Rejected, match="not a counter"):
        local.transact([], [Put(b"a", b"1"), Put(b"b", b"x"), Increment(b"b")], [])
    assert local.get(b"a") is None


def test_a_watched_machine_does_the_same_and_keeps_what_changes():
    """A put of the same value is a change, as the key has another version then; so is the end of a key."""
    local, plain = LocalMachine(WatchedKeyValue), LocalMachine(KeyValue)
    for each in (local, plain):
        assert each.put(b"a", b"1") == each.get(b"a").stamp
        each.put(b"a", b"1")
        each.put(b"b", b"2")
        assert not each.compare_and_set(b"a", b"2", b"3")
        each.delete(b"a")
    assert local.range(b"", None) == plain.range(b"", None)
    changes = local.changes(WatchedKeyValue.records, prefix=b"a")
    assert [(each.key, each.value and (each.value.value, each.value.version)) for each in changes] == [
        (b"a", (b"1", 1)),
        (b"a", (b"1", 2)),
        (b"a", None),
    ]
