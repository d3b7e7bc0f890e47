"""The key-value machine under faults, beside a dictionary: the test kit's first application."""

from __future__ import annotations

from unittest.mock import ANY

from hypothesis import strategies as st

from raftkv.kv import KeyValue
from raftkv.kv.model import Delete, Exists, Get, Increment, Item, Missing, Page, Put, Stamp, TransactionResult, ValueIs
from raftkv.kv.model import OperationResult as Result
from raftkv.testing import calls, fault_test

KEYS = st.sampled_from([b"a", b"b", b"c"])
VALUES = st.sampled_from([b"1", b"x"])
CONDITIONS = st.builds(Exists, KEYS) | st.builds(Missing, KEYS) | st.builds(ValueIs, KEYS, VALUES)
OPERATIONS = st.builds(Get, KEYS) | st.builds(Put, KEYS, VALUES) | st.builds(Delete, KEYS) | st.builds(Increment, KEYS)


class Dictionary:
    """Values and versions; the indexes of stamps are the log's business."""

    def __init__(self):
        self.values = {}

    def put(self, key, value):
        version = self.values.get(key, (b"", 0))[1] + 1
        self.values[key] = (value, version)
        return Stamp(ANY, ANY, version)

    def delete(self, key):
        return self.values.pop(key, None) is not None

    def compare_and_set(self, key, expected, value):
        if self.values.get(key, (None, 0))[0] != expected:
            return False
        if value is None:
            self.values.pop(key, None)
        else:
            self.put(key, value)
        return True

    def increment(self, key, by):
        total = int(self.values.get(key, (b"0", 0))[0]) + by
        self.put(key, b"%d" % total)
        return total

    def transact(self, conditions, then, otherwise):
        succeeded = all(self._holds(condition) for condition in conditions)
        return TransactionResult(succeeded, [self._do(each) for each in (then if succeeded else otherwise)])

    def get(self, key):
        if key not in self.values:
            return None
        value, version = self.values[key]
        return Item(key, value, Stamp(ANY, ANY, version))

    def range(self, start, end, limit, reverse):
        keys = [key for key in sorted(self.values, reverse=reverse) if key >= start and (end is None or key < end)]
        return Page([self.get(key) for key in keys[:limit]], ANY if len(keys) > limit else None)

    def _holds(self, condition):
        value, _ = self.values.get(condition.key, (None, 0))
        if isinstance(condition, ValueIs):
            return value == condition.value
        return (value is None) == isinstance(condition, Missing)

    def _do(self, operation):
        match operation:
            case Get():
                return Result(item=self.get(operation.key))
            case Put():
                return Result(stamp=self.put(operation.key, operation.value))
            case Delete():
                return Result(deleted=self.delete(operation.key))
            case Increment():
                return Result(counter=self.increment(operation.key, operation.by))


SINGLE = [
    calls(KeyValue.put, KEYS, VALUES),
    calls(KeyValue.delete, KEYS),
    calls(KeyValue.compare_and_set, KEYS, st.none() | VALUES, st.none() | VALUES),
    calls(KeyValue.increment, KEYS, by=st.integers(-2, 2)),
    calls(KeyValue.get, KEYS),
]

test_single_keys = fault_test(KeyValue, model=Dictionary, commands=SINGLE, key="key")

test_transactions_and_ranges = fault_test(
    KeyValue,
    model=Dictionary,
    commands=[
        *SINGLE,
        calls(KeyValue.transact, st.lists(CONDITIONS), st.lists(OPERATIONS), st.lists(OPERATIONS)),
        calls(KeyValue.range, KEYS, st.none() | KEYS, limit=st.integers(1, 3), reverse=st.booleans()),
    ],
)
