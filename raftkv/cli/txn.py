"""The little language of `raftkv txn`: a condition or an operation a line."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from raftkv.errors import InvalidArgument
from raftkv.kv import Item
from raftkv.kv.model import (
    COUNTER_MAX,
    COUNTER_MIN,
    ChangedAt,
    Condition,
    Delete,
    Exists,
    Get,
    Increment,
    Missing,
    Operation,
    OperationResult,
    Put,
    ValueIs,
    VersionIs,
)

ToBytes = Callable[[str], bytes]


class ParsedTransaction(msgspec.Struct):
    """A transaction as it was read: its conditions, and the operations for when they hold and when they don't."""

    conditions: list[Condition]
    then: list[Operation]
    otherwise: list[Operation]


def parse_transaction(lines: Sequence[str], to_bytes: ToBytes) -> ParsedTransaction:
    """Read the lines; empty ones and those that begin with # are skipped. Raises `InvalidArgument`."""
    plan = ParsedTransaction([], [], [])
    for line in lines:
        try:
            words = shlex.split(line, comments=False)
        except ValueError as exc:
            raise InvalidArgument(f"{line!r}: {exc}") from None
        if not words or words[0].startswith("#"):
            continue
        match words:
            case ["if", *rest]:
                plan.conditions.append(_condition(line, rest, to_bytes))
            case ["else", *rest]:
                plan.otherwise.append(_operation(line, rest, to_bytes))
            case ["then", *rest]:
                plan.then.append(_operation(line, rest, to_bytes))
            case _:
                plan.then.append(_operation(line, words, to_bytes))
    if not (plan.conditions or plan.then or plan.otherwise):
        raise InvalidArgument("a transaction needs at least one line; see raftkv txn --help")
    return plan


def _condition(line: str, words: list[str], to_bytes: ToBytes) -> Condition:
    match words:
        case ["exists", key]:
            return Exists(to_bytes(key))
        case ["missing", key]:
            return Missing(to_bytes(key))
        case ["value", key, value]:
            return ValueIs(to_bytes(key), to_bytes(value))
        case ["version", key, number]:
            return VersionIs(to_bytes(key), _number(line, number))
        case ["changed", key, index]:
            return ChangedAt(to_bytes(key), _number(line, index))
    raise InvalidArgument(
        f"{line!r}: a condition is one of: if exists KEY, if missing KEY, if value KEY VALUE, "
        "if version KEY N, if changed KEY INDEX"
    )


def _operation(line: str, words: list[str], to_bytes: ToBytes) -> Operation:
    match words:
        case ["put", key, value]:
            return Put(to_bytes(key), to_bytes(value))
        case ["delete", key]:
            return Delete(to_bytes(key))
        case ["get", key]:
            return Get(to_bytes(key))
        case ["increment", key]:
            return Increment(to_bytes(key))
        case ["increment", key, by]:
            return Increment(to_bytes(key), _number(line, by))
    raise InvalidArgument(
        f"{line!r}: an operation is one of: put KEY VALUE, delete KEY, increment KEY [BY], get KEY; "
        "with else before it when the conditions do not hold"
    )


def _number(line: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise InvalidArgument(f"{line!r}: {text!r} must be a whole number") from None
    if not COUNTER_MIN <= number <= COUNTER_MAX:
        raise InvalidArgument(f"{line!r}: {text} does not fit 64 bits")
    return number


def result_value(result: OperationResult, item_value: Callable[[Item], Any]) -> dict[str, Any]:
    """An operation's result for JSON: only the field that its kind has."""
    if result.stamp is not None:
        return {"changed_index": result.stamp.changed_index, "version": result.stamp.version}
    if result.deleted is not None:
        return {"deleted": result.deleted}
    if result.counter is not None:
        return {"counter": result.counter}
    return {"item": None if result.item is None else item_value(result.item)}


def show_result(operation: Operation, result: OperationResult, to_text: Callable[[bytes], str]) -> str:
    """An operation and its result as a line."""
    key = to_text(operation.key)
    match operation:
        case Put():
            assert result.stamp is not None, "a put gives a stamp"
            return f"put {key}: version {result.stamp.version}"
        case Delete():
            return f"delete {key}: {'done' if result.deleted else 'no such key'}"
        case Increment():
            return f"increment {key}: {result.counter}"
        case Get():
            return f"get {key}: {to_text(result.item.value) if result.item is not None else 'no such key'}"
