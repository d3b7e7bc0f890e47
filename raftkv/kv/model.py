"""What goes in and out of the key-value machine: items, conditions, operations, and their limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from raftkv.config import KIB, MIB
from raftkv.errors import InvalidArgument

KEY_BYTES_MAX = 4 * KIB
VALUE_BYTES_MAX = MIB
PAGE_ITEMS_MAX = 1_000
"""Items in one answer; more come page by page, so that no query holds up the node for long."""
PAGE_BYTES_MAX = 4 * MIB
"""Bytes of keys and values in one answer (a single larger item still comes, alone)."""
TRANSACTION_OPERATIONS_MAX = 256
"""Conditions and operations of one transaction, both branches counted."""
TRANSACTION_BYTES_MAX = 4 * MIB
COUNTER_MIN, COUNTER_MAX = -(2**63), 2**63 - 1


class LimitExceeded(InvalidArgument):
    """A key, value, page or transaction is larger than allowed; the text names the limit."""


class Stamp(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """When a value came and how often it changed, in log indexes."""

    created_index: int
    """The entry that made the key (again, after its last deletion)."""
    changed_index: int
    """The entry that last changed it."""
    version: int
    """How often it was set since it was made: 1 for a new key."""


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A key with its value."""

    key: bytes
    value: bytes
    stamp: Stamp


class Page(msgspec.Struct, frozen=True, array_like=True):
    """Part of a range, in the order asked for."""

    items: list[Item]
    next: bytes | None
    """Ask again from here (`start`, or `end` when reverse) for the rest; None when this was all.

    A page may end before its limit, or hold nothing, when the node had to read too much for it."""


class Exists(msgspec.Struct, frozen=True, array_like=True, tag="exists"):
    """The key is there."""

    key: bytes


class Missing(msgspec.Struct, frozen=True, array_like=True, tag="missing"):
    """The key is not there."""

    key: bytes


class ValueIs(msgspec.Struct, frozen=True, array_like=True, tag="value"):
    """The key is there with exactly this value."""

    key: bytes
    value: bytes


class VersionIs(msgspec.Struct, frozen=True, array_like=True, tag="version"):
    """The key is there with this version count; 0 means that it is not there."""

    key: bytes
    version: int


class ChangedAt(msgspec.Struct, frozen=True, array_like=True, tag="changed"):
    """The key is there and was last changed by this log entry: nobody has touched it since."""

    key: bytes
    index: int


Condition: TypeAlias = Exists | Missing | ValueIs | VersionIs | ChangedAt


class Get(msgspec.Struct, frozen=True, array_like=True, tag="get"):
    """Read a key. Its result is an `Item`, or None."""

    key: bytes


class Put(msgspec.Struct, frozen=True, array_like=True, tag="put"):
    """Set a key. Its result is the new `Stamp`."""

    key: bytes
    value: bytes


class Delete(msgspec.Struct, frozen=True, array_like=True, tag="delete"):
    """Delete a key. Its result says whether the key was there."""

    key: bytes


class Increment(msgspec.Struct, frozen=True, array_like=True, tag="increment"):
    """Add to a counter. Its result is the new value."""

    key: bytes
    by: int = 1


Operation: TypeAlias = Get | Put | Delete | Increment


class OperationResult(msgspec.Struct, frozen=True, array_like=True):
    """The result of one operation of a transaction. Only the field of its kind is set, the others are None."""

    item: Item | None = None
    stamp: Stamp | None = None
    deleted: bool | None = None
    counter: int | None = None


class TransactionResult(msgspec.Struct, frozen=True, array_like=True):
    """Which branch was taken, and the results of its operations, in their order."""

    succeeded: bool
    results: list[OperationResult]


def check_key(key: bytes) -> None:
    """Raises `LimitExceeded` for a key that is empty or too long."""
    if not 0 < len(key) <= KEY_BYTES_MAX:
        raise LimitExceeded(f"a key of {len(key)} bytes: must be 1 to {KEY_BYTES_MAX}")


def check_value(value: bytes) -> None:
    """Raises `LimitExceeded` for a value that is too long."""
    if len(value) > VALUE_BYTES_MAX:
        raise LimitExceeded(f"a value of {len(value)} bytes: must be at most {VALUE_BYTES_MAX}")


def check_bound(bound: bytes | None) -> None:
    """Raises `LimitExceeded` for a bound of a range that is longer than any key."""
    if bound is not None and len(bound) > KEY_BYTES_MAX + 1:
        raise LimitExceeded(f"a bound of {len(bound)} bytes: must be at most {KEY_BYTES_MAX + 1}")


def check_page(limit: int) -> None:
    """Raises `LimitExceeded` for a page that is empty or too large."""
    if not 0 < limit <= PAGE_ITEMS_MAX:
        raise LimitExceeded(f"limit = {limit}: must be 1 to {PAGE_ITEMS_MAX} items a page")


def check_increment(by: int) -> None:
    """Raises `LimitExceeded` for a step that doesn't fit a counter."""
    if not COUNTER_MIN <= by <= COUNTER_MAX:
        raise LimitExceeded(f"by = {by}: must fit 64 bits")


def check_transaction(
    conditions: Sequence[Condition], then: Sequence[Operation], otherwise: Sequence[Operation]
) -> None:
    """Raises `LimitExceeded` when the transaction, or a key or value in it, is too large."""
    count = len(conditions) + len(then) + len(otherwise)
    if count > TRANSACTION_OPERATIONS_MAX:
        raise LimitExceeded(f"a transaction of {count} parts: must be at most {TRANSACTION_OPERATIONS_MAX}")
    total = 0
    for part in (*conditions, *then, *otherwise):
        check_key(part.key)
        total += len(part.key)
        if isinstance(part, (Put, ValueIs)):
            check_value(part.value)
            total += len(part.value)
        elif isinstance(part, Increment):
            check_increment(part.by)
    if total > TRANSACTION_BYTES_MAX:
        raise LimitExceeded(f"a transaction of {total} bytes: must be at most {TRANSACTION_BYTES_MAX}")
