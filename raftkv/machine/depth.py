"""How much room on the interpreter's stack a command has: the same wherever, and whenever, it is applied.

A command that calls itself too often, or meets values nested too deep (msgspec reads and writes them by calling
itself), raises RecursionError. That is its own error, rejected alike on every node, only if every node gives it the
same room. By itself none does: the leader applies below a callback of its disk, a follower or a restart below others,
and a process may have any `sys.setrecursionlimit`. So a batch is applied exactly `ROOM` frames below the limit.

A command that fits into the room within a few frames may fit on one node only, as Python counts some calls once or
twice. What follows from that differs is found by the digest, as always.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec.inspect as kinds

T = TypeVar("T")

ROOM = 1_000
"""Frames that a batch of entries has: about what Python gives a whole program, whatever this one was given."""

ROOM_TO_CHECK = 700
"""Frames to read arguments with before a command is in the log: so few that it can be read wherever it is applied."""

NESTED_MAX = ROOM_TO_CHECK
"""Values within values in a declared rejection's fields. Interpreters differ in how much of that their stacks bear
(from 3.12 on, C functions have one of their own); this much fits into the room that a command has on each of them."""

_one_at_a_time = threading.RLock()
"""The limit is one for all threads, and is not to change while a batch counts on it."""


def _after_fork() -> None:
    global _one_at_a_time
    _one_at_a_time = threading.RLock()  # a thread that is not there may have held it


os.register_at_fork(after_in_child=_after_fork)


def with_room(call: Callable[[Any], T], argument: Any, frames: int) -> T:
    """`call(argument)` with exactly so many frames to the recursion limit. Takes about 2 µs: once for a batch.

    The limit is never lowered below other threads: what is too much is filled with frames, where there are any.
    Raises RecursionError when this is called from so deep that the limit would have to be raised again and again.
    """
    with _one_at_a_time:
        depth, limit = _depth(), sys.getrecursionlimit()
        spare = limit - depth - frames
        if spare < 0:
            if depth > ROOM:
                raise RecursionError(f"a state machine is called from {depth} frames below")
            # For good: a thread that is now deeper than the old limit must not find that again.
            sys.setrecursionlimit(limit - spare)
            return call(argument)
        if spare <= _FEW or threading.active_count() > 1:
            return with_less_room(call, argument, spare - 1) if spare else call(argument)
        sys.setrecursionlimit(limit - spare)
        try:
            return call(argument)
        finally:
            sys.setrecursionlimit(limit)


_FEW = 16


def _depth() -> int:
    """How deep the caller is, as the interpreter counts for its limit: calls of C functions are among them."""
    try:
        sys.setrecursionlimit(1)  # changes nothing, as whoever calls is deeper, and is told how deep
    except RecursionError as exc:
        return int(str(exc).partition(" depth ")[2].partition(":")[0])
    raise AssertionError("a function runs at a depth below 1")


def with_less_room(call: Callable[[Any], T], argument: Any, frames: int) -> T:
    """`call(argument)` with so many frames less on the stack; raises RecursionError where they would be missed."""
    return call(argument) if frames == 0 else with_less_room(call, argument, frames - 1)


def is_shallow(types: Iterable[Any]) -> bool:
    """Whether no value of these types is nested deeper than the types themselves are written.

    Any value at all may stand for `Any`, and in a field that a class does not know; classes may hold their like.
    """
    return all(_is_shallow(kind) for kind in kinds.multi_type_info(types))


_PLAIN = (
    kinds.NoneType,
    kinds.BoolType,
    kinds.IntType,
    kinds.FloatType,
    kinds.StrType,
    kinds.BytesType,
    kinds.ByteArrayType,
    kinds.DateTimeType,
    kinds.DateType,
    kinds.TimeType,
    kinds.TimeDeltaType,
    kinds.UUIDType,
    kinds.DecimalType,
    kinds.EnumType,
    kinds.LiteralType,
)


def _is_shallow(kind: kinds.Type) -> bool:
    if isinstance(kind, _PLAIN):
        return True
    if isinstance(kind, kinds.ListType | kinds.SetType | kinds.FrozenSetType | kinds.VarTupleType):
        return _is_shallow(kind.item_type)
    if isinstance(kind, kinds.TupleType):
        return all(_is_shallow(item) for item in kind.item_types)
    if isinstance(kind, kinds.DictType):
        return _is_shallow(kind.key_type) and _is_shallow(kind.value_type)
    return isinstance(kind, kinds.UnionType) and all(_is_shallow(one) for one in kind.types)


_NO_OPENINGS = bytes(each for each in range(256) if not (0x80 <= each <= 0x9F or 0xDC <= each <= 0xDF))
_SIZES = dict(zip(range(0xCA, 0xD9), (4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17), strict=True))
"""Bytes behind the first one, of numbers and of extensions of a fixed size."""
_WIDTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Bytes of the length of what says its own: bytes, extensions, text."""


def is_nested_deeper(data: bytes, most: int) -> bool:
    """Whether more than `most` arrays and maps are within each other in a msgpack document, which must be whole.

    Unlike msgspec, this calls nothing for what is within, so it finds the same on every interpreter.
    """
    if len(data.translate(None, _NO_OPENINGS)) <= most:
        return False  # too few of all bytes could open one
    unread: list[int] = []
    at = 0
    while at < len(data):
        items, at = _after(data, at)
        if unread:
            unread[-1] -= 1
        if items is not None:
            unread.append(items)
        if len(unread) > most:
            return True
        while unread and not unread[-1]:
            unread.pop()
    return False


def _after(data: bytes, at: int) -> tuple[int | None, int]:
    """How many items the array or map has that begins here, None for what is neither; and where the next value is."""
    head = data[at]
    at += 1
    if 0x80 <= head <= 0x9F:
        return (head & 0x0F) * (1 if head >= 0x90 else 2), at
    if 0xDC <= head <= 0xDF:
        size = 4 if head & 1 else 2
        return int.from_bytes(data[at : at + size], "big") * (1 if head <= 0xDD else 2), at + size
    if 0xA0 <= head <= 0xBF:
        return None, at + (head & 0x1F)
    if width := _WIDTHS.get(head):
        is_extension = 0xC7 <= head <= 0xC9  # with a byte for its type
        return None, at + width + is_extension + int.from_bytes(data[at : at + width], "big")
    return None, at + _SIZES.get(head, 0)
