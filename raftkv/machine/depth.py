"""How much room on the interpreter's stack a command has: the same wherever, and whenever, it is applied.

A command that calls itself too often, or meets values nested too deep (msgspec reads and writes them by calling
itself), raises RecursionError. That is its own error, rejected alike on every node, only if every node gives it the
same room. By itself none does: the leader applies below a callback of its disk, a follower or a restart below others,
and a process may have any `sys.setrecursionlimit`. So a batch is applied exactly `ROOM` frames below the limit.

A command that fits into the room within a few frames may fit on one node only, as Python counts some calls once or
twice. What follows from that differs is found by the digest, as always.

Nodes may run different versions of Python, and the room is not the same thing to these: from 3.12 on, calls of C
functions have a stack of their own, of a depth that nobody can set and that releases change. So what a command takes,
returns, keeps, emits, schedules or rejects with may be nested no deeper than `NESTED_MAX`, which is counted in the
encoded bytes. What is left to the stack is what a command does itself: one that calls itself, or has C functions do so
(`repr`, `==`, `copy.deepcopy`, `json` of values nested deep; also a value within the bound that is encoded from many
calls down), may fit on one version and not on another. Let no command go deeper than some hundred calls while nodes
run different ones.
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

NESTED_MAX = 700
"""Values within values: in a command, with what is around its arguments, before it is in the log; and in each value
that it returns, keeps, emits, schedules another one with, or rejects with. This much can be read and written in the
room that a command has on each interpreter, and with what clients have by themselves."""

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
_NUMBERS = dict(zip(range(0xCA, 0xD9), (5, 9, 2, 3, 5, 9, 2, 3, 5, 9, 3, 4, 6, 10, 18), strict=True))
"""Bytes of numbers, and of extensions of a fixed size, with the first one."""


def _size(head: int) -> int:
    if 0xA0 <= head <= 0xBF:
        return 1 + (head & 0x1F)  # a short text
    return _NUMBERS.get(head, 1 if head < 0x80 or 0xC0 <= head <= 0xC3 or head >= 0xE0 else 0)


_SIZES = bytes(map(_size, range(256)))
"""Bytes of a value that begins with this one, if that tells; 0 for arrays, maps, and what says its own length."""
_WIDTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Bytes of the length of what says its own: bytes, extensions, text."""


def is_nested_deeper(data: bytes, most: int) -> bool:
    """Whether more than `most` arrays and maps are within each other in a msgpack document, which must be whole.

    Unlike msgspec, this calls nothing for what is within, so it finds the same on every interpreter.
    """
    if len(data) <= most or len(data.translate(None, _NO_OPENINGS)) <= most:
        return False  # too few of all bytes could open one
    around: list[int] = []
    at, end, unread = 0, len(data), 0
    while at < end:
        head = data[at]
        if size := _SIZES[head]:  # as most have one: 0.1 µs for each of them
            at += size
        elif head <= 0x9F or head >= 0xDC:
            around.append(unread)
            if len(around) > most:
                return True
            unread, at = _opened(data, at)
            unread += 1  # itself, which has been read then
        else:
            width = _WIDTHS[head]
            is_extension = 0xC7 <= head <= 0xC9  # with a byte for its type
            at += 1 + width + is_extension + int.from_bytes(data[at + 1 : at + 1 + width], "big")
        unread -= 1
        while not unread and around:
            unread = around.pop() - 1
    return False


def _opened(data: bytes, at: int) -> tuple[int, int]:
    """How many items the array or map has that begins here, and where the first of them is."""
    head = data[at]
    if head <= 0x9F:
        return (head & 0x0F) * (1 if head >= 0x90 else 2), at + 1
    size = 4 if head & 1 else 2
    return int.from_bytes(data[at + 1 : at + 1 + size], "big") * (1 if head <= 0xDD else 2), at + 1 + size


def check_nesting(data: bytes, what: str) -> None:
    """Raises `RecursionError` where `what`, which is encoded as `data`, is nested deeper than `NESTED_MAX`.

    Where msgspec itself has enough of it differs between interpreters, and so would replicas.
    """
    if is_nested_deeper(data, NESTED_MAX):
        raise too_deep(what)


def too_deep(what: str) -> RecursionError:
    """What is raised for that."""
    return RecursionError(f"{what} has values nested deeper than {NESTED_MAX}")


def shown(value: object) -> str:
    """Its `repr`; words where that takes more of the stack than there is, which is as much as an interpreter likes."""
    try:
        return repr(value)
    except RecursionError:
        return "(a value that is nested too deep to be shown)"
