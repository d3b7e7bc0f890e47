"""Which keys each call of the key-value machine reads and writes, so that rights can be given by what keys begin with.

What tells something of a key reads it: a condition, and a counter that is incremented. A `put` tells by its stamp how
often its key was set, a `delete` whether the key was there: whoever may write a key may know that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raftkv.access import Touch
from raftkv.kv.model import TRANSACTION_OPERATIONS_MAX, Condition, Delete, Get, Increment, Operation, Put

TABLE = "records"


def touches_of(name: str, args: tuple[Any, ...]) -> tuple[Touch, ...] | None:
    """All of them; None for what is no call of this machine."""
    match name, args:
        case ("put", (key, _)) | ("delete", (key,)):
            return (Touch.of_key("write", key),)
        case ("compare_and_set", (key, _, _)) | ("increment", (key, _)):
            return Touch.of_key("read", key), Touch.of_key("write", key)
        case "transact", (conditions, then, otherwise):
            if len(conditions) + len(then) + len(otherwise) > TRANSACTION_OPERATIONS_MAX:
                return None  # it is refused anyway, and would take long to look at
            return tuple(_of_transaction(conditions, (*then, *otherwise)))
        case "get", (key,):
            return (Touch.of_key("read", key),)
        case "range", (start, end, _, _):
            return (Touch("read", start, end),)
        case "*rows", (part, start, end, _, _) if part == TABLE:
            return (Touch("read", start, end),)
        case "watch.records", (start, end):
            return (Touch("read", start, end),)
        case _:
            return None


def _of_transaction(conditions: Iterable[Condition], operations: Iterable[Operation]) -> Iterable[Touch]:
    """Both branches count: which is taken is known only when it runs."""
    for condition in conditions:
        yield Touch.of_key("read", condition.key)
    for operation in operations:
        match operation:
            case Get(key=key):
                yield Touch.of_key("read", key)
            case Put(key=key) | Delete(key=key):
                yield Touch.of_key("write", key)
            case Increment(key=key):
                yield Touch.of_key("read", key)
                yield Touch.of_key("write", key)
