"""The key-value machine: bytes to bytes, with conditions, counters and transactions.

It is also an example for your own application: tables, commands that change them, queries that read them, and limits
that the machine checks itself, because a command that is too large costs all nodes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from raftkv.access import Touch
from raftkv.config import KIB
from raftkv.errors import TooMuchWork
from raftkv.kv.model import (
    COUNTER_MAX,
    COUNTER_MIN,
    KEY_BYTES_MAX,
    PAGE_BYTES_MAX,
    VALUE_BYTES_MAX,
    ChangedAt,
    Condition,
    Delete,
    Exists,
    Get,
    Increment,
    Item,
    Missing,
    Operation,
    OperationResult,
    Page,
    Put,
    Stamp,
    TransactionResult,
    ValueIs,
    VersionIs,
    check_bound,
    check_increment,
    check_key,
    check_page,
    check_transaction,
    check_value,
)
from raftkv.kv.touches import touches_of
from raftkv.machine import Limits, StateMachine, Table, command, query


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the table holds for a key. A counter is a value of decimal digits."""

    value: bytes
    created_index: int
    changed_index: int
    version: int

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.created_index, self.changed_index, self.version)


class KeyValue(StateMachine, limits=Limits(value_bytes=VALUE_BYTES_MAX + KIB)):
    """Ordered keys with values, both bytes; see `raftkv.kv.model` for limits.

    Invariants: `created_index ≤ changed_index`; `version` starts at 1 and goes up by one each time the
    key is set; a deleted key starts anew.
    """

    records = Table(bytes, Record)

    @classmethod
    def touches(cls, name: str, args: tuple[Any, ...]) -> tuple[Touch, ...] | None:
        """The keys of a call, which is known for what this class declares; a class below may do something else."""
        method = cls.methods.get(name)
        if method is not None and method.function is not vars(KeyValue).get(name):
            return None
        return touches_of(name, args)

    @command
    def put(self, key: bytes, value: bytes) -> Stamp:
        """Set `key`; returns its new stamp."""
        check_key(key)
        check_value(value)
        return self._put(key, value)

    @command
    def delete(self, key: bytes) -> bool:
        """Delete `key`; returns whether it was there."""
        check_key(key)
        return self._delete(key)

    @command
    def compare_and_set(self, key: bytes, expected: bytes | None, value: bytes | None) -> bool:
        """Set `key` to `value` if it is `expected`; None stands for "not there". Returns whether it was done."""
        check_key(key)
        if value is not None:
            check_value(value)
        record = self.records.get(key)
        if (record.value if record is not None else None) != expected:
            return False
        if value is not None:
            self._put(key, value)
        elif record is not None:
            del self.records[key]
        return True

    @command
    def increment(self, key: bytes, by: int = 1) -> int:
        """Add `by` to the counter at `key`, which starts at 0; returns its new value.

        Rejected with `ValueError` when the value is no number, or the sum doesn't fit 64 bits.
        """
        check_key(key)
        check_increment(by)
        return self._increment(key, by)

    @command
    def transact(
        self, conditions: list[Condition], then: list[Operation], otherwise: list[Operation]
    ) -> TransactionResult:
        """Do `then` if all `conditions` hold, else `otherwise`; all of it, or (when rejected) nothing."""
        check_transaction(conditions, then, otherwise)
        succeeded = all(self._holds(condition) for condition in conditions)
        results = [self._do(operation) for operation in (then if succeeded else otherwise)]
        return TransactionResult(succeeded, results)

    @query
    def get(self, key: bytes) -> Item | None:
        """The item at `key`, or None."""
        check_key(key)
        return self._item(key)

    @query
    def range(self, start: bytes, end: bytes | None, limit: int = 100, reverse: bool = False) -> Page:
        """Items with `start` ≤ key < `end` (None: no end), up to `limit`, from the end when `reverse`.

        When there is too much to read (deleted keys count as well), the page has fewer items, or none; its `next`
        says where to go on.
        """
        check_bound(start)
        check_bound(end)
        check_page(limit)
        items: list[Item] = []
        size = 0
        try:
            for key, record in self.records.range(start, end, reverse=reverse):
                size += len(key) + len(record.value)
                if len(items) == limit or (items and size > PAGE_BYTES_MAX):
                    # `start` is part of the next range and `end` is not, so the end lies just above the key.
                    return Page(items, key + b"\0" if reverse else key)
                items.append(Item(key, record.value, record.stamp))
        except TooMuchWork as exc:
            if exc.position is None or len(exc.position) > KEY_BYTES_MAX + 1:
                raise
            return Page(items, exc.position)
        return Page(items, None)

    def _item(self, key: bytes) -> Item | None:
        record = self.records.get(key)
        return None if record is None else Item(key, record.value, record.stamp)

    def _put(self, key: bytes, value: bytes) -> Stamp:
        index, records = self.index, self.records
        old = records.get(key)
        created, version = (index, 1) if old is None else (old.created_index, old.version + 1)
        records[key] = Record(value, created, index, version)
        return Stamp(created, index, version)

    def _delete(self, key: bytes) -> bool:
        if key not in self.records:
            return False
        del self.records[key]
        return True

    def _increment(self, key: bytes, by: int) -> int:
        record = self.records.get(key)
        total = by + (read_counter(key, record.value) if record is not None else 0)
        if not COUNTER_MIN <= total <= COUNTER_MAX:
            raise ValueError(f"{key!r} would be {total}, which doesn't fit 64 bits")
        self._put(key, b"%d" % total)
        return total

    def _holds(self, condition: Condition) -> bool:
        record = self.records.get(condition.key)
        match condition:
            case Exists():
                return record is not None
            case Missing():
                return record is None
            case ValueIs(value=value):
                return record is not None and record.value == value
            case VersionIs(version=version):
                return (record.version if record is not None else 0) == version
            case ChangedAt(index=index):
                return record is not None and record.changed_index == index

    def _do(self, operation: Operation) -> OperationResult:
        match operation:
            case Get(key=key):
                return OperationResult(item=self._item(key))
            case Put(key=key, value=value):
                return OperationResult(stamp=self._put(key, value))
            case Delete(key=key):
                return OperationResult(deleted=self._delete(key))
            case Increment(key=key, by=by):
                return OperationResult(counter=self._increment(key, by))


class WatchedKeyValue(KeyValue):
    """A `KeyValue` whose keys can be watched: what changes is kept for a while, as `History` says.

    Each put is written twice then, and takes the state machine nearly twice as long; so it is a machine of its own.
    """

    records = Table(bytes, Record, watch=True)


def read_counter(key: bytes, value: bytes) -> int:
    """The number that a counter's value stands for; `ValueError` when it is none."""
    digits = value.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 19:
        raise ValueError(f"{key!r} is not a counter")
    return int(value)
